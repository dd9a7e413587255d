// Bookkeeping that the stacks of the CPU and of a device share: encodings per sequence, and all-or-nothing calls.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "ropewalk/llama/batch.hpp"
#include "ropewalk/llama/rope_schedule.hpp"

namespace ropewalk::llama {

template <class Cache>
class stack_base {
public:
    [[nodiscard]] const model_config& config() const { return config_; }
    [[nodiscard]] const stack_seconds& seconds() const { return seconds_; }
    void reset_seconds() { seconds_ = {}; }

    /// Changes the encoding for the calls that follow. Cached keys are re-rotated when their sequence is used next.
    void set_rope(rope_schedule rope) {
        detail::check_encoding(config_, *rope.at(1));
        rope_ = std::move(rope);
    }

protected:
    stack_base(const model_config& config, rope_schedule rope) : config_(config), rope_(std::move(rope)) {
        config_.validate();
        detail::check_encoding(config_, *rope_.at(1));
    }
    ~stack_base() = default;
    stack_base(stack_base&&) noexcept = default;
    stack_base& operator=(stack_base&&) noexcept = default;

    /// Reserves pages for a checked batch, fills rows_ and encodings_, calls run() and records the tokens in the cache.
    /// An exception leaves the tokens of the cache as they were.
    template <class Run>
    void call(std::span<const segment> batch, Cache& cache, const Run& run) {
        try {
            rows_.clear(), encodings_.clear();
            std::int64_t first = 0;
            for (const segment& s : batch) {
                const std::int64_t past = cache.tokens(s.sequence), after = past + s.tokens;
                cache.reserve(s.sequence, after);
                rows_.push_back({first, s.tokens, past});
                encodings_.push_back(rope_.at(s.whole == 0 ? after : s.whole));
                detail::check_keys(*encodings_.back(), after, cache.options().type);
                first += s.tokens;
            }
            run();
        } catch (...) {
            for (const segment& s : batch) cache.truncate(s.sequence, cache.tokens(s.sequence));
            throw;
        }
        for (std::size_t i = 0; i < batch.size(); ++i) {
            cache.advance_to(batch[i].sequence, rows_[i].past + rows_[i].tokens);
            cache.set_encoding(batch[i].sequence, encodings_[i]);
        }
    }

    /// Calls rerotate(i, source, target) for every sequence whose cached keys have another encoding than the call.
    template <class Rerotate>
    void rerotate_keys(std::span<const segment> batch, Cache& cache, const Rerotate& rerotate) {
        for (std::size_t i = 0; i < batch.size(); ++i) {
            const auto source = cache.encoding(batch[i].sequence);
            if (rows_[i].past == 0 || !source || same_keys(*source, *encodings_[i])) continue;
            rerotate(i, source, encodings_[i]);
            cache.set_encoding(batch[i].sequence, encodings_[i]);
        }
    }

    /// Calls visit(encoding, first row, rows) for consecutive sequences of the call that share an encoding.
    template <class Visit>
    void for_each_encoding(const Visit& visit) const {
        for (std::size_t begin = 0, end = 0; begin < rows_.size(); begin = end) {
            std::int64_t tokens = 0;
            for (; end < rows_.size() && encodings_[end] == encodings_[begin]; ++end) tokens += rows_[end].tokens;
            if (tokens > 0) visit(encodings_[begin], rows_[begin].first, tokens);
        }
    }

    /// Returns the position of a row of the call.
    [[nodiscard]] std::int64_t position_of(std::int64_t row) const {
        std::size_t i = 0;
        while (row >= rows_[i].first + rows_[i].tokens) ++i;
        return rows_[i].past + row - rows_[i].first;
    }

    model_config config_;
    rope_schedule rope_;
    stack_seconds seconds_;

    // Of the current call, per segment.
    std::vector<sequence_rows> rows_;
    std::vector<std::shared_ptr<const Encoding>> encodings_;
};

}  // namespace ropewalk::llama
