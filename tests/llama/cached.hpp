/// @file  Sequences in a key-value cache, and attention over them in float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <dispatch/llama/llama.hpp>
#include <ropewalk/llama/kv_cache.hpp>

#include "llama/generated.hpp"
#include "support/catch.hpp"

namespace test {

namespace llama = ropewalk::llama;

/// One sequence of a call: `past` cached tokens and `tokens` new ones.
struct cached_sequence {
    std::int64_t past = 0, tokens = 1;

    [[nodiscard]] std::int64_t all() const { return past + tokens; }
};

struct attention_shape {
    std::int64_t heads = 1, kv_heads = 1, head_dim = 64;
    ropewalk::cache_type type = ropewalk::cache_type::f32;
    std::int64_t page_tokens = 256;

    /// Rounds an odd head_dim up, because a model rotates pairs. The kernels accept any width.
    [[nodiscard]] llama::model_config config(std::int64_t layers = 1) const {
        const std::int64_t even = (head_dim + 1) / 2 * 2;
        return {.hidden_size = heads * even, .layers = layers, .heads = heads, .kv_heads = kv_heads, .head_dim = even};
    }
    [[nodiscard]] llama::page_layout layout(const llama::kv_cache& cache, std::int64_t layer = 0) const {
        llama::page_layout result = cache.layout(layer);
        result.head_dim = head_dim;
        return result;
    }
};

/// Queries, and a cache with keys and values of all sequences.
class cached_batch {
public:
    /// `spread` multiplies the keys, and thereby the scores.
    cached_batch(random& numbers, const attention_shape& shape, std::vector<cached_sequence> sequences,
                 double spread = 1)
        : shape_(shape),
          sequences_(std::move(sequences)),
          cache_(shape.config(), {.type = shape.type, .page_tokens = shape.page_tokens}) {
        std::int64_t tokens = 0;
        for (const cached_sequence& s : sequences_) {
            const int number = cache_.add_sequence();
            cache_.reserve(number, s.all());
            for (const bool keys : {true, false}) {
                auto rows = normals(numbers, s.all() * shape.kv_heads * shape.head_dim, keys ? spread : 1);
                move(ropewalk::dispatch::llama_kernels().store_rows, number, rows, keys);
            }
            cache_.advance_to(number, s.all());
            rows_.push_back({{tokens, s.tokens, s.past}, cache_.pages(number)});
            tokens += s.tokens;
        }
        q_ = normals(numbers, tokens * shape.heads * shape.head_dim);
    }

    /// Attention of all tokens in one call.
    [[nodiscard]] std::vector<float> attend(int threads = 0) const { return attend(rows_, threads); }

    /// Attention of sequence i only, `step` tokens per call.
    [[nodiscard]] std::vector<float> attend_alone(std::size_t i, std::int64_t step) const {
        const std::int64_t width = shape_.heads * shape_.head_dim;
        std::vector<float> out;
        for (std::int64_t done = 0; done < sequences_[i].tokens; done += step) {
            llama::cpu::paged_rows rows = rows_[i];
            rows.first += done, rows.past += done, rows.tokens = std::min(step, rows.tokens - done);
            const auto result = attend({rows}, 0);
            const auto begin = result.begin() + rows.first * width;
            out.insert(out.end(), begin, begin + rows.tokens * width);
        }
        return out;
    }

    /// Largest difference between `out` and attention in float64 over the contents of the cache, relative to the
    /// largest value.
    [[nodiscard]] double worst_error(const std::vector<float>& out) const {
        double worst = 0;
        for (std::size_t i = 0; i < sequences_.size(); ++i) {
            const std::vector<float> k = cached(i, true), v = cached(i, false);
            double largest = 0;
            for (const float x : v) largest = std::max(largest, std::fabs(static_cast<double>(x)));
            for (std::int64_t n = 0; n < sequences_[i].tokens * shape_.heads; ++n) {
                const std::int64_t token = n / shape_.heads, row = rows_[i].first * shape_.heads + n;
                const auto exact = query(k, v, row, sequences_[i].past + token + 1);
                for (std::size_t e = 0; e < exact.size(); ++e) {
                    const double result = static_cast<double>(out[static_cast<std::size_t>(row * shape_.head_dim) + e]);
                    const double error = std::fabs(result - exact[e]) / largest;
                    worst = error <= worst ? worst : error;  // keeps a NaN
                }
            }
        }
        return worst;
    }

    [[nodiscard]] std::vector<float>& q() { return q_; }
    [[nodiscard]] std::string describe() const {
        std::string text = std::to_string(shape_.heads) + "/" + std::to_string(shape_.kv_heads) + " heads of " +
                           std::to_string(shape_.head_dim) + ", " + std::string(to_string(shape_.type)) +
                           ", pages of " + std::to_string(shape_.page_tokens) + ":";
        for (const cached_sequence& s : sequences_)
            text += " " + std::to_string(s.past) + "+" + std::to_string(s.tokens);
        return text;
    }

private:
    /// Keys or values of a sequence, read from the cache.
    [[nodiscard]] std::vector<float> cached(std::size_t i, bool keys) const {
        std::vector<float> rows(static_cast<std::size_t>(sequences_[i].all() * shape_.kv_heads * shape_.head_dim));
        move(ropewalk::dispatch::llama_kernels().load_rows, static_cast<int>(i), rows, keys);
        return rows;
    }
    void move(void (*kernel)(const llama::cpu::cache_params&, int), int i, std::vector<float>& rows, bool keys) const {
        const std::int64_t tokens = sequences_[static_cast<std::size_t>(i)].all();
        kernel({rows.data(), {{0, tokens, 0}, cache_.pages(i)}, shape_.layout(cache_), keys}, 0);
    }
    [[nodiscard]] float scale() const { return 1 / std::sqrt(static_cast<float>(shape_.head_dim)); }
    [[nodiscard]] std::vector<float> attend(const std::vector<llama::cpu::paged_rows>& rows, int threads) const {
        std::vector<float> out(q_.size(), std::nanf(""));
        ropewalk::dispatch::llama_kernels().attend(
            {q_.data(), out.data(), shape_.heads, scale(), rows, shape_.layout(cache_)}, threads);
        return out;
    }
    /// softmax(scale · q·k) · v of a row of q over the first `count` keys.
    [[nodiscard]] std::vector<double> query(const std::vector<float>& k, const std::vector<float>& v, std::int64_t row,
                                            std::int64_t count) const {
        const std::int64_t width = shape_.head_dim, kv = row % shape_.heads / (shape_.heads / shape_.kv_heads);
        const auto at = [&](const std::vector<float>& x, std::int64_t key, std::int64_t i) {
            return static_cast<double>(x[static_cast<std::size_t>((key * shape_.kv_heads + kv) * width + i)]);
        };
        std::vector<double> scores, result(static_cast<std::size_t>(width));
        for (std::int64_t key = 0; key < count; ++key) {
            double score = 0;
            for (std::int64_t i = 0; i < width; ++i)
                score += static_cast<double>(q_[static_cast<std::size_t>(row * width + i)]) * at(k, key, i);
            scores.push_back(score * static_cast<double>(scale()));
        }
        const double row_max = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (double& score : scores) sum += score = std::exp(score - row_max);
        for (std::int64_t key = 0; key < count; ++key) {
            for (std::int64_t i = 0; i < width; ++i)
                result[static_cast<std::size_t>(i)] += scores[static_cast<std::size_t>(key)] / sum * at(v, key, i);
        }
        return result;
    }

    attention_shape shape_;
    std::vector<cached_sequence> sequences_;
    llama::kv_cache cache_;
    std::vector<llama::cpu::paged_rows> rows_;
    std::vector<float> q_;
};

}  // namespace test
