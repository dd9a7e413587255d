// Where tokens lie: as a host checks it, and in a device's memory for encodings that draw their positions.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "ropewalk/llama/device_backend.hpp"

namespace ropewalk::llama {

/// The positions of the encodings that a stack has at the moment.
template <class M>
class drawn_positions {
public:
    explicit drawn_positions(M& machine) : machine_(&machine) {}

    /// The tokens [first, first + tokens) of a sequence as a host checks them. Throws where fewer are drawn.
    position_reader on_host(const std::shared_ptr<const Encoding>& encoding, std::int64_t first, std::int64_t tokens) {
        if (!encoding->draw_positions) return {.first = first};
        const entry& drawn = of(encoding);
        const std::int64_t count = std::ssize(drawn.numbers);
        RW_EXPECTS(first + tokens <= count, "'{}' draws {} positions, index {} is not among them", encoding->expression,
                   count, first + tokens - 1);
        return {.kind = positions::kind::fixed, .data = drawn.numbers.data() + first};
    }
    /// The same tokens as the kernels read them, after on_host() has checked them.
    positions on_device(const std::shared_ptr<const Encoding>& encoding, std::int64_t first, std::int64_t tokens) {
        if (!encoding->draw_positions) return offset{first};
        return ids(all(encoding).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(tokens)));
    }
    /// All that an encoding has drawn, in device memory; none where it draws nothing.
    std::span<const fixed_position> all(const std::shared_ptr<const Encoding>& encoding) {
        if (!encoding->draw_positions) return {};
        const entry& drawn = of(encoding);
        return {static_cast<const fixed_position*>(drawn.memory.data()), drawn.numbers.size()};
    }
    /// Forgets what nobody else has any more.
    void tidy() {
        std::erase_if(entries_, [](const entry& one) { return one.encoding.use_count() == 1; });
    }

private:
    struct entry {
        std::shared_ptr<const Encoding> encoding;
        std::vector<fixed_position> numbers;
        device_memory<M> memory;
    };

    const entry& of(const std::shared_ptr<const Encoding>& encoding) {
        for (const entry& one : entries_) {
            if (one.encoding == encoding) return one;
        }
        RW_EXPECTS(encoding->drawn_tokens > 0,
                   "'{}' needs its length or the sequence_length of the geometry: the sequences of a stack grow",
                   encoding->expression);
        std::vector<fixed_position> numbers(static_cast<std::size_t>(encoding->drawn_tokens));
        encoding->draw_positions(0, numbers);
        const std::int64_t bytes = std::ssize(numbers) * static_cast<std::int64_t>(sizeof(fixed_position));
        device_memory<M> memory(*machine_, bytes);
        machine_->upload(memory.data(), numbers.data(), bytes);
        entries_.push_back({encoding, std::move(numbers), std::move(memory)});
        return entries_.back();
    }

    M* machine_;
    std::vector<entry> entries_;
};

}  // namespace ropewalk::llama
