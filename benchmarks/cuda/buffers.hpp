// Sets of tensors on the device. All tokens hold the same random elements, so the oracle needs only those of one token.
#pragma once

#include <cmath>
#include <cstring>
#include <numeric>

#include "../max_error.hpp"
#include "calls.hpp"
#include "device.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"

namespace bench {

/// Size of the queries and keys of one layer, and of the values for caches.
struct workload {
    ropewalk::element_type type = ropewalk::element_type::bf16;
    ropewalk::layout_kind layout = ropewalk::layout_kind::half_split;
    std::int64_t q_heads = 40, kv_heads = 40, tokens = 4096;
    bool values = false;

    static constexpr std::int64_t head_dim = 128;
    [[nodiscard]] std::int64_t heads() const { return q_heads + (values ? 2 : 1) * kv_heads; }
    [[nodiscard]] std::size_t bytes_of(std::int64_t head_count) const {
        return static_cast<std::size_t>(tokens * head_count * head_dim) * ropewalk::size_of(type);
    }
    [[nodiscard]] std::size_t bytes() const { return bytes_of(heads()); }
};

/// Several sets of inputs and outputs of a workload: q, k and v one after the other, each [tokens, heads, head_dim].
class buffers {
public:
    buffers(const workload& size, int sets, test::random& numbers)
        : size_(size), sets_(sets), head_(size.type, {1, 1, 1, workload::head_dim}, numbers) {
        values_ = head_.values();
        in_ = device::memory(size.bytes() * static_cast<std::size_t>(sets));
        out_ = device::memory(in_.bytes());
        fill();
        for (int set = 0; set < sets; ++set) poison(set);
    }
    [[nodiscard]] int sets() const { return sets_; }
    void fill() {
        const std::size_t bytes = values_.size() * ropewalk::size_of(size_.type);
        head_.set(values_);
        device::copy(in_.data(), head_.tensor().data, bytes);
        device::repeat(in_.data(), bytes, in_.bytes());
        poison(0);
    }
    [[nodiscard]] device::tensors in(int set) const { return tensors_of(in_, set); }
    [[nodiscard]] device::tensors out(int set) const { return tensors_of(out_, set); }
    void copy(device::stream_handle on, int set) const {
        device::copy_on(on, out(set).q.data, in(set).q.data, size_.bytes());
    }
    /// The factor by which an RMSNorm with unit weights multiplies the heads.
    [[nodiscard]] double norm_factor(double epsilon) const {
        const double squares = std::inner_product(values_.begin(), values_.end(), values_.begin(), 0.0);
        return 1 / std::sqrt(squares / static_cast<double>(values_.size()) + epsilon);
    }
    /// The largest error of the queries and keys of set 0 at some tokens and heads, relative to the norm of a pair. The
    /// inputs were multiplied by `factor` first. Skips absent tensors.
    double error(const device::tensors& result, const test::twin& encoding, std::int64_t first, double factor = 1) {
        device::finish();
        const oracle::shape shape = test::shape_of(head_.size(), encoding.ours.geometry, size_.layout);
        std::vector<double> before = values_;
        for (double& x : before) x *= factor;
        double largest = 0;
        for (const std::int64_t token : {std::int64_t{0}, size_.tokens / 2, size_.tokens - 1}) {
            const auto exact = oracle::rotate(shape, before, encoding.exact, {{first + token, 0}});
            for (const ropewalk::tensor* x : {&result.q, &result.k}) {
                if (x->data == nullptr) continue;
                for (const std::int64_t head : {std::int64_t{0}, x->heads - 1}) {
                    const std::int64_t element = token * x->stride_token + head * x->stride_head;
                    device::copy(
                        head_.tensor().data,
                        static_cast<const char*>(x->data) + element * std::int64_t(ropewalk::size_of(size_.type)),
                        values_.size() * ropewalk::size_of(size_.type));
                    largest = max_error(largest, error_of(head_.values(), exact, shape));
                }
            }
        }
        return largest;
    }

private:
    /// Fills an output with bytes that no rotation produces.
    void poison(int set) const { device::fill(out(set).q.data, 0x5a, size_.bytes()); }
    [[nodiscard]] device::tensors tensors_of(const device::memory& sets, int set) const {
        auto* const begin = static_cast<char*>(sets.data()) + size_.bytes() * static_cast<std::size_t>(set);
        const auto slice = [&](std::int64_t before, std::int64_t heads) {
            const std::int64_t token = heads * workload::head_dim;
            return ropewalk::tensor{.data = begin + size_.bytes_of(before),
                                    .type = size_.type,
                                    .batch = 1,
                                    .tokens = size_.tokens,
                                    .heads = heads,
                                    .head_dim = workload::head_dim,
                                    .stride_batch = size_.tokens * token,
                                    .stride_token = token,
                                    .stride_head = workload::head_dim};
        };
        device::tensors result{slice(0, size_.q_heads), slice(size_.q_heads, size_.kv_heads), {}};
        if (size_.values) result.v = slice(size_.q_heads + size_.kv_heads, size_.kv_heads);
        return result;
    }
    static double error_of(const std::vector<double>& got, const std::vector<double>& exact,
                           const oracle::shape& shape) {
        double largest = 0;
        for (std::int64_t pair = 0; pair < shape.width / 2; ++pair) {
            const auto a = static_cast<std::size_t>(shape.first(pair)),
                       b = static_cast<std::size_t>(shape.second(pair));
            const double norm = std::hypot(exact[a], exact[b]);
            if (norm > 1e-3) largest = max_error(largest, std::hypot(got[a] - exact[a], got[b] - exact[b]) / norm);
        }
        return largest;
    }

    workload size_;
    int sets_;
    test::array head_;
    std::vector<double> values_;
    device::memory in_, out_;
};

/// Cosines and sines in device memory, one row per token of a call.
class device_table {
public:
    device_table(const test::twin& encoding, std::int64_t first, std::int64_t tokens) : tokens_(tokens) {
        std::vector<float> cos, sin;
        for (std::int64_t i = 0; i < tokens * pairs; ++i) {
            const oracle::unit u = oracle::pair_map(encoding.exact, i % pairs, {first + i / pairs, 0},
                                                    oracle::role::key, oracle::direction::forward);
            cos.push_back(static_cast<float>(u.cos)), sin.push_back(static_cast<float>(u.sin));
        }
        cos_ = device::memory(cos.data(), cos.size() * sizeof(float));
        sin_ = device::memory(sin.data(), sin.size() * sizeof(float));
    }
    [[nodiscard]] ropewalk::cos_sin_table view() const {
        return {.cos = cos_.data(),
                .sin = sin_.data(),
                .rows = tokens_,
                .columns = pairs,
                .stride_row = pairs,
                .order = ropewalk::cos_sin_table::rows_are::by_token};
    }

private:
    static constexpr std::int64_t pairs = workload::head_dim / 2;
    std::int64_t tokens_;
    device::memory cos_, sin_;
};

}  // namespace bench
