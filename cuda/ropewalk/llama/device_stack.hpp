// The layers of a Llama on a device, with the calls of the CPU's stack: prefill, chunks, single tokens, batches of
// different lengths, schemes that change.
#pragma once

#include <bit>
#include <cmath>
#include <span>
#include <vector>

#include "ropewalk/llama/batch.hpp"
#include "ropewalk/llama/device_cache.hpp"
#include "ropewalk/llama/device_weights.hpp"
#include "ropewalk/llama/graph_recorder.hpp"
#include "ropewalk/llama/launch_args.hpp"
#include "ropewalk/llama/rope_schedule.hpp"

namespace ropewalk::llama {

struct device_options {
    /// A call that brings a sequence so many tokens attends by blocks of matrix products, any other by warps of its
    /// own.
    std::int64_t block_tokens = 64;
    gpu::block_sizes blocks{512, 2048};
    std::int64_t turn_tokens = 1024;  ///< keys that are turned over to another encoding at once
    bool records = true;              ///< record steps of one token a sequence, and replay them
    bool measures = false;            ///< the seconds of each part, which costs some
};

/// Layers of causal attention, each with an MLP where the configuration has one, over weights, caches and room in the
/// memory of a machine. Activations have the type of the weights, hidden states are f32.
template <Machine M>
class device_stack {
public:
    /// Copies the weights. The machine must outlive the stack. Throws ropewalk::error where weights and configuration
    /// differ, the weights are not of one type, or the encoding is not for its heads.
    device_stack(M& machine, const model_config& config, const model_weights& weights, rope_schedule rope,
                 const device_options& chosen = {})
        : machine_(&machine),
          config_(checked(config)),
          chosen_(chosen),
          rope_(std::move(rope)),
          weights_(machine, config, weights),
          drawn_(machine) {
        RW_EXPECTS(chosen.turn_tokens > 0, "keys are turned at least one at once, got {}", chosen.turn_tokens);
        detail::check_encoding(config_, *rope_.at(1));
    }

    [[nodiscard]] const model_config& config() const { return config_; }
    [[nodiscard]] M& machine() const { return *machine_; }
    /// Of the device, where device_options::measures.
    [[nodiscard]] const stack_seconds& seconds() const { return seconds_; }
    void reset_seconds() { seconds_ = {}; }

    /// Changes the scheme for what follows. Keys that caches already hold are turned over to it when their sequence is
    /// next used.
    void set_rope(rope_schedule rope) {
        detail::check_encoding(config_, *rope.at(1));
        rope_ = std::move(rope);
    }

    /// Runs the tokens of a batch through all layers, in place: hidden [Σ tokens, hidden_size] in the host's memory,
    /// the segments one behind the other. Token i of a segment is number cache.tokens(sequence) + i of its sequence and
    /// sees what comes before it there. Throws ropewalk::error, with the tokens of the cache and the hidden states as
    /// they were, where shapes do not fit, a sequence comes twice, the cache is full, or the encoding cannot reach so
    /// far.
    void forward(std::span<const segment> batch, std::span<float> hidden, device_cache<M>& cache) {
        const std::int64_t tokens = detail::check_segments(config_, batch, cache);
        detail::check_hidden(config_, tokens, hidden.size());
        run({batch, tokens, hidden, {}, {}}, cache);
    }

    /// The same from token ids [Σ tokens]. Logits [segments, vocabulary] receive what comes behind the last token of
    /// each segment, where they are not empty; those of a segment without tokens mean nothing.
    void predict(std::span<const segment> batch, std::span<const std::int32_t> token_ids, std::span<float> logits,
                 device_cache<M>& cache) {
        const std::int64_t tokens = detail::check_segments(config_, batch, cache);
        const std::size_t rows = logits.empty() ? 0 : batch.size();
        RW_EXPECTS(config_.vocabulary > 0, "a model without a vocabulary takes hidden states: use forward");
        RW_EXPECTS(
            std::ssize(token_ids) == tokens && logits.size() == rows * static_cast<std::size_t>(config_.vocabulary),
            "{} token ids and {} logits for {} tokens of {} sequences", token_ids.size(), logits.size(), tokens,
            batch.size());
        detail::check_ids(config_, token_ids);
        run({batch, tokens, {}, token_ids, logits}, cache);
    }

private:
    /// Tokens in, by their states or their numbers, and out.
    struct inputs {
        std::span<const segment> batch;
        std::int64_t tokens = 0;
        std::span<float> hidden;
        std::span<const std::int32_t> ids;
        std::span<float> logits;

        [[nodiscard]] std::int64_t count() const { return std::ssize(batch); }
    };
    /// What device memory knows of the sequences of a call.
    struct control {
        const std::int32_t *ids = nullptr, *starts = nullptr, *past = nullptr, *table = nullptr;
        std::int64_t most_pages = 1;

        [[nodiscard]] gpu::page_table pages() const { return {table, most_pages, most_pages}; }
        [[nodiscard]] gpu::page_table pages_of(std::size_t sequence) const {
            return {table + static_cast<std::int64_t>(sequence) * most_pages, most_pages, most_pages};
        }
    };

    static const model_config& checked(const model_config& config) {
        config.validate();
        return config;
    }

    void run(const inputs& c, device_cache<M>& cache) {
        if (c.tokens == 0) return;
        try {
            prepare(c, cache);
            const control known = upload(c, cache);
            for (std::size_t i = 0; i < c.batch.size(); ++i) follow_rope(c.batch[i].sequence, i, known, cache);
            step(c, known, cache);
            download(c);
        } catch (...) {
            for (const segment& one : c.batch) cache.truncate(one.sequence, cache.tokens(one.sequence));
            throw;
        }
        for (std::size_t i = 0; i < c.batch.size(); ++i) {
            cache.advance_to(c.batch[i].sequence, parts_[i].past + parts_[i].tokens);
            cache.set_encoding(c.batch[i].sequence, encodings_[i]);
        }
        drawn_.tidy();
    }

    /// Pages and encodings, and all that can be refused.
    void prepare(const inputs& c, device_cache<M>& cache) {
        parts_.clear(), encodings_.clear();
        std::int64_t first = 0;
        for (const segment& one : c.batch) {
            const std::int64_t past = cache.tokens(one.sequence), after = past + one.tokens;
            RW_EXPECTS(after < std::int64_t{1} << 31, "sequence {} would have {} tokens, which 32 bits do not count",
                       one.sequence, after);
            cache.reserve(one.sequence, after);
            parts_.push_back({std::ssize(parts_), first, one.tokens, past});
            encodings_.push_back(rope_.at(one.whole == 0 ? after : one.whole));
            const Encoding& encoding = *encodings_.back();
            detail::check_keys(encoding, after, cache.options().type);
            if (one.tokens > 0)
                ropewalk::detail::check_reach(encoding, drawn_.on_host(encodings_.back(), past, one.tokens), 1,
                                              one.tokens, weights_.type());
            first += one.tokens;
        }
    }

    control upload(const inputs& c, const device_cache<M>& cache) {
        control known;
        for (const auto& part : parts_)
            known.most_pages = std::max(known.most_pages, cache.pages_for(part.past + part.tokens));
        // By powers of two, so that a recorded step lasts.
        known.most_pages = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(known.most_pages)));
        numbers_.assign(c.ids.begin(), c.ids.end());
        const std::size_t starts = numbers_.size();
        for (const auto& part : parts_) numbers_.push_back(static_cast<std::int32_t>(part.first));
        numbers_.push_back(static_cast<std::int32_t>(c.tokens));
        const std::size_t past = numbers_.size();
        for (const auto& part : parts_) numbers_.push_back(static_cast<std::int32_t>(part.past));
        const std::size_t table = numbers_.size();
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            const std::int64_t pages = cache.pages_for(parts_[i].past + parts_[i].tokens);
            const std::int32_t* const held = cache.pages(c.batch[i].sequence);
            numbers_.insert(numbers_.end(), held, held + pages);
            numbers_.resize(table + (i + 1) * static_cast<std::size_t>(known.most_pages), -1);
        }
        const std::int64_t bytes = std::ssize(numbers_) * static_cast<std::int64_t>(sizeof(std::int32_t));
        const auto* const there = static_cast<const std::int32_t*>(control_.room(bytes));
        machine_->upload(control_.data(), numbers_.data(), bytes);
        known.ids = c.ids.empty() ? nullptr : there;
        known.starts = there + starts, known.past = there + past, known.table = there + table;
        hidden_.room(bytes_of(c.tokens * config_.hidden_size));
        if (c.ids.empty()) machine_->upload(hidden_.data(), c.hidden.data(), bytes_of(std::ssize(c.hidden)));
        logits_.room(bytes_of(std::ssize(c.logits)));
        return known;
    }

    void download(const inputs& c) {
        if (c.ids.empty()) machine_->download(c.hidden.data(), hidden_.data(), bytes_of(std::ssize(c.hidden)));
        if (!c.logits.empty()) machine_->download(c.logits.data(), logits_.data(), bytes_of(std::ssize(c.logits)));
        if (!chosen_.measures) return;
        using gpu::llama_part;
        const part_seconds spent = machine_->seconds();
        const auto of = [&](llama_part part) { return spent[static_cast<std::size_t>(part)]; };
        seconds_.projections += of(llama_part::projections), seconds_.rope += of(llama_part::rope);
        seconds_.attention += of(llama_part::attention), seconds_.mlp += of(llama_part::mlp);
        seconds_.norm += of(llama_part::norm);
    }

    /// Throws where keys cannot be turned over to another encoding.
    void check_turn(const std::shared_ptr<const Encoding>& from, const std::shared_ptr<const Encoding>& to,
                    std::int64_t tokens, const view<float>& keys) {
        const rotate_args args{
            .layout = config_.layout, .k_in = keys, .k_out = keys, .target = to.get(), .source = from.get()};
        ropewalk::detail::check_args(args);
        make_params(args, drawn_.on_host(to, 0, tokens), drawn_.on_host(from, 0, tokens));
    }

    /// Turns the cached keys of part i over to the encoding that its sequence has from now on.
    void follow_rope(int sequence, std::size_t i, const control& known, device_cache<M>& cache) {
        const std::int64_t chunk = chosen_.turn_tokens;
        const auto before = cache.encoding(sequence);
        const auto& after = encodings_[i];
        const std::int64_t past = parts_[i].past, dim = config_.head_dim;
        if (past == 0 || !before || same_keys(*before, *after)) return;
        const std::int64_t stride = std::min(past, chunk);
        auto* const rows = static_cast<float*>(turned_.room(bytes_of(stride * config_.kv_width())));
        // What cannot be turned is refused before the first key has changed.
        check_turn(before, after, past, {rows, past, config_.kv_heads, dim});
        Encoding unturned;
        unturned.geometry = after->geometry, unturned.steps.resize(after->steps.size());
        if (chosen_.measures) machine_->enter(gpu::llama_part::rope);
        const auto pages = known.pages_of(i);
        const std::span<const std::int32_t> table(pages.table, static_cast<std::size_t>(pages.most_pages));
        for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
            const ropewalk::gpu::cache_tensor keys = cache.layer(layer).k;
            for (std::int64_t start = 0; start < past; start += chunk) {
                const std::int64_t tokens = std::min(chunk, past - start);
                const view<float> some(rows, 1, tokens, config_.kv_heads, dim, 0, dim, stride * dim);
                machine_->run(gpu::detail::make_gather(keys, gpu::detail::source_of(keys, pages, 1), 0, start, tokens,
                                                       {rows, element_type::f32, stride}));
                machine_->rerotate(config_.layout, some, *before, drawn_.on_device(before, start, tokens), *after,
                                   drawn_.on_device(after, start, tokens));
                machine_->append(config_.layout, view<float>{}, some, view<float>{}, ropewalk::gpu::kv_cache{keys, {}},
                                 ropewalk::gpu::by_page_table(table, 1, offset{start}), unturned, offset{0});
            }
        }
        cache.set_encoding(sequence, after);
    }

    /// Rows of sequences one behind the other which have one encoding.
    [[nodiscard]] std::vector<gpu::encoded_rows> encoded() {
        std::vector<gpu::encoded_rows> runs;
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            if (parts_[i].tokens == 0) continue;
            if (runs.empty() || runs.back().encoding != encodings_[i].get())
                runs.push_back({encodings_[i].get(), parts_[i].first, 0, drawn_.all(encodings_[i])});
            runs.back().tokens += parts_[i].tokens;
        }
        return runs;
    }

    /// The layers, and what is around them.
    void step(const inputs& c, const control& known, const device_cache<M>& cache) {
        const auto more = [](const auto& a, const auto& b) { return a.tokens < b.tokens; };
        const auto [fewest, most] = std::minmax_element(parts_.begin(), parts_.end(), more);
        const bool single = fewest->tokens == 1 && most->tokens == 1;
        gpu::llama_batch batch;
        batch.sequence = {single ? nullptr : known.starts, known.past, c.count(), most->tokens, 0};
        batch.pages = known.pages(), batch.tokens = c.tokens, batch.ids = known.ids, batch.sizes = chosen_.blocks;
        if (!single && most->tokens >= chosen_.block_tokens) {
            batch.known = parts_;
        } else {
            batch.splits = gpu::splits_for(batch.sequence, config_.heads, config_.kv_heads,
                                           known.most_pages * cache.options().page_tokens, machine_->shape());
        }
        const gpu::llama_shape shape{config_.hidden_size,       config_.heads,       config_.kv_heads, config_.head_dim,
                                     config_.intermediate_size, config_.rms_norm_eps};
        const std::int64_t bytes = gpu::llama_workspace_bytes(weights_.type(), shape, batch);
        const gpu::workspace space{space_.room(bytes), bytes};
        const auto rows_at = [](void* data, std::int64_t rows, std::int64_t width) {
            return gpu::rows_of(static_cast<float*>(data), rows, width);
        };
        const auto hidden = rows_at(hidden_.data(), c.tokens, config_.hidden_size);
        gpu::matrix_view logits;
        if (!c.logits.empty()) logits = rows_at(logits_.data(), c.count(), config_.vocabulary);
        std::vector<ropewalk::gpu::kv_cache> caches;
        for (std::int64_t layer = 0; layer < config_.layers; ++layer) caches.push_back(cache.layer(layer));
        const auto runs = encoded();
        const auto all = [&] {
            with_type([&]<class T>(T /*type*/) {
                const typed_machine<M, T> device{*machine_, config_.layout, chosen_.measures};
                gpu::llama_forward(device, shape, weights_.view(), batch, caches, runs, hidden, logits, space);
            });
        };
        if (!single || !chosen_.records) return all();
        recorder_.run(*machine_, key_of(c, known, batch, caches.front(), runs), all);
    }

    [[nodiscard]] step_key key_of(const inputs& c, const control& known, const gpu::llama_batch& batch,
                                  const ropewalk::gpu::kv_cache& cache,
                                  const std::vector<gpu::encoded_rows>& runs) const {
        step_key key{{c.tokens, c.ids.empty() ? 0 : 1, std::ssize(c.logits), known.most_pages, batch.splits,
                      cache.k.pages, cache.k.page_size, static_cast<std::int64_t>(cache.k.type)},
                     encodings_};
        for (const void* const memory :
             {control_.data(), hidden_.data(), logits_.data(), space_.data(), cache.k.data, cache.v.data})
            key.add(memory);
        for (const auto& one : runs) key.add(one.drawn.data());
        return key;
    }

    template <class F>
    void with_type(const F& f) const {
        if (weights_.type() == element_type::f32) return f(float{});
        if (weights_.type() == element_type::f16) return f(f16{});
        f(bf16{});
    }
    static std::int64_t bytes_of(std::int64_t floats) { return floats * static_cast<std::int64_t>(sizeof(float)); }

    M* machine_;
    model_config config_;
    device_options chosen_;
    rope_schedule rope_;
    device_weights<M> weights_;
    drawn_positions<M> drawn_;
    step_recorder<M> recorder_;
    stack_seconds seconds_;
    device_memory<M> control_{*machine_}, hidden_{*machine_}, logits_{*machine_}, space_{*machine_}, turned_{*machine_};

    // Of the call in progress.
    std::vector<gpu::known_sequence> parts_;
    std::vector<std::shared_ptr<const Encoding>> encodings_;
    std::vector<std::int32_t> numbers_;
};

}  // namespace ropewalk::llama
