// The layers of a Llama over a key-value cache: prefill, chunks, single tokens, batches of different lengths.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>
#include <vector>

#include "ropewalk/llama/batch.hpp"
#include "ropewalk/llama/cache.hpp"
#include "ropewalk/llama/kernels.hpp"
#include "ropewalk/llama/rope_schedule.hpp"
#include "ropewalk/llama/weights.hpp"

namespace ropewalk::llama {

/// Layers of causal attention, each with an MLP where the configuration has one. Hidden states are f32 whatever the
/// weights are.
class stack {
public:
    /// `kernels` must outlive the stack: dispatch::llama_kernels() or cpu::native_kernels(). threads 0: OpenMP's
    /// number. Throws ropewalk::error where weights and configuration differ, or the encoding is not for its heads.
    stack(const model_config& config, model_weights weights, rope_schedule rope, const cpu::kernel_table& kernels,
          int threads = 0)
        : config_(config), weights_(std::move(weights)), rope_(std::move(rope)), kernels_(&kernels), threads_(threads) {
        config_.validate();
        check_weights(config_, weights_);
        detail::check_encoding(config_, *rope_.at(1));
    }

    [[nodiscard]] const model_config& config() const { return config_; }
    [[nodiscard]] const model_weights& weights() const { return weights_; }
    [[nodiscard]] const cpu::kernel_table& kernels() const { return *kernels_; }
    [[nodiscard]] int threads() const { return threads_; }
    [[nodiscard]] const stack_seconds& seconds() const { return seconds_; }
    void reset_seconds() { seconds_ = {}; }

    /// Changes the scheme for what follows. Keys that caches already hold are turned over to it when their sequence is
    /// next used.
    void set_rope(rope_schedule rope) {
        detail::check_encoding(config_, *rope.at(1));
        rope_ = std::move(rope);
    }

    /// Runs the tokens of a batch through all layers, in place: hidden [Σ tokens, hidden_size], the segments one behind
    /// the other. Token i of a segment is number cache.tokens(sequence) + i of its sequence and sees what comes before
    /// it there. Throws ropewalk::error, with the tokens of the cache and the hidden states as they were, where shapes
    /// do not fit, a sequence comes twice, the cache is full, or the encoding cannot reach so far.
    void forward(std::span<const segment> batch, std::span<float> hidden, kv_cache& cache) {
        const std::int64_t tokens = detail::check_segments(config_, batch, cache);
        detail::check_hidden(config_, tokens, hidden.size());
        if (tokens == 0) return;
        try {
            prepare(batch, tokens, cache);
            for (std::size_t i = 0; i < batch.size(); ++i) follow_rope(batch[i].sequence, i, cache);
            for (std::int64_t layer = 0; layer < config_.layers; ++layer)
                run_layer(layer, tokens, hidden.data(), cache.layout(layer));
        } catch (...) {
            for (const segment& one : batch) cache.truncate(one.sequence, cache.tokens(one.sequence));
            throw;
        }
        for (std::size_t i = 0; i < batch.size(); ++i) {
            cache.advance_to(batch[i].sequence, parts_[i].past + parts_[i].tokens);
            cache.set_encoding(batch[i].sequence, encodings_[i]);
        }
    }

private:
    /// Adds the time of its life to one of the counters.
    class timer {
    public:
        explicit timer(double& total) : total_(total), start_(std::chrono::steady_clock::now()) {}
        timer(const timer&) = delete;
        timer& operator=(const timer&) = delete;
        ~timer() { total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

    private:
        double& total_;
        std::chrono::steady_clock::time_point start_;
    };

    /// What the layers share: pages, encodings, indices, room.
    void prepare(std::span<const segment> batch, std::int64_t tokens, kv_cache& cache) {
        parts_.clear(), encodings_.clear(), indices_.clear();
        for (const segment& one : batch) {
            const std::int64_t past = cache.tokens(one.sequence), after = past + one.tokens;
            cache.reserve(one.sequence, after);
            parts_.push_back({static_cast<std::int64_t>(indices_.size()), one.tokens, past, cache.pages(one.sequence)});
            encodings_.push_back(rope_.at(one.whole == 0 ? after : one.whole));
            detail::check_keys(*encodings_.back(), after, cache.options().type);
            for (std::int64_t index = past; index < after; ++index) indices_.push_back(index);
        }
        const auto room = [tokens](std::vector<float>& rows, std::int64_t width) {
            const auto size = static_cast<std::size_t>(tokens * width);
            if (rows.size() < size) rows.resize(size);
        };
        room(normed_, config_.hidden_size);
        room(q_, config_.q_width()), room(attended_, config_.q_width());
        room(k_, config_.kv_width()), room(v_, config_.kv_width());
        room(gate_, config_.intermediate_size), room(up_, config_.intermediate_size);
    }

    [[nodiscard]] tensor heads_of(std::vector<float>& rows, const cpu::sequence_part& part, std::int64_t heads) const {
        float* const first = rows.data() + part.first * heads * config_.head_dim;
        return view<float>(first, part.tokens, heads, config_.head_dim);
    }

    /// Turns the cached keys of part i over to the encoding that its sequence has from now on.
    void follow_rope(int sequence, std::size_t i, kv_cache& cache) {
        constexpr std::int64_t chunk = 1024;
        const auto before = cache.encoding(sequence);
        const std::int64_t past = parts_[i].past;
        if (past == 0 || !before || same_keys(*before, *encodings_[i])) return;
        const timer time(seconds_.rope);
        std::vector<float> rows(static_cast<std::size_t>(std::min(past, chunk) * config_.kv_width()));
        const auto turn = [&](std::int64_t tokens, const positions& where) {
            kernels_->rerotate(config_.layout, heads_of(rows, {0, tokens, 0, nullptr}, config_.kv_heads), *before,
                               *encodings_[i], where, threads_);
        };
        // What cannot be turned is refused before the first key has changed.
        const std::int64_t ends[] = {0, past - 1};
        turn(past == 1 ? 1 : 2, ids(std::span(ends).first(past == 1 ? 1 : 2)));
        for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
            for (std::int64_t start = 0; start < past; start += chunk) {
                const std::int64_t tokens = std::min(chunk, past - start);
                const cpu::cache_rows keys{rows.data(), {0, tokens, start, parts_[i].pages}, cache.layout(layer), true};
                kernels_->load_rows(keys, threads_);
                turn(tokens, offset{start});
                kernels_->store_rows(keys, threads_);
            }
        }
        cache.set_encoding(sequence, encodings_[i]);
    }

    /// Rotates queries and keys of the call: at once where all of its sequences have one encoding.
    void rotate() {
        const timer time(seconds_.rope);
        std::size_t begin = 0;
        while (begin < parts_.size()) {
            std::size_t end = begin + 1;
            cpu::sequence_part run = parts_[begin];
            while (end < parts_.size() && encodings_[end] == encodings_[begin]) run.tokens += parts_[end++].tokens;
            const auto where = std::span<const std::int64_t>(indices_).subspan(static_cast<std::size_t>(run.first),
                                                                               static_cast<std::size_t>(run.tokens));
            kernels_->rotate(config_.layout, heads_of(q_, run, config_.heads), heads_of(k_, run, config_.kv_heads),
                             *encodings_[begin], ids(where), threads_);
            begin = end;
        }
    }

    void attend(const page_layout& layout, double softmax_factor) {
        {
            const timer time(seconds_.cache);
            for (const cpu::sequence_part& part : parts_) {
                kernels_->store_rows({k_.data(), part, layout, true}, threads_);
                kernels_->store_rows({v_.data(), part, layout, false}, threads_);
            }
        }
        const timer time(seconds_.attention);
        const double scale = softmax_factor / std::sqrt(static_cast<double>(config_.head_dim));
        kernels_->attend({q_.data(), attended_.data(), config_.heads, static_cast<float>(scale), parts_, layout},
                         threads_);
    }

    /// x += attention(norm(x)), x += mlp(norm(x)).
    void run_layer(std::int64_t index, std::int64_t tokens, float* x, const page_layout& layout) {
        const layer_weights& layer = weights_.layers[static_cast<std::size_t>(index)];
        normalise(x, tokens, layer.attention_norm);
        {
            const timer time(seconds_.projections);
            multiply(normed_, tokens, layer.q, q_.data());
            multiply(normed_, tokens, layer.k, k_.data());
            multiply(normed_, tokens, layer.v, v_.data());
        }
        rotate();
        attend(layout, encodings_.front()->softmax_factor);
        {
            const timer time(seconds_.projections);
            multiply(attended_, tokens, layer.o, x, true);
        }
        if (config_.intermediate_size == 0) return;
        normalise(x, tokens, layer.mlp_norm);
        const timer time(seconds_.mlp);
        multiply(normed_, tokens, layer.gate, gate_.data());
        multiply(normed_, tokens, layer.up, up_.data());
        kernels_->silu_multiply(gate_.data(), up_.data(), tokens * config_.intermediate_size, threads_);
        multiply(gate_, tokens, layer.down, x, true);
    }

    void normalise(const float* x, std::int64_t tokens, const std::vector<float>& weight) {
        const timer time(seconds_.norm);
        kernels_->rms_norm(x, tokens, config_.hidden_size, weight.data(), static_cast<float>(config_.rms_norm_eps),
                           normed_.data(), threads_);
    }

    void multiply(const std::vector<float>& x, std::int64_t tokens, const matrix& w, float* y, bool add = false) {
        kernels_->linear(x.data(), tokens, w, y, add, threads_);
    }

    model_config config_;
    model_weights weights_;
    rope_schedule rope_;
    const cpu::kernel_table* kernels_;
    int threads_;
    stack_seconds seconds_;

    // Of the call in progress.
    std::vector<cpu::sequence_part> parts_;
    std::vector<std::shared_ptr<const Encoding>> encodings_;
    std::vector<std::int64_t> indices_;
    std::vector<float> normed_, q_, k_, v_, attended_, gate_, up_;
};

}  // namespace ropewalk::llama
