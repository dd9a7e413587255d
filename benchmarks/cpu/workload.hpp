// Queries and keys with known values, and their exact rotation in float64.
#pragma once

#include <cstdint>
#include <memory>

#include <ropewalk/core/layout.hpp>
#include <ropewalk/core/view.hpp>

namespace bench {

namespace rw = ropewalk;

inline constexpr std::int64_t head_dim = 128;
inline constexpr double base = 10000.0;

enum class order { thd, bhsd };

struct shape {
    rw::element_type type = rw::element_type::f32;
    rw::layout_kind layout = rw::layout_kind::half_split;
    std::int64_t q_heads = 40, k_heads = 40, tokens = 1;
    int threads = 1;

    [[nodiscard]] std::int64_t elements() const { return (q_heads + k_heads) * tokens * head_dim; }
    [[nodiscard]] std::int64_t bytes() const { return elements() * static_cast<std::int64_t>(rw::size_of(type)); }
};

/// Memory shared by all benchmarks, because mapping new memory would dominate the time. `buffer` numbers the buffers
/// that are in use at the same time.
void* memory(int buffer, std::int64_t bytes);

/// q followed by k in one buffer.
struct workload {
    workload(const shape& size, order axes, void* memory);
    /// Sets element i to known value i.
    void fill() const;

    shape size;
    rw::tensor q, k;
};

/// The error of an angle and of the arithmetic that ropewalk states, relative to the norm of a pair.
inline constexpr double stated_error = 3e-7;

/// The error of rotated known values, divided by the tolerance: `angle_error` times the norm of a pair plus one
/// rounding to the element type. Token t is at position first + t. Checks every head of five tokens, including the
/// first and the last. Returns infinity for values that are not finite.
double error_to_tolerance(const workload& rotated, std::int64_t first, double angle_error = stated_error);

/// The error of the same values, divided by the norm of the pair.
double error_to_norm(const workload& rotated, std::int64_t first);

/// True if the values still have their initial magnitude. Denormals and infinities would change the time of a pass.
bool has_initial_magnitude(const workload& tensors);

}  // namespace bench
