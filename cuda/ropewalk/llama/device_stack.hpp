// Layers of a Llama on a device, with the calls of the CPU's stack.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "ropewalk/llama/device_cache.hpp"
#include "ropewalk/llama/graph_recorder.hpp"
#include "ropewalk/llama/launch_args.hpp"
#include "ropewalk/llama/stack_base.hpp"

namespace ropewalk::llama {

struct device_options {
    /// A call with at least this many tokens for one sequence uses attention by blocks.
    std::int64_t block_tokens = 64;
    gpu::block_sizes blocks{512, 2048};
    std::int64_t rerotate_tokens = 1024;  ///< keys re-rotated at once after a change of the encoding
    bool records = true;                  ///< record and replay steps of one token per sequence
    bool measures = false;                ///< measure the seconds of each part, at some cost
};

/// Layers of causal attention, each with an MLP if the configuration has one. Weights, caches and buffers are in device
/// memory. Activations have the type of the weights; hidden states are f32.
template <DeviceBackend B>
class device_stack : public stack_base<device_cache<B>> {
    using base = stack_base<device_cache<B>>;
    using base::config_, base::seconds_, base::rows_, base::encodings_;

public:
    /// Copies the weights. The backend must outlive the stack. Throws ropewalk::error if weights and configuration
    /// differ, if the matrices have several types, or if the encoding does not fit the heads. seconds() are measured
    /// with device_options::measures.
    device_stack(B& backend, const model_config& config, const model_weights& weights, rope_schedule rope,
                 const device_options& options = {})
        : base(config, std::move(rope)),
          backend_(&backend),
          options_(options),
          weights_(upload_weights(backend, config, weights)),
          args_(backend) {
        RW_EXPECTS(options.rerotate_tokens > 0, "rerotate_tokens must be positive, got {}", options.rerotate_tokens);
    }

    [[nodiscard]] B& backend() const { return *backend_; }

    /// Runs the tokens of a batch through all layers, in place: hidden [Σ tokens, hidden_size] in host memory, segment
    /// by segment. Token i of a segment has index cache.tokens(sequence) + i in its sequence and attends to the tokens
    /// before it. Throws ropewalk::error, with the tokens of the cache and the hidden states unchanged, if shapes do
    /// not fit, a sequence comes twice, the cache is full, or a position exceeds the reach of the encoding.
    void forward(std::span<const segment> batch, std::span<float> hidden, device_cache<B>& cache) {
        const std::int64_t tokens = detail::check_segments(config_, batch, cache);
        detail::check_hidden(config_, tokens, hidden.size());
        run({batch, tokens, hidden, {}, {}}, cache);
    }

    /// The same from token ids [Σ tokens]. Logits [segments, vocabulary], if not empty, receive the predictions for the
    /// last token of each segment; those of a segment without tokens are meaningless. Logits [Σ tokens, vocabulary] of
    /// one segment receive those of all its tokens. Throws, with position and layer, for logits that are not finite,
    /// with the tokens of the cache unchanged; the layer is found by further passes over the tokens of this call.
    void predict(std::span<const segment> batch, std::span<const std::int32_t> token_ids, std::span<float> logits,
                 device_cache<B>& cache) {
        const std::int64_t tokens = detail::check_segments(config_, batch, cache);
        const bool all = batch.size() == 1 && std::ssize(logits) == tokens * config_.vocabulary;
        const std::size_t rows = logits.empty() ? 0 : all ? static_cast<std::size_t>(tokens) : batch.size();
        RW_EXPECTS(config_.vocabulary > 0, "a model without a vocabulary takes hidden states: use forward()");
        RW_EXPECTS(
            std::ssize(token_ids) == tokens && logits.size() == rows * static_cast<std::size_t>(config_.vocabulary),
            "{} token ids and {} logits do not fit {} tokens of {} sequences", token_ids.size(), logits.size(), tokens,
            batch.size());
        detail::check_ids(config_, token_ids);
        run({batch, tokens, {}, token_ids, logits}, cache);
    }

private:
    /// Host memory of a call: hidden states or token ids, and logits.
    struct call_args {
        std::span<const segment> batch;
        std::int64_t tokens = 0;
        std::span<float> hidden;
        std::span<const std::int32_t> ids;
        std::span<float> logits;
    };

    /// The backend as forward() takes it: reports the parts of a step only if they are measured.
    struct step_backend {
        B& backend;
        bool measures;

        void run(const auto& params) const { backend.run(params); }
        void multiply(const gpu::product& p) const { backend.multiply(p); }
        void append(const auto&... args) const { backend.append(args...); }
        void enter(gpu::step_part part) const {
            if (measures) backend.enter(part);
        }
    };

    void run(const call_args& call, device_cache<B>& cache) {
        if (call.tokens == 0) return;
        for (const segment& s : call.batch)
            RW_EXPECTS(cache.tokens(s.sequence) + s.tokens < std::int64_t{1} << 31,
                       "sequence {} would have {} tokens, which exceeds 32 bits", s.sequence,
                       cache.tokens(s.sequence) + s.tokens);
        this->call(call.batch, cache, [&] {
            check_positions();
            upload(call, cache);
            this->rerotate_keys(call.batch, cache, [&](std::size_t i, const auto& source, const auto& target) {
                rerotate(i, source, target, cache);
            });
            step(call, cache, config_.layers);
            download(call);
            check_finite(call, cache);
        });
        args_.drop_unused();
    }

    void check_positions() {
        for (std::size_t i = 0; i < rows_.size(); ++i) {
            const auto [first, tokens, past] = rows_[i];
            if (tokens > 0)
                ropewalk::detail::check_reach(*encodings_[i], args_.host_positions(encodings_[i], past, tokens), 1,
                                              tokens, type());
        }
    }

    void upload(const call_args& call, const device_cache<B>& cache) {
        args_.upload(call.batch, rows_, call.ids, cache);
        hidden_.reserve(bytes_of(call.tokens * config_.hidden_size));
        if (call.ids.empty()) backend_->upload(hidden_.data(), call.hidden.data(), bytes_of(std::ssize(call.hidden)));
        logits_.reserve(bytes_of(std::ssize(call.logits)));
    }
    void download(const call_args& call) {
        if (call.ids.empty()) backend_->download(call.hidden.data(), hidden_.data(), bytes_of(std::ssize(call.hidden)));
        if (!call.logits.empty())
            backend_->download(call.logits.data(), logits_.data(), bytes_of(std::ssize(call.logits)));
        if (options_.measures) backend_->add_seconds(seconds_);
    }

    /// Throws if keys cannot be re-rotated from one encoding to another.
    void check_rerotation(const std::shared_ptr<const Encoding>& source, const std::shared_ptr<const Encoding>& target,
                          std::int64_t tokens, const view<float>& keys) {
        const rotate_args args{
            .layout = config_.layout, .k_in = keys, .k_out = keys, .target = target.get(), .source = source.get()};
        ropewalk::detail::check_args(args);
        make_params(args, args_.host_positions(target, 0, tokens), args_.host_positions(source, 0, tokens));
    }

    /// Re-rotates the cached keys of sequence i of the call, a chunk of tokens at a time.
    void rerotate(std::size_t i, const std::shared_ptr<const Encoding>& source,
                  const std::shared_ptr<const Encoding>& target, const device_cache<B>& cache) {
        const std::int64_t past = rows_[i].past, chunk = std::min(past, options_.rerotate_tokens);
        auto* const rows = static_cast<float*>(keys_.reserve(bytes_of(chunk * config_.kv_width())));
        const auto keys_of = [&](std::int64_t tokens) {
            return bhsd(rows, 1, config_.kv_heads, tokens, config_.head_dim);
        };
        // A re-rotation that cannot be done is refused before the first key changes.
        check_rerotation(source, target, past, keys_of(past));
        Encoding identity;
        identity.geometry = target->geometry, identity.steps.resize(target->steps.size());
        if (options_.measures) backend_->enter(&stack_seconds::rope);
        const auto pages = args_.pages_of(i);
        const gpu::sequences alone{.count = 1, .pages = gpu::pages_of(pages, 1)};
        for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
            const ropewalk::gpu::cache_tensor cached = cache.layer(layer).k;
            const auto reader = gpu::detail::reader_of(alone, 1, cached);
            for (std::int64_t start = 0; start < past; start += chunk) {
                const std::int64_t tokens = std::min(chunk, past - start);
                view<float> keys = keys_of(tokens);
                backend_->run(
                    gpu::make_gather_cache(cached, reader, 0, start, tokens, rows, element_type::f32, tokens));
                backend_->rerotate(config_.layout, keys, *source, args_.device_positions(source, start, tokens),
                                   *target, args_.device_positions(target, start, tokens));
                backend_->append(config_.layout, ropewalk::gpu::qkv<float>{{}, keys, {}},
                                 ropewalk::gpu::kv_cache{cached, {}},
                                 ropewalk::gpu::by_page_table(pages, 1, offset{start}), identity, offset{0});
            }
        }
    }

    /// Throws, with position and layer, for logits that are not finite.
    void check_finite(const call_args& call, const device_cache<B>& cache) {
        if (detail::first_not_finite(call.logits) < 0) return;
        std::vector<float> hidden(static_cast<std::size_t>(call.tokens * config_.hidden_size));
        const auto wrong_after = [&](std::int64_t layers) {
            if (layers == 0) {
                const auto rows = gpu::rows_of(static_cast<float*>(hidden_.data()), call.tokens, config_.hidden_size);
                backend_->run(gpu::make_gather_rows(gpu::detail::view_of(weights_.embedding), rows, args_.ids()));
            } else {
                step(call, cache, layers);
            }
            backend_->download(hidden.data(), hidden_.data(), bytes_of(std::ssize(hidden)));
            return detail::first_not_finite(hidden);
        };
        // A value that is not finite after a layer stays so after the next one.
        std::int64_t finite = -1, wrong_layers = config_.layers, wrong = wrong_after(wrong_layers);
        while (wrong >= 0 && wrong_layers - finite > 1) {
            const std::int64_t middle = finite + (wrong_layers - finite) / 2, found = wrong_after(middle);
            if (found >= 0)
                wrong_layers = middle, wrong = found;
            else
                finite = middle;
        }
        if (wrong >= 0)
            detail::fail_not_finite(this->position_of(wrong / config_.hidden_size),
                                    wrong_layers == 0 ? "before" : "after",
                                    std::max<std::int64_t>(wrong_layers - 1, 0));
        const bool all = std::ssize(call.logits) == call.tokens * config_.vocabulary;
        for (std::size_t i = 0; i < rows_.size(); ++i) {
            const auto [first, tokens, past] = rows_[i];
            if (tokens == 0) continue;
            const auto width = static_cast<std::size_t>(config_.vocabulary);
            if (all)
                detail::check_logits(call.logits.subspan(static_cast<std::size_t>(first) * width,
                                                         static_cast<std::size_t>(tokens) * width),
                                     config_.vocabulary, past);
            else
                detail::check_logits(call.logits.subspan(i * width, width), config_.vocabulary, past + tokens - 1);
        }
    }

    /// Runs the first `layers` layers, and after all of them the head if logits are wanted.
    void step(const call_args& call, const device_cache<B>& cache, std::int64_t layers) {
        std::vector<ropewalk::gpu::kv_cache> caches;
        for (std::int64_t layer = 0; layer < layers; ++layer) caches.push_back(cache.layer(layer));
        std::vector<gpu::encoded_rows> encodings;
        this->for_each_encoding([&](const auto& encoding, std::int64_t first, std::int64_t tokens) {
            encodings.push_back({encoding.get(), first, tokens, args_.drawn_positions(encoding)});
        });
        const auto floats = [](const device_memory<B>& memory, std::int64_t rows, std::int64_t width) {
            return gpu::rows_of(static_cast<float*>(memory.data()), rows, width);
        };
        gpu::forward_args args{.batch = args_.batch(),
                               .tokens = call.tokens,
                               .ids = args_.ids(),
                               .hidden = floats(hidden_, call.tokens, config_.hidden_size),
                               .caches = caches,
                               .encodings = encodings,
                               .blocks = options_.blocks};
        const bool whole = layers == config_.layers;
        const std::int64_t rows =
            whole ? std::ssize(call.logits) / std::max<std::int64_t>(config_.vocabulary, 1) : std::int64_t{0};
        if (rows > 0) args.logits = floats(logits_, rows, config_.vocabulary);
        if (!args_.single() && args.batch.most_tokens >= options_.block_tokens) {
            args.known = rows_;
        } else {
            args.splits = gpu::splits_for(args.batch, config_.heads, config_.kv_heads,
                                          args.batch.pages.most_pages * cache.options().page_tokens, backend_->shape());
        }
        const std::int64_t bytes = gpu::forward_buffers(nullptr, type(), config_, args).bytes;
        const gpu::workspace space{space_.reserve(bytes), bytes};
        const step_backend backend{*backend_, options_.measures};
        model_weights part;
        if (!whole) part = weights_, part.layers.resize(static_cast<std::size_t>(layers));
        const auto run = [&] { gpu::forward(backend, config_, whole ? weights_ : part, args, space); };
        if (!whole || !args_.single() || !options_.records) return run();
        recorder_.run(*backend_, key_of(args), run);
    }

    [[nodiscard]] step_key key_of(const gpu::forward_args& args) const {
        const ropewalk::gpu::kv_cache& cache = args.caches.front();
        step_key key{{args.tokens, args.logits.rows, args.batch.pages.most_pages, args.splits, cache.k.pages,
                      cache.k.page_size, static_cast<std::int64_t>(cache.k.type)},
                     encodings_};
        const std::initializer_list<const void*> memories{
            args.ids, args.batch.past, hidden_.data(), logits_.data(), space_.data(), cache.k.data, cache.v.data};
        for (const void* const memory : memories) key.add(memory);
        for (const auto& part : args.encodings) key.add(part.drawn.data());
        return key;
    }

    [[nodiscard]] element_type type() const { return weights_.layers.front().q.type; }
    static std::int64_t bytes_of(std::int64_t floats) { return floats * static_cast<std::int64_t>(sizeof(float)); }

    B* backend_;
    device_options options_;
    model_weights weights_;
    launch_args<B> args_;
    graph_recorder<B> recorder_;
    device_memory<B> hidden_{*backend_}, logits_{*backend_}, space_{*backend_}, keys_{*backend_};
};

}  // namespace ropewalk::llama
