/// @file  Sets of tensors on the device, every token of which holds the same random elements: the oracle then needs
/// those of one token alone.
#pragma once

#include <cmath>
#include <cstring>
#include <numeric>

#include "../ceilings/worst.hpp"
#include "calls.hpp"
#include "device.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"

namespace bench {

/// What is rotated: queries and keys (and values, for caches) of one layer.
struct problem {
    ropewalk::element_type type = ropewalk::element_type::bf16;
    ropewalk::layout_kind layout = ropewalk::layout_kind::half_split;
    std::int64_t q_heads = 40, kv_heads = 40, tokens = 4096;
    bool values = false;

    static constexpr std::int64_t head_dim = 128;
    [[nodiscard]] std::int64_t heads() const { return q_heads + (values ? 2 : 1) * kv_heads; }
    [[nodiscard]] std::size_t bytes_of(std::int64_t some_heads) const {
        return static_cast<std::size_t>(tokens * some_heads * head_dim) * ropewalk::size_of(type);
    }
    [[nodiscard]] std::size_t bytes() const { return bytes_of(heads()); }
};

/// Inputs and outputs of a problem, several times: q, k and v behind each other, each [tokens, heads, head_dim].
class buffers {
public:
    buffers(const problem& what, int sets, test::random& numbers)
        : what_(what), sets_(sets), head_(what.type, {1, 1, 1, problem::head_dim}, numbers) {
        values_ = head_.values();
        in_ = device::memory(what.bytes() * static_cast<std::size_t>(sets));
        out_ = device::memory(in_.bytes());
        fill();
        for (int set = 0; set < sets; ++set) poison(set);
    }
    [[nodiscard]] int sets() const { return sets_; }
    void fill() {
        const std::size_t bytes = values_.size() * ropewalk::size_of(what_.type);
        head_.set(values_);
        device::copy(in_.data(), head_.tensor().data, bytes);
        device::repeat(in_.data(), bytes, in_.bytes());
        poison(0);
    }
    [[nodiscard]] device::tensors in(int set) const { return at(in_, set); }
    [[nodiscard]] device::tensors out(int set) const { return at(out_, set); }
    void copy(device::stream_handle on, int set) const {
        device::copy_on(on, out(set).q.data, in(set).q.data, what_.bytes());
    }
    /// What an RMSNorm of the heads, with weights of one, multiplies them by.
    [[nodiscard]] double norm_factor(double epsilon) const {
        const double squares = std::inner_product(values_.begin(), values_.end(), values_.begin(), 0.0);
        return 1 / std::sqrt(squares / static_cast<double>(values_.size()) + epsilon);
    }
    /// The largest error of the queries and keys of set 0 at some tokens and heads, of the norm of a pair, where they
    /// were multiplied by a factor before. Absent ones have none.
    double error(const device::tensors& result, const test::twin& by, std::int64_t first, double factor = 1) {
        device::finish();
        const oracle::shape shape = test::shape_of(head_.size(), by.ours.geometry, what_.layout);
        std::vector<double> before = values_;
        for (double& x : before) x *= factor;
        double worst = 0;
        for (const std::int64_t token : {std::int64_t{0}, what_.tokens / 2, what_.tokens - 1}) {
            const auto exact = oracle::rotate(shape, before, by.exact, {{first + token, 0}});
            for (const ropewalk::tensor* x : {&result.q, &result.k}) {
                if (x->data == nullptr) continue;
                for (const std::int64_t head : {std::int64_t{0}, x->heads - 1}) {
                    const std::int64_t element = token * x->stride_token + head * x->stride_head;
                    device::copy(
                        head_.tensor().data,
                        static_cast<const char*>(x->data) + element * std::int64_t(ropewalk::size_of(what_.type)),
                        values_.size() * ropewalk::size_of(what_.type));
                    worst = ceilings::larger(worst, error_of(head_.values(), exact, shape));
                }
            }
        }
        return worst;
    }

private:
    /// Makes numbers of an output which no rotation makes.
    void poison(int set) const { device::fill(out(set).q.data, 0x5a, what_.bytes()); }
    [[nodiscard]] device::tensors at(const device::memory& all, int set) const {
        auto* const begin = static_cast<char*>(all.data()) + what_.bytes() * static_cast<std::size_t>(set);
        const auto side = [&](std::int64_t before, std::int64_t heads) {
            ropewalk::tensor t;
            t.data = begin + what_.bytes_of(before), t.type = what_.type;
            t.tokens = what_.tokens, t.heads = heads, t.head_dim = problem::head_dim;
            t.stride_head = t.head_dim, t.stride_token = heads * t.head_dim, t.stride_batch = t.tokens * t.stride_token;
            return t;
        };
        device::tensors result{side(0, what_.q_heads), side(what_.q_heads, what_.kv_heads), {}};
        if (what_.values) result.v = side(what_.q_heads + what_.kv_heads, what_.kv_heads);
        return result;
    }
    static double error_of(const std::vector<double>& got, const std::vector<double>& exact, const oracle::shape& s) {
        double worst = 0;
        for (std::int64_t pair = 0; pair < s.width / 2; ++pair) {
            const auto a = static_cast<std::size_t>(s.first(pair)), b = static_cast<std::size_t>(s.second(pair));
            const double norm = std::hypot(exact[a], exact[b]);
            if (norm > 1e-3) worst = ceilings::larger(worst, std::hypot(got[a] - exact[a], got[b] - exact[b]) / norm);
        }
        return worst;
    }

    problem what_;
    int sets_;
    test::array head_;
    std::vector<double> values_;
    device::memory in_, out_;
};

}  // namespace bench
