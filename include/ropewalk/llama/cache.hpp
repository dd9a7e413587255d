// The key-value cache of a stack of layers on the CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "ropewalk/llama/kernels.hpp"
#include "ropewalk/llama/pages.hpp"

namespace ropewalk::llama {

/// Keys and values of any number of sequences, in pages each of which is memory of its own.
class kv_cache : public paged_sequences<std::byte*> {
public:
    /// Throws ropewalk::error for a type that the stack does not read, or sizes that are not positive.
    explicit kv_cache(const model_config& config, const cache_options& chosen = {}) : paged_sequences(config, chosen) {}

    /// Takes pages until the sequence holds `tokens` tokens, without changing how many it has. Throws, with nothing
    /// taken, where the cache may not grow so far.
    void reserve(int sequence, std::int64_t tokens) {
        take(sequence, tokens, [this](std::int64_t pages) {
            for (std::int64_t page = 0; page < pages; ++page) add_page();
        });
    }

private:
    struct aligned_release {
        void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t{line}); }
    };

    void add_page() {
        std::unique_ptr<std::byte[], aligned_release> page(
            static_cast<std::byte*>(::operator new[](static_cast<std::size_t>(page_bytes()), std::align_val_t{line})));
        memory_.push_back(std::move(page));
        give(memory_.back().get());
    }

    std::vector<std::unique_ptr<std::byte[], aligned_release>> memory_;
};

}  // namespace ropewalk::llama
