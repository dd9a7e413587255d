/// @file  Key-value caches in guarded memory, with what a test expects to find there.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <ropewalk/gpu/cache.hpp>

#include "host.hpp"

namespace test {

/// Where the axes of a cache lie. `interleaved` leaves a gap as wide as a page behind each, as where keys and values
/// share one buffer; `padded` leaves odd gaps everywhere.
enum class cache_order { nhd, hnd, interleaved, padded };

inline constexpr ropewalk::gpu::cache_type all_cache_types[] = {
    ropewalk::gpu::cache_type::f32, ropewalk::gpu::cache_type::f16, ropewalk::gpu::cache_type::bf16,
    ropewalk::gpu::cache_type::f8e4m3, ropewalk::gpu::cache_type::i8};

/// Keys or values. Every byte has a pattern; expect() says which of them a call must change, and to what.
class cache_memory {
public:
    struct extents {
        std::int64_t pages = 1, page_size = 1, heads = 1, head_dim = 2;
    };

    cache_memory(ropewalk::gpu::cache_type type, const extents& size, cache_order where, float scale = 1,
                 std::int64_t misalignment = 0);

    [[nodiscard]] ropewalk::gpu::cache_tensor tensor();
    void watch(memory_log& log);
    /// One head, from floats, as the definition of the cache's type has it.
    void expect(std::int64_t page, std::int64_t token, std::int64_t head, const double* values);
    /// The first byte that is not as expected, or that was not written as often as expected, or "".
    [[nodiscard]] std::string problem(const memory_log& log) const;

private:
    static constexpr std::int64_t guard = 64;  ///< elements on either side
    static constexpr unsigned char pattern = 0xA5;

    void expect_bits(std::int64_t element, std::uint32_t bits);

    ropewalk::gpu::cache_tensor shape_;
    std::int64_t first_ = 0;  ///< byte of the first element
    std::vector<unsigned char> bytes_, expected_, scales_, expected_scales_;
    std::vector<std::uint8_t> touched_, scales_touched_;
};

/// Slots of a call's tokens with the memory that holds them, and where each token must go.
struct slot_case {
    ropewalk::gpu::cache_slots slots;
    ropewalk::positions where;  ///< for the rotation, where it must be ragged as the slots are
    std::vector<std::int64_t> ids, starts;
    std::vector<std::int32_t> table;
    struct place {
        std::int64_t page = 0, token = 0;
    };
    std::vector<std::optional<place>> places;  ///< a token, batch row by batch row
};

enum class slot_kind {
    by_sequence_offset,
    by_sequence_ids,
    table_offset,
    table_ids,
    table_ragged,
    mapping32,
    mapping64
};
inline constexpr slot_kind all_slot_kinds[] = {
    slot_kind::by_sequence_offset, slot_kind::by_sequence_ids, slot_kind::table_offset, slot_kind::table_ids,
    slot_kind::table_ragged,       slot_kind::mapping32,       slot_kind::mapping64};

/// Different slots for all tokens, in no order, some of which lie outside the cache. A ragged kind wants a batch of 1.
slot_case random_slots(slot_kind kind, std::int64_t batch, std::int64_t tokens, const cache_memory::extents& cache,
                       random& numbers);

}  // namespace test
