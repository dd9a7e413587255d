/// @file  The layers of a Llama in float64, one sequence at a time. Keys are kept unrotated and rotated at every use,
/// so that a change of the encoding needs no re-rotation.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <ropewalk/llama/weights.hpp>

namespace test {

using numbers = std::vector<double>;

/// Angle and magnitude of a pair of the token at an index. Queries are multiplied by the magnitude, keys divided.
struct reference_policy {
    std::function<double(std::int64_t index, std::int64_t pair)> angle;
    std::function<double(std::int64_t index, std::int64_t pair)> magnitude = [](std::int64_t, std::int64_t) {
        return 1.0;
    };
    double score = 1;  ///< multiplies every score
};

inline reference_policy linear_policy(const ropewalk::llama::model_config& config, double factor) {
    return {[=](std::int64_t index, std::int64_t pair) {
        return static_cast<double>(index) / factor *
               std::pow(config.base, -2.0 * static_cast<double>(pair) / static_cast<double>(config.head_dim));
    }};
}

class reference_stack {
public:
    reference_stack(const ropewalk::llama::model_config& config, const ropewalk::llama::model_weights& weights)
        : config_(config), weights_(&weights), keys_(weights.layers.size()), values_(weights.layers.size()) {}

    /// Adds tokens and returns their hidden states [tokens, hidden_size].
    numbers forward(std::span<const float> hidden, const reference_policy& exact_policy) {
        numbers x(hidden.begin(), hidden.end());
        for (std::size_t layer = 0; layer < weights_->layers.size(); ++layer) {
            const auto& w = weights_->layers[layer];
            add(x, multiply(attend(normalised(x, w.attention_norm), layer, exact_policy), w.o));
            if (config_.intermediate_size == 0) continue;
            const numbers normed = normalised(x, w.mlp_norm), up = multiply(normed, w.up);
            numbers gate = multiply(normed, w.gate);
            for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
            add(x, multiply(gate, w.down));
        }
        past_ += static_cast<std::int64_t>(hidden.size()) / config_.hidden_size;
        return x;
    }

private:
    static void add(numbers& x, const numbers& y) {
        for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
    }

    numbers normalised(const numbers& x, const ropewalk::llama::matrix& w) const {
        numbers y(x.size());
        const auto width = static_cast<std::size_t>(w.columns);
        const auto* const weight = static_cast<const float*>(w.data);
        for (std::size_t row = 0; row < x.size(); row += width) {
            double squares = 0;
            for (std::size_t i = 0; i < width; ++i) squares += x[row + i] * x[row + i];
            const double size = std::sqrt(squares / static_cast<double>(width) + config_.rms_norm_eps);
            for (std::size_t i = 0; i < width; ++i) y[row + i] = x[row + i] / size * static_cast<double>(weight[i]);
        }
        return y;
    }

    static numbers multiply(const numbers& x, const ropewalk::llama::matrix& w) {
        const auto rows = static_cast<std::size_t>(w.rows), columns = static_cast<std::size_t>(w.columns);
        const auto* const elements = static_cast<const float*>(w.data);
        numbers y(x.size() / columns * rows);
        for (std::size_t i = 0; i < y.size(); ++i) {
            for (std::size_t c = 0; c < columns; ++c)
                y[i] += x[i / rows * columns + c] * static_cast<double>(elements[i % rows * columns + c]);
        }
        return y;
    }

    /// Rows [tokens, heads, head_dim] from the index `first` on, rotated.
    numbers rotated(numbers rows, std::int64_t heads, std::int64_t first, const reference_policy& exact_policy,
                    bool query) const {
        const std::int64_t width = config_.head_dim, pairs = width / 2;
        const bool halves = config_.layout == ropewalk::layout_kind::half_split;
        const auto count = static_cast<std::int64_t>(rows.size()) / width;
        for (std::int64_t head = 0; head < count; ++head) {
            const std::int64_t index = first + head / heads;
            for (std::int64_t pair = 0; pair < pairs; ++pair) {
                double& a = rows[static_cast<std::size_t>(head * width + (halves ? pair : 2 * pair))];
                double& b = rows[static_cast<std::size_t>(head * width + (halves ? pair + pairs : 2 * pair + 1))];
                const double angle = exact_policy.angle(index, pair), magnitude = exact_policy.magnitude(index, pair);
                const double size = query ? magnitude : 1 / magnitude, c = std::cos(angle), s = std::sin(angle),
                             old = a;
                a = (old * c - b * s) * size;
                b = (b * c + old * s) * size;
            }
        }
        return rows;
    }

    numbers attend(const numbers& normed, std::size_t layer, const reference_policy& exact_policy) {
        const auto& w = weights_->layers[layer];
        const numbers q = rotated(multiply(normed, w.q), config_.heads, past_, exact_policy, true);
        for (auto [kept, matrix] : {std::pair{&keys_[layer], &w.k}, std::pair{&values_[layer], &w.v}}) {
            const numbers fresh = multiply(normed, *matrix);
            kept->insert(kept->end(), fresh.begin(), fresh.end());
        }
        const numbers k = rotated(keys_[layer], config_.kv_heads, 0, exact_policy, false);
        numbers out(q.size());
        for (std::int64_t head = 0; head < static_cast<std::int64_t>(q.size()) / config_.head_dim; ++head)
            attend_head(q, k, values_[layer], head, exact_policy.score, out);
        return out;
    }

    void attend_head(const numbers& q, const numbers& k, const numbers& v, std::int64_t head, double factor,
                     numbers& out) const {
        const std::int64_t width = config_.head_dim, seen = past_ + head / config_.heads + 1;
        const std::int64_t shared = head % config_.heads / (config_.heads / config_.kv_heads);
        const auto row = [&](std::int64_t token) {
            return static_cast<std::size_t>((token * config_.kv_heads + shared) * width);
        };
        numbers weight(static_cast<std::size_t>(seen));
        double sum = 0;
        for (std::int64_t token = 0; token < seen; ++token) {
            double score = 0;
            for (std::size_t i = 0; i < static_cast<std::size_t>(width); ++i)
                score += q[static_cast<std::size_t>(head * width) + i] * k[row(token) + i];
            weight[static_cast<std::size_t>(token)] = std::exp(factor * score / std::sqrt(static_cast<double>(width)));
            sum += weight[static_cast<std::size_t>(token)];
        }
        for (std::int64_t token = 0; token < seen; ++token) {
            for (std::size_t i = 0; i < static_cast<std::size_t>(width); ++i)
                out[static_cast<std::size_t>(head * width) + i] +=
                    weight[static_cast<std::size_t>(token)] / sum * v[row(token) + i];
        }
    }

    ropewalk::llama::model_config config_;
    const ropewalk::llama::model_weights* weights_;
    std::vector<numbers> keys_, values_;  // per layer, [tokens, kv_heads, head_dim]
    std::int64_t past_ = 0;
};

}  // namespace test
