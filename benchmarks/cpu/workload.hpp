// Queries and keys with known values, and the float64 oracle which says what a rotation must make of them.
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

/// Memory that is touched once and used by one benchmark after the other, as mapping it anew would dominate.
/// `which` tells several at a time apart.
void* memory(int which, std::int64_t bytes);

/// q and k behind each other in one piece of memory.
struct workload {
    workload(const shape& what, order axes, void* memory);
    /// Element i gets known value number i.
    void fill() const;

    shape what;
    rw::tensor q, k;
};

/// The error of `turned` against float64 in units of what is allowed (3e-7 of the pair's norm, and one rounding to the
/// element type), so 1 is the limit. `filled` held the known values, and token t is at position first + t. Looks at
/// every head of the first and the last tokens and of some between. Infinity when anything is not finite.
double error_in_limits(const workload& turned, std::int64_t first);

/// Whether the values are still of the size that they began with: a pass over denormals or infinities times nothing.
bool still_sane(const workload& used);

}  // namespace bench
