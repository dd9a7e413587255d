/// @file  Sequences in a key-value cache beside what they hold, and attention over them in float64.
#pragma once

#include <dispatch/llama/llama.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <ropewalk/llama/kv_cache.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"

namespace test {

/// One sequence of a call: `past` tokens that it had, `tokens` that come.
struct stretch {
    std::int64_t past = 0, tokens = 1;
};

struct attention_shape {
    std::int64_t heads = 1, kv_heads = 1, head_dim = 64;
    ropewalk::cache_type type = ropewalk::cache_type::f32;
    std::int64_t page_tokens = 256;

    /// A model turns pairs, so its heads are even. The kernels do not ask.
    [[nodiscard]] ropewalk::llama::model_config config(std::int64_t layers = 1) const {
        const std::int64_t even = (head_dim + 1) / 2 * 2;
        return {.hidden_size = heads * even, .layers = layers, .heads = heads, .kv_heads = kv_heads, .head_dim = even};
    }
    [[nodiscard]] ropewalk::llama::page_layout layout(const ropewalk::llama::kv_cache& cache,
                                                      std::int64_t layer = 0) const {
        ropewalk::llama::page_layout result = cache.layout(layer);
        result.head_dim = head_dim;
        return result;
    }
};

/// Queries, and a cache that holds keys and values of all sequences.
class cached_batch {
public:
    /// The keys are multiplied by `spread`, so that scores are.
    cached_batch(random& numbers, const attention_shape& shape, std::vector<stretch> stretches, double spread = 1)
        : shape_(shape),
          stretches_(std::move(stretches)),
          cache_(shape.config(), {.type = shape.type, .page_tokens = shape.page_tokens}) {
        for (const stretch& one : stretches_) {
            const int sequence = cache_.add_sequence();
            cache_.reserve(sequence, one.past + one.tokens);
            for (const bool keys : {true, false}) {
                std::vector<float> rows = normal(numbers, (one.past + one.tokens) * shape.kv_heads * shape.head_dim);
                for (float& x : rows) x *= static_cast<float>(keys ? spread : 1);
                move(ropewalk::dispatch::llama_kernels().store_rows, sequence, one, rows, keys);
            }
            cache_.advance_to(sequence, one.past + one.tokens);
            tokens_ += one.tokens;
        }
        q_ = normal(numbers, tokens_ * shape.heads * shape.head_dim);
    }

    /// Attention of all the tokens in one call.
    [[nodiscard]] std::vector<float> attend(int threads = 0) const {
        std::vector<ropewalk::llama::cpu::paged_rows> parts;
        std::int64_t first = 0;
        for (std::size_t i = 0; i < stretches_.size(); first += stretches_[i++].tokens) parts.push_back(part(i, first));
        return attend(parts, threads);
    }
    /// Of sequence i alone, `step` tokens a call.
    [[nodiscard]] std::vector<float> attend_alone(std::size_t i, std::int64_t step) const {
        std::int64_t first = 0;
        for (std::size_t before = 0; before < i; ++before) first += stretches_[before].tokens;
        std::vector<float> out(q_.size());
        for (std::int64_t done = 0; done < stretches_[i].tokens; done += step) {
            ropewalk::llama::cpu::paged_rows one = part(i, first);
            one.first += done, one.past += done, one.tokens = std::min(step, one.tokens - done);
            const std::vector<float> some = attend({one}, 0);
            const std::int64_t width = shape_.heads * shape_.head_dim;
            std::copy_n(some.begin() + one.first * width, one.tokens * width, out.begin() + one.first * width);
        }
        const std::int64_t width = shape_.heads * shape_.head_dim;
        return {out.begin() + first * width, out.begin() + (first + stretches_[i].tokens) * width};
    }

    /// The largest difference between `out` and attention in float64 over what the cache holds, over the largest value.
    [[nodiscard]] double worst_error(const std::vector<float>& out) const {
        double worst = 0;
        std::int64_t first = 0;
        for (std::size_t i = 0; i < stretches_.size(); first += stretches_[i++].tokens) {
            const std::vector<float> k = cached(static_cast<int>(i), true), v = cached(static_cast<int>(i), false);
            double largest = 0;
            for (const float x : v) largest = std::max(largest, std::fabs(static_cast<double>(x)));
            for (std::int64_t token = 0; token < stretches_[i].tokens; ++token) {
                for (std::int64_t head = 0; head < shape_.heads; ++head) {
                    const std::vector<double> exact = query(k, v, first + token, head, stretches_[i].past + token + 1);
                    const float* const got = out.data() + ((first + token) * shape_.heads + head) * shape_.head_dim;
                    for (std::size_t e = 0; e < exact.size(); ++e) {
                        const double error = std::fabs(static_cast<double>(got[e]) - exact[e]) / largest;
                        worst = error <= worst ? worst : error;  // a NaN stays
                    }
                }
            }
        }
        return worst;
    }

    /// What the cache holds of a sequence.
    [[nodiscard]] std::vector<float> cached(int sequence, bool keys) const {
        const stretch& one = stretches_[static_cast<std::size_t>(sequence)];
        std::vector<float> rows(static_cast<std::size_t>((one.past + one.tokens) * shape_.kv_heads * shape_.head_dim));
        move(ropewalk::dispatch::llama_kernels().load_rows, sequence, one, rows, keys);
        return rows;
    }

    [[nodiscard]] std::vector<float>& q() { return q_; }
    [[nodiscard]] std::string describe() const {
        std::string text = std::to_string(shape_.heads) + "/" + std::to_string(shape_.kv_heads) + " heads of " +
                           std::to_string(shape_.head_dim) + ", " + std::string(to_string(shape_.type)) +
                           ", pages of " + std::to_string(shape_.page_tokens) + ":";
        for (const stretch& one : stretches_) text += " " + std::to_string(one.past) + "+" + std::to_string(one.tokens);
        return text;
    }

private:
    static std::vector<float> normal(random& numbers, std::int64_t count) {
        std::vector<float> result(static_cast<std::size_t>(count));
        for (float& x : result) x = static_cast<float>(numbers.normal());
        return result;
    }
    void move(void (*kernel)(const ropewalk::llama::cpu::cache_params&, int), int sequence, const stretch& one,
              std::vector<float>& rows, bool keys) const {
        kernel({rows.data(), {0, one.past + one.tokens, 0, cache_.pages(sequence)}, shape_.layout(cache_), keys}, 0);
    }
    [[nodiscard]] ropewalk::llama::cpu::paged_rows part(std::size_t i, std::int64_t first) const {
        return {first, stretches_[i].tokens, stretches_[i].past, cache_.pages(static_cast<int>(i))};
    }
    [[nodiscard]] float scale() const { return 1 / std::sqrt(static_cast<float>(shape_.head_dim)); }
    [[nodiscard]] std::vector<float> attend(const std::vector<ropewalk::llama::cpu::paged_rows>& parts,
                                            int threads) const {
        std::vector<float> out(q_.size(), std::nanf(""));
        ropewalk::dispatch::llama_kernels().attend(
            {q_.data(), out.data(), shape_.heads, scale(), parts, shape_.layout(cache_)}, threads);
        return out;
    }
    /// softmax(scale · q·k) · v over the first `count` keys.
    [[nodiscard]] std::vector<double> query(const std::vector<float>& k, const std::vector<float>& v,
                                            std::int64_t token, std::int64_t head, std::int64_t count) const {
        const std::int64_t width = shape_.head_dim, kv = head / (shape_.heads / shape_.kv_heads);
        const auto row = [&](const std::vector<float>& x, std::int64_t key) {
            return x.data() + (key * shape_.kv_heads + kv) * width;
        };
        const float* const q = q_.data() + (token * shape_.heads + head) * width;
        std::vector<double> scores, result(static_cast<std::size_t>(width));
        for (std::int64_t key = 0; key < count; ++key) {
            double score = 0;
            for (std::int64_t i = 0; i < width; ++i)
                score += static_cast<double>(q[i]) * static_cast<double>(row(k, key)[i]);
            scores.push_back(score * static_cast<double>(scale()));
        }
        const double most = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (double& score : scores) sum += score = std::exp(score - most);
        for (std::int64_t key = 0; key < count; ++key) {
            const double weight = scores[static_cast<std::size_t>(key)] / sum;
            for (std::int64_t i = 0; i < width; ++i)
                result[static_cast<std::size_t>(i)] += weight * static_cast<double>(row(v, key)[i]);
        }
        return result;
    }

    attention_shape shape_;
    std::vector<stretch> stretches_;
    ropewalk::llama::kv_cache cache_;
    std::vector<float> q_;
    std::int64_t tokens_ = 0;
};

}  // namespace test
