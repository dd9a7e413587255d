#include "workload.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <vector>

namespace bench {

namespace {

constexpr std::size_t alignment = 64;

struct release {
    void operator()(void* data) const { ::operator delete(data, std::align_val_t{alignment}); }
};

/// Known values. Their number is prime, so that heads differ.
const std::vector<float>& known_values() {
    static const std::vector<float> values = [] {
        std::mt19937 random(20230821);
        std::uniform_real_distribution<float> uniform(0.25F, 1.0F);
        std::vector<float> drawn(8191);
        for (float& value : drawn) value = (random() & 1U) != 0 ? uniform(random) : -uniform(random);
        return drawn;
    }();
    return values;
}

template <class T>
void fill_with(T* data, std::int64_t count) {
    std::vector<T> pattern;
    for (const float value : known_values()) pattern.push_back(T(value));
    for (std::int64_t at = 0; at < count; at += static_cast<std::int64_t>(pattern.size())) {
        const auto left = static_cast<std::size_t>(count - at);
        std::memcpy(data + at, pattern.data(), std::min(left, pattern.size()) * sizeof(T));
    }
}

double rounded(double value, rw::element_type type) {
    const auto narrow = static_cast<float>(value);
    if (type == rw::element_type::f16) return static_cast<double>(static_cast<float>(rw::f16(narrow)));
    if (type == rw::element_type::bf16) return static_cast<double>(static_cast<float>(rw::bf16(narrow)));
    return static_cast<double>(narrow);
}

double element(const rw::tensor& t, std::int64_t at) {
    if (t.type == rw::element_type::f16)
        return static_cast<double>(static_cast<float>(static_cast<rw::f16*>(t.data)[at]));
    if (t.type == rw::element_type::bf16) {
        return static_cast<double>(static_cast<float>(static_cast<rw::bf16*>(t.data)[at]));
    }
    return static_cast<double>(static_cast<float*>(t.data)[at]);
}

/// Relative error of rounding to a type: half a unit in the last place.
double rounding(rw::element_type type) {
    if (type == rw::element_type::f16) return 0x1p-11;
    return type == rw::element_type::bf16 ? 0x1p-8 : 0.0;
}

class oracle {
public:
    /// The tensor held the known values from number `first_value` on.
    /// The unit of errors is `of_value` times the exact value plus `of_norm` times the norm of its pair.
    oracle(const rw::tensor& tensor, rw::layout_kind layout, std::int64_t first_value, double of_value, double of_norm)
        : tensor_(tensor), layout_(layout), first_value_(first_value), of_value_(of_value), of_norm_(of_norm) {}

    double max_error(std::int64_t token, std::int64_t position) const {
        double largest = 0;
        for (std::int64_t pair = 0; pair < head_dim / 2; ++pair) {
            const long double theta =
                std::pow(static_cast<long double>(base), -2.0L * static_cast<long double>(pair) / head_dim);
            const long double angle = static_cast<long double>(position) * theta;
            const auto c = static_cast<double>(std::cos(angle)), s = static_cast<double>(std::sin(angle));
            for (std::int64_t head = 0; head < tensor_.heads; ++head)
                largest = std::max(largest, pair_error(token, head, pair, c, s));
        }
        return largest;
    }

private:
    double pair_error(std::int64_t token, std::int64_t head, std::int64_t pair, double c, double s) const {
        const bool split = layout_ == rw::layout_kind::half_split;
        const std::int64_t start = token * tensor_.stride_token + head * tensor_.stride_head;
        const std::int64_t first = start + (split ? pair : 2 * pair),
                           second = start + (split ? pair + head_dim / 2 : 2 * pair + 1);
        const double x = before(first), y = before(second);
        return std::max(error(first, x * c - y * s, std::hypot(x, y)), error(second, x * s + y * c, std::hypot(x, y)));
    }
    double before(std::int64_t at) const {
        const auto& values = known_values();
        return rounded(static_cast<double>(values[static_cast<std::size_t>(first_value_ + at) % values.size()]),
                       tensor_.type);
    }
    double error(std::int64_t at, double exact, double norm) const {
        const double found = element(tensor_, at);
        if (!std::isfinite(found)) return std::numeric_limits<double>::infinity();
        return std::abs(found - exact) / (of_value_ * std::abs(exact) + of_norm_ * norm);
    }

    const rw::tensor& tensor_;
    rw::layout_kind layout_;
    std::int64_t first_value_;
    double of_value_, of_norm_;
};

double largest_error(const workload& rotated, std::int64_t first, double of_value, double of_norm) {
    const std::int64_t tokens = rotated.size.tokens;
    const oracle q(rotated.q, rotated.size.layout, 0, of_value, of_norm);
    const oracle k(rotated.k, rotated.size.layout, rotated.q.elements(), of_value, of_norm);
    double largest = 0;
    for (const std::int64_t token : {std::int64_t{0}, tokens / 3, tokens / 2, tokens - tokens / 5 - 1, tokens - 1}) {
        largest = std::max({largest, q.max_error(token, first + token), k.max_error(token, first + token)});
    }
    return largest;
}

}  // namespace

void* memory(int buffer, std::int64_t bytes) {
    struct allocation {
        std::unique_ptr<void, release> data;
        std::int64_t bytes = 0;
    };
    static std::map<int, allocation> allocations;
    allocation& found = allocations[buffer];
    if (found.bytes < bytes) {
        found.data.reset();
        found.data.reset(::operator new(static_cast<std::size_t>(bytes), std::align_val_t{alignment}));
        found.bytes = bytes;
    }
    return found.data.get();
}

workload::workload(const shape& shape_, order axes, void* memory) : size(shape_) {
    const auto make = [&](void* data, std::int64_t heads) {
        return rw::tensor{.data = data,
                          .type = size.type,
                          .batch = 1,
                          .tokens = size.tokens,
                          .heads = heads,
                          .head_dim = head_dim,
                          .stride_batch = heads * size.tokens * head_dim,
                          .stride_token = axes == order::thd ? heads * head_dim : head_dim,
                          .stride_head = axes == order::thd ? head_dim : size.tokens * head_dim,
                          .stride_element = 1};
    };
    q = make(memory, size.q_heads);
    const auto q_bytes = static_cast<std::size_t>(q.elements()) * rw::size_of(size.type);
    k = make(static_cast<char*>(memory) + q_bytes, size.k_heads);
}

void workload::fill() const {
    switch (size.type) {
        case rw::element_type::f32:
            return fill_with(static_cast<float*>(q.data), size.elements());
        case rw::element_type::f16:
            return fill_with(static_cast<rw::f16*>(q.data), size.elements());
        default:
            return fill_with(static_cast<rw::bf16*>(q.data), size.elements());
    }
}

double error_to_tolerance(const workload& rotated, std::int64_t first, double angle_error) {
    return largest_error(rotated, first, rounding(rotated.size.type), angle_error);
}

double error_to_norm(const workload& rotated, std::int64_t first) { return largest_error(rotated, first, 0.0, 1.0); }

bool has_initial_magnitude(const workload& tensors) {
    const std::int64_t count = tensors.size.elements();
    double squares = 0;
    std::int64_t samples = 0;
    for (std::int64_t at = 0; at < count; at += 1 + count / 4096, ++samples)
        squares += std::pow(element(tensors.q, at), 2);
    const double magnitude = std::sqrt(squares / static_cast<double>(samples));
    return magnitude > 0.1 && magnitude < 10;
}

}  // namespace bench
