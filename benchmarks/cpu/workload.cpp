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

/// A prime number of known values, so that no two heads have the same.
const std::vector<float>& known_values() {
    static const std::vector<float> values = [] {
        std::mt19937 random(20230821);
        std::uniform_real_distribution<float> uniform(0.25F, 1.0F);
        std::vector<float> made(8191);
        for (float& value : made) value = (random() & 1U) != 0 ? uniform(random) : -uniform(random);
        return made;
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

/// Half a unit in the last place, relative.
double rounding(rw::element_type type) {
    if (type == rw::element_type::f16) return 0x1p-11;
    return type == rw::element_type::bf16 ? 0x1p-8 : 0.0;
}

class oracle {
public:
    oracle(const rw::tensor& t, rw::layout_kind layout, std::int64_t skipped)
        : t_(t), layout_(layout), skipped_(skipped) {}

    double worst(std::int64_t token, std::int64_t position) const {
        double worst = 0;
        for (std::int64_t pair = 0; pair < head_dim / 2; ++pair) {
            const long double theta =
                std::pow(static_cast<long double>(base), -2.0L * static_cast<long double>(pair) / head_dim);
            const long double angle = static_cast<long double>(position) * theta;
            const auto c = static_cast<double>(std::cos(angle)), s = static_cast<double>(std::sin(angle));
            for (std::int64_t head = 0; head < t_.heads; ++head)
                worst = std::max(worst, pair_error(token, head, pair, c, s));
        }
        return worst;
    }

private:
    double pair_error(std::int64_t token, std::int64_t head, std::int64_t pair, double c, double s) const {
        const bool split = layout_ == rw::layout_kind::half_split;
        const std::int64_t start = token * t_.stride_token + head * t_.stride_head;
        const std::int64_t first = start + (split ? pair : 2 * pair),
                           second = start + (split ? pair + head_dim / 2 : 2 * pair + 1);
        const double x = before(first), y = before(second);
        return std::max(error(first, x * c - y * s, std::hypot(x, y)), error(second, x * s + y * c, std::hypot(x, y)));
    }
    double before(std::int64_t at) const {
        const auto& values = known_values();
        return rounded(static_cast<double>(values[static_cast<std::size_t>(skipped_ + at) % values.size()]), t_.type);
    }
    double error(std::int64_t at, double exact, double norm) const {
        const double found = element(t_, at);
        if (!std::isfinite(found)) return std::numeric_limits<double>::infinity();
        return std::abs(found - exact) / (rounding(t_.type) * std::abs(exact) + 3e-7 * norm);
    }

    const rw::tensor& t_;
    rw::layout_kind layout_;
    std::int64_t skipped_;
};

}  // namespace

void* memory(int which, std::int64_t bytes) {
    struct piece {
        std::unique_ptr<void, release> data;
        std::int64_t bytes = 0;
    };
    static std::map<int, piece> pieces;
    piece& mine = pieces[which];
    if (mine.bytes < bytes) {
        mine.data.reset();
        mine.data.reset(::operator new(static_cast<std::size_t>(bytes), std::align_val_t{alignment}));
        mine.bytes = bytes;
    }
    return mine.data.get();
}

workload::workload(const shape& shape_, order axes, void* memory) : what(shape_) {
    const auto make = [&](void* data, std::int64_t heads) {
        const std::int64_t row = axes == order::thd ? heads * head_dim : head_dim;
        const std::int64_t head = axes == order::thd ? head_dim : what.tokens * head_dim;
        return rw::tensor{data, what.type, 1, what.tokens, heads, head_dim, heads * what.tokens * head_dim,
                          row,  head,      1};
    };
    q = make(memory, what.q_heads);
    const auto q_bytes = static_cast<std::size_t>(q.elements()) * rw::size_of(what.type);
    k = make(static_cast<char*>(memory) + q_bytes, what.k_heads);
}

void workload::fill() const {
    switch (what.type) {
        case rw::element_type::f32:
            return fill_with(static_cast<float*>(q.data), what.elements());
        case rw::element_type::f16:
            return fill_with(static_cast<rw::f16*>(q.data), what.elements());
        default:
            return fill_with(static_cast<rw::bf16*>(q.data), what.elements());
    }
}

double error_in_limits(const workload& turned, std::int64_t first) {
    const std::int64_t tokens = turned.what.tokens;
    double worst = 0;
    for (const std::int64_t token : {std::int64_t{0}, tokens / 3, tokens / 2, tokens - tokens / 5 - 1, tokens - 1}) {
        const oracle q(turned.q, turned.what.layout, 0), k(turned.k, turned.what.layout, turned.q.elements());
        worst = std::max({worst, q.worst(token, first + token), k.worst(token, first + token)});
    }
    return worst;
}

bool still_sane(const workload& used) {
    const std::int64_t count = used.what.elements();
    double square = 0;
    std::int64_t looked = 0;
    for (std::int64_t at = 0; at < count; at += 1 + count / 4096, ++looked) square += std::pow(element(used.q, at), 2);
    const double size = std::sqrt(square / static_cast<double>(looked));
    return size > 0.1 && size < 10;
}

}  // namespace bench
