// The layers of a Llama over a key-value cache: prefill, chunks, single tokens, batches of different lengths.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "ropewalk/llama/cpu/kernels.hpp"
#include "ropewalk/llama/kv_cache.hpp"
#include "ropewalk/llama/stack_base.hpp"
#include "ropewalk/llama/weights.hpp"

namespace ropewalk::llama {

/// Layers of causal attention, each with an MLP if the configuration has one. Hidden states are f32 for any type of
/// weights.
class stack : public stack_base<kv_cache> {
public:
    /// `kernels` must outlive the stack: dispatch::llama_kernels() or cpu::native_kernels(). threads 0: OpenMP's
    /// number. Throws ropewalk::error if weights and configuration differ, the encoding does not fit the heads, or
    /// threads is negative or above 4096.
    stack(const model_config& config, model_weights weights, rope_schedule rope, const cpu::kernel_table& kernels,
          int threads = 0)
        : stack_base(config, std::move(rope)), weights_(std::move(weights)), kernels_(&kernels), threads_(threads) {
        ropewalk::cpu::detail::check_threads(threads);
        check_weights(config_, weights_);
    }

    [[nodiscard]] const model_weights& weights() const { return weights_; }
    [[nodiscard]] const cpu::kernel_table& kernels() const { return *kernels_; }
    [[nodiscard]] int threads() const { return threads_; }

    /// Runs the tokens of a batch through all layers in place: hidden [Σ tokens, hidden_size], segment after segment.
    /// Token i of a segment is token cache.tokens(sequence) + i of its sequence and attends to it and all before it.
    /// Throws ropewalk::error if shapes differ, a sequence comes twice, the cache is full, or the encoding does not
    /// reach that far; the tokens of the cache and the hidden states then stay as they were. Throws, with position and
    /// layer, for a hidden state that is not finite; the tokens of the cache then stay as they were.
    void forward(std::span<const segment> batch, std::span<float> hidden, kv_cache& cache) {
        const std::int64_t tokens = detail::check_segments(config_, batch, cache);
        detail::check_hidden(config_, tokens, hidden.size());
        if (tokens == 0) return;
        call(batch, cache, [&] {
            prepare(batch, tokens, cache);
            rerotate_keys(batch, cache, [&](std::size_t i, const auto& source, const auto& target) {
                rerotate(sequences_[i], *source, *target, cache);
            });
            for (std::int64_t layer = 0; layer < config_.layers; ++layer)
                run_layer(layer, cache.layout(layer), tokens, hidden.data());
            const std::int64_t wrong = detail::first_not_finite(hidden);
            if (wrong >= 0)
                detail::fail_not_finite(position_of(wrong / config_.hidden_size), "after", config_.layers - 1);
        });
    }

private:
    /// Adds its lifetime to a counter.
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

    /// Pages, positions and buffers that the layers share.
    void prepare(std::span<const segment> batch, std::int64_t tokens, const kv_cache& cache) {
        sequences_.clear(), positions_.clear();
        for (std::size_t i = 0; i < batch.size(); ++i) {
            sequences_.push_back({rows_[i], cache.pages(batch[i].sequence)});
            for (std::int64_t token = 0; token < rows_[i].tokens; ++token) positions_.push_back(rows_[i].past + token);
        }
        const auto grow = [tokens](std::vector<float>& rows, std::int64_t width) {
            rows.resize(std::max(rows.size(), static_cast<std::size_t>(tokens * width)));
        };
        grow(normed_, config_.hidden_size);
        grow(q_, config_.q_width()), grow(attended_, config_.q_width());
        grow(k_, config_.kv_width()), grow(v_, config_.kv_width());
        grow(gate_, config_.intermediate_size), grow(up_, config_.intermediate_size);
        prepare_rotations();
    }

    [[nodiscard]] tensor heads_of(std::vector<float>& rows, std::int64_t first, std::int64_t tokens,
                                  std::int64_t heads) const {
        return view<float>(rows.data() + first * heads * config_.head_dim, tokens, heads, config_.head_dim);
    }

    /// Re-rotates the cached keys of a sequence, a chunk of tokens at a time.
    void rerotate(const cpu::paged_rows& sequence, const Encoding& source, const Encoding& target,
                  const kv_cache& cache) {
        constexpr std::int64_t chunk = 1024;
        const timer time(seconds_.rope);
        const std::int64_t past = sequence.past;
        std::vector<float> rows(static_cast<std::size_t>(std::min(past, chunk) * config_.kv_width()));
        const auto apply = [&](std::int64_t tokens, const positions& positions) {
            kernels_->rerotate(config_.layout, heads_of(rows, 0, tokens, config_.kv_heads), source, target, positions,
                               threads_);
        };
        // Applied to the first and last position of zeros, this refuses a re-rotation before any key changes.
        const std::int64_t ends[] = {0, past - 1};
        apply(past == 1 ? 1 : 2, ids(std::span(ends).first(past == 1 ? 1 : 2)));
        for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
            for (std::int64_t start = 0; start < past; start += chunk) {
                const std::int64_t tokens = std::min(chunk, past - start);
                const cpu::cache_params keys{rows.data(), {{0, tokens, start}, sequence.pages}, cache.layout(layer)};
                kernels_->load_rows(keys, threads_);
                apply(tokens, offset{start});
                kernels_->store_rows(keys, threads_);
            }
        }
    }

    /// Tokens of the call that share an encoding. A few of them, as in decoding, are rotated by a prepared rotation,
    /// which makes their cosines and sines once for all layers.
    struct rotation {
        std::shared_ptr<const Encoding> encoding;
        std::int64_t first = 0, tokens = 0;
        std::optional<ropewalk::cpu::prepared_rotation> prepared{};
    };

    /// Keeps the rotations of the last call where this one has the same encodings and tokens.
    void prepare_rotations() {
        std::size_t count = 0;
        for_each_encoding([&](const auto& encoding, std::int64_t first, std::int64_t tokens) {
            if (count == rotations_.size()) rotations_.emplace_back();
            rotation& r = rotations_[count++];
            if (r.encoding == encoding && r.first == first && r.tokens == tokens) return;
            r = {encoding, first, tokens};
            const std::int64_t bytes = tokens * (config_.q_width() + config_.kv_width()) * 4;
            if (bytes < 2 * ropewalk::cpu::machine_profile().bytes_per_thread && !encoding->draw_positions)
                r.prepared = kernels_->prepare(config_.layout, heads_of(q_, first, tokens, config_.heads),
                                               heads_of(k_, first, tokens, config_.kv_heads), *encoding);
        });
        rotations_.resize(count);
    }

    /// Rotates queries and keys of the call.
    void rotate() {
        const timer time(seconds_.rope);
        for (rotation& r : rotations_) {
            const auto positions = std::span<const std::int64_t>(positions_)
                                       .subspan(static_cast<std::size_t>(r.first), static_cast<std::size_t>(r.tokens));
            const tensor q = heads_of(q_, r.first, r.tokens, config_.heads);
            const tensor k = heads_of(k_, r.first, r.tokens, config_.kv_heads);
            // A prepared rotation returns false for a position that the rotation refuses with a message.
            if (r.prepared && r.prepared->run({q.data, k.data}, positions)) continue;
            kernels_->rotate(config_.layout, q, k, *r.encoding, ids(positions), threads_);
        }
    }

    void store(const page_layout& layout) {
        const timer time(seconds_.cache);
        for (const cpu::paged_rows& sequence : sequences_) {
            kernels_->store_rows({k_.data(), sequence, layout, true}, threads_);
            kernels_->store_rows({v_.data(), sequence, layout, false}, threads_);
        }
    }

    void attend(const page_layout& layout) {
        const timer time(seconds_.attention);
        const double scale = encodings_.front()->softmax_factor / std::sqrt(static_cast<double>(config_.head_dim));
        kernels_->attend({.q = q_.data(),
                          .out = attended_.data(),
                          .heads = config_.heads,
                          .scale = static_cast<float>(scale),
                          .sequences = sequences_,
                          .layout = layout},
                         threads_);
    }

    /// x += attention(norm(x)), x += mlp(norm(x)).
    void run_layer(std::int64_t layer, const page_layout& layout, std::int64_t tokens, float* x) {
        const layer_weights& w = weights_.layers[static_cast<std::size_t>(layer)];
        normalise(x, tokens, w.attention_norm, layer == 0 ? "before" : "after", layer == 0 ? 0 : layer - 1);
        {
            const timer time(seconds_.projections);
            multiply(normed_, tokens, {{w.q, q_.data()}, {w.k, k_.data()}, {w.v, v_.data()}});
        }
        rotate();
        store(layout);
        attend(layout);
        {
            const timer time(seconds_.projections);
            multiply(attended_, tokens, {{w.o, x}}, true);
        }
        if (config_.intermediate_size == 0) return;
        normalise(x, tokens, w.mlp_norm, "after the attention of", layer);
        const timer time(seconds_.mlp);
        multiply(normed_, tokens, {{w.gate, gate_.data()}, {w.up, up_.data()}});
        kernels_->silu_multiply(gate_.data(), up_.data(), tokens * config_.intermediate_size, threads_);
        multiply(gate_, tokens, {{w.down, x}}, true);
    }

    /// Throws that hidden states are not finite at a place such as "after" a layer.
    void normalise(const float* x, std::int64_t tokens, const matrix& weight, const char* place, std::int64_t layer) {
        const timer time(seconds_.norm);
        const std::int64_t wrong =
            kernels_->rms_norm(x, tokens, config_.hidden_size, static_cast<const float*>(weight.data),
                               static_cast<float>(config_.rms_norm_eps), normed_.data(), threads_);
        if (wrong >= 0) detail::fail_not_finite(position_of(wrong), place, layer);
    }

    void multiply(const std::vector<float>& x, std::int64_t tokens, std::initializer_list<cpu::product> products,
                  bool add = false) {
        kernels_->linear(x.data(), tokens, products, add, threads_);
    }

    model_weights weights_;
    const cpu::kernel_table* kernels_;
    int threads_;

    // Of the current call.
    std::vector<cpu::paged_rows> sequences_;
    std::vector<std::int64_t> positions_;
    std::vector<rotation> rotations_;
    std::vector<float> normed_, q_, k_, v_, attended_, gate_, up_;
};

}  // namespace ropewalk::llama
