// Launch arguments in device memory: the ids and sequences of a call, and the positions that encodings draw.
#pragma once

#include <algorithm>
#include <bit>
#include <memory>
#include <span>
#include <vector>

#include "ropewalk/llama/batch.hpp"
#include "ropewalk/llama/device_backend.hpp"

namespace ropewalk::llama {

/// Arguments of the launches of a stack. A recorded step reads them anew whenever it is replayed.
template <class B>
class launch_args {
public:
    explicit launch_args(B& backend) : backend_(&backend), memory_(backend) {}

    /// Uploads the token ids of a call, and the rows and pages of its sequences.
    template <class Cache>
    void upload(std::span<const segment> batch, std::span<const sequence_rows> rows, std::span<const std::int32_t> ids,
                const Cache& cache) {
        std::int64_t most_pages = 1;
        for (const sequence_rows& part : rows)
            most_pages = std::max(most_pages, cache.pages_for(part.past + part.tokens));
        // Rounded up to a power of two, so that a recorded step serves more calls.
        most_pages = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(most_pages)));
        numbers_.assign(ids.begin(), ids.end());
        const std::size_t starts = numbers_.size();
        for (const sequence_rows& part : rows) numbers_.push_back(static_cast<std::int32_t>(part.first));
        numbers_.push_back(static_cast<std::int32_t>(rows.back().first + rows.back().tokens));
        const std::size_t past = numbers_.size();
        for (const sequence_rows& part : rows) numbers_.push_back(static_cast<std::int32_t>(part.past));
        const std::size_t table = numbers_.size();
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const std::int32_t* const pages = cache.pages(batch[i].sequence);
            numbers_.insert(numbers_.end(), pages, pages + cache.pages_for(rows[i].past + rows[i].tokens));
            numbers_.resize(table + (i + 1) * static_cast<std::size_t>(most_pages), -1);
        }
        const std::int64_t bytes = std::ssize(numbers_) * static_cast<std::int64_t>(sizeof(std::int32_t));
        const auto* const device = static_cast<const std::int32_t*>(memory_.reserve(bytes));
        backend_->upload(memory_.data(), numbers_.data(), bytes);
        ids_ = ids.empty() ? nullptr : device;
        const auto fewer = [](const auto& a, const auto& b) { return a.tokens < b.tokens; };
        const auto [fewest, most] = std::minmax_element(rows.begin(), rows.end(), fewer);
        single_ = fewest->tokens == 1 && most->tokens == 1;
        batch_ = {.starts = single_ ? nullptr : device + starts,
                  .past = device + past,
                  .count = std::ssize(rows),
                  .most_tokens = most->tokens,
                  .pages = {device + table, most_pages, most_pages}};
    }

    [[nodiscard]] const std::int32_t* ids() const { return ids_; }  ///< null if there are none
    [[nodiscard]] const gpu::sequences& batch() const { return batch_; }
    /// True if every sequence has one token.
    [[nodiscard]] bool single() const { return single_; }
    [[nodiscard]] std::span<const std::int32_t> pages_of(std::size_t sequence) const {
        const std::int64_t most_pages = batch_.pages.most_pages;
        return {batch_.pages.table + static_cast<std::int64_t>(sequence) * most_pages,
                static_cast<std::size_t>(most_pages)};
    }

    /// Positions of the tokens [first, first + tokens) of a sequence in host memory, for checks. Throws if the encoding
    /// draws fewer.
    position_reader host_positions(const std::shared_ptr<const Encoding>& encoding, std::int64_t first,
                                   std::int64_t tokens) {
        if (!encoding->draw_positions) return {.first = first};
        const drawn& entry = drawn_by(encoding);
        RW_EXPECTS(first + tokens <= std::ssize(entry.numbers),
                   "'{}' draws {} positions, which do not include index {}", encoding->expression, entry.numbers.size(),
                   first + tokens - 1);
        return {.kind = positions::kind::fixed, .data = entry.numbers.data() + first};
    }
    /// The same positions in device memory, after host_positions() has checked them.
    positions device_positions(const std::shared_ptr<const Encoding>& encoding, std::int64_t first,
                               std::int64_t tokens) {
        if (!encoding->draw_positions) return offset{first};
        return ropewalk::ids(
            drawn_positions(encoding).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(tokens)));
    }
    /// All positions that an encoding draws, in device memory; empty if it draws none.
    std::span<const fixed_position> drawn_positions(const std::shared_ptr<const Encoding>& encoding) {
        if (!encoding->draw_positions) return {};
        const drawn& entry = drawn_by(encoding);
        return {static_cast<const fixed_position*>(entry.memory.data()), entry.numbers.size()};
    }
    /// Drops the positions of encodings that have no other owner.
    void drop_unused() {
        std::erase_if(drawn_, [](const drawn& entry) { return entry.encoding.use_count() == 1; });
    }

private:
    struct drawn {
        std::shared_ptr<const Encoding> encoding;
        std::vector<fixed_position> numbers;
        device_memory<B> memory;
    };

    const drawn& drawn_by(const std::shared_ptr<const Encoding>& encoding) {
        for (const drawn& entry : drawn_) {
            if (entry.encoding == encoding) return entry;
        }
        RW_EXPECTS(
            encoding->drawn_tokens > 0,
            "'{}' needs its length or the sequence_length of the geometry, because the sequences of a stack grow",
            encoding->expression);
        std::vector<fixed_position> numbers(static_cast<std::size_t>(encoding->drawn_tokens));
        encoding->draw_positions(0, numbers);
        const std::int64_t bytes = std::ssize(numbers) * static_cast<std::int64_t>(sizeof(fixed_position));
        device_memory<B> memory(*backend_, bytes);
        backend_->upload(memory.data(), numbers.data(), bytes);
        return drawn_.emplace_back(encoding, std::move(numbers), std::move(memory));
    }

    B* backend_;
    device_memory<B> memory_;
    const std::int32_t* ids_ = nullptr;
    gpu::sequences batch_;
    bool single_ = false;
    std::vector<std::int32_t> numbers_;
    std::vector<drawn> drawn_;
};

}  // namespace ropewalk::llama
