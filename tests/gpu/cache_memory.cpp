#include "cache_memory.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "support/e4m3.hpp"

namespace rw = ropewalk;
using rw::gpu::cache_type;

namespace test {

cache_memory::cache_memory(cache_type type, const extents& size, cache_order where, float scale,
                           std::int64_t misalignment) {
    const auto [pages, page_size, heads, head_dim] = size;
    void* const nobody = nullptr;
    shape_ = where == cache_order::hnd
                 ? rw::gpu::hnd_cache(static_cast<float*>(nobody), pages, heads, page_size, head_dim)
                 : rw::gpu::nhd_cache(static_cast<float*>(nobody), pages, page_size, heads, head_dim);
    shape_.type = type, shape_.scale = scale;
    if (where == cache_order::interleaved) shape_.stride_page *= 2, shape_.scale_stride_page *= 2;
    if (where == cache_order::padded) {
        shape_.stride_head = head_dim + 3, shape_.stride_token = heads * shape_.stride_head + 5;
        shape_.stride_page = page_size * shape_.stride_token + 7;
        shape_.scale_stride_head = 2, shape_.scale_stride_token = 2 * heads + 1;
        shape_.scale_stride_page = page_size * shape_.scale_stride_token + 3;
    }
    const std::int64_t bytes = rw::gpu::size_of(type);
    first_ = (guard + misalignment) * bytes;
    bytes_.assign(static_cast<std::size_t>((pages * shape_.stride_page + 2 * guard) * bytes), pattern);
    if (type == cache_type::i8)
        scales_.assign(static_cast<std::size_t>((pages * shape_.scale_stride_page + 2 * guard) * 4), pattern);
    expected_ = bytes_, expected_scales_ = scales_;
    touched_.assign(bytes_.size(), 0), scales_touched_.assign(scales_.size(), 0);
}

rw::gpu::cache_tensor cache_memory::tensor() {
    rw::gpu::cache_tensor result = shape_;
    result.data = bytes_.data() + first_;
    if (!scales_.empty()) result.scales = reinterpret_cast<float*>(scales_.data() + guard * 4);
    return result;
}

void cache_memory::watch(memory_log& log) {
    log.watch(bytes_.data(), bytes_.size());
    if (!scales_.empty()) log.watch(scales_.data(), scales_.size());
}

void cache_memory::expect_bits(std::int64_t element, std::uint32_t bits) {
    const auto size = static_cast<std::size_t>(rw::gpu::size_of(shape_.type));
    const std::size_t at = static_cast<std::size_t>(first_) + static_cast<std::size_t>(element) * size;
    std::memcpy(expected_.data() + at, &bits, size);
    for (std::size_t i = at; i < at + size; ++i) ++touched_[i];
}

void cache_memory::expect(std::int64_t page, std::int64_t token, std::int64_t head, const double* values) {
    const std::int64_t at = page * shape_.stride_page + token * shape_.stride_token + head * shape_.stride_head;
    float largest = 0;
    for (std::int64_t i = 0; i < shape_.head_dim; ++i)
        largest = std::max(largest, std::fabs(static_cast<float>(values[i])));
    for (std::int64_t i = 0; i < shape_.head_dim; ++i) {
        const auto x = static_cast<float>(values[i]);
        const auto as = [&](const oracle::format& f) { return oracle::encode(oracle::rounded(values[i], f), f); };
        switch (shape_.type) {
            case cache_type::f32:
                expect_bits(at + i, as(oracle::f32));
                break;
            case cache_type::f16:
                expect_bits(at + i, as(oracle::f16));
                break;
            case cache_type::bf16:
                expect_bits(at + i, as(oracle::bf16));
                break;
            case cache_type::f8e4m3:
                expect_bits(at + i, oracle::e4m3_code(static_cast<double>(x / shape_.scale)));
                break;
            default: {
                const float scaled = largest == 0 ? 0.0F : x * (127.0F / largest);
                const auto nearest = static_cast<std::int32_t>(std::nearbyint(scaled));
                expect_bits(at + i, static_cast<std::uint32_t>(nearest) & 0xffU);
            }
        }
    }
    if (shape_.type != cache_type::i8) return;
    const std::int64_t beside =
        page * shape_.scale_stride_page + token * shape_.scale_stride_token + head * shape_.scale_stride_head;
    const auto where = static_cast<std::size_t>((guard + beside) * 4);
    const float scale = largest / 127.0F;
    std::memcpy(expected_scales_.data() + where, &scale, 4);
    for (std::size_t i = where; i < where + 4; ++i) ++scales_touched_[i];
}

std::string cache_memory::problem(const memory_log& log) const {
    const auto compare = [&](const std::string& name, const std::vector<unsigned char>& got,
                             const std::vector<unsigned char>& expected, const std::vector<std::uint8_t>& touched) {
        for (std::size_t i = 0; i < got.size(); ++i) {
            if (got[i] != expected[i])
                return name + " byte " + std::to_string(i) + " is " + std::to_string(got[i]) + ", expected " +
                       std::to_string(expected[i]);
        }
        if (!got.empty() && log.writes(got.data()) != touched) return name + ": not every byte was written once";
        return std::string{};
    };
    const std::string wrong = compare("cache", bytes_, expected_, touched_);
    return wrong.empty() ? compare("scales", scales_, expected_scales_, scales_touched_) : wrong;
}

namespace {

/// Entries of the tokens of `batch` sequences, each from a start of its own on, so that all fit into `capacity`.
void draw_entries(slot_case& made, std::int64_t batch, std::int64_t tokens, std::int64_t capacity, random& numbers) {
    for (std::int64_t row = 0; row < batch; ++row) {
        const std::int64_t start = numbers.integer(0, capacity - tokens);
        for (std::int64_t t = 0; t < tokens; ++t) made.ids.push_back(start + t);
    }
}

std::vector<std::int64_t> shuffled(std::int64_t count, random& numbers) {
    std::vector<std::int64_t> values(static_cast<std::size_t>(count));
    std::iota(values.begin(), values.end(), 0);
    for (std::size_t i = values.size(); i > 1; --i)
        std::swap(values[i - 1],
                  values[static_cast<std::size_t>(numbers.integer(0, static_cast<std::int64_t>(i) - 1))]);
    return values;
}

/// A page for every entry of the table, some of which do not exist.
void draw_table(slot_case& made, std::int64_t sequences, std::int64_t max_pages, std::int64_t pages, random& numbers) {
    const auto order = shuffled(pages, numbers);
    for (std::int64_t i = 0; i < sequences * max_pages; ++i) {
        const std::int64_t page = numbers.integer(0, 5) == 0 ? numbers.one_of<std::int64_t>({-1, pages, 1 << 30})
                                                             : order[static_cast<std::size_t>(i)];
        made.table.push_back(static_cast<std::int32_t>(page));
    }
}

}  // namespace

slot_case random_slots(slot_kind kind, std::int64_t batch, std::int64_t tokens, const cache_memory::extents& cache,
                       random& numbers) {
    slot_case made;
    const bool mapped = kind == slot_kind::mapping32 || kind == slot_kind::mapping64;
    if (mapped) {
        const auto order = shuffled(cache.pages * cache.page_size, numbers);
        for (std::int64_t i = 0; i < batch * tokens; ++i) {
            const bool outside = numbers.integer(0, 5) == 0;
            const std::int64_t slot =
                outside ? numbers.one_of<std::int64_t>({-1, -7, cache.pages * cache.page_size, 0x7fffffff})
                        : order[static_cast<std::size_t>(i)];
            made.ids.push_back(slot);
            made.table.push_back(static_cast<std::int32_t>(slot));
            made.places.push_back(
                outside ? std::nullopt
                        : std::optional(slot_case::place{slot / cache.page_size, slot % cache.page_size}));
        }
        made.slots = kind == slot_kind::mapping32 ? rw::gpu::by_mapping(std::span<const std::int32_t>(made.table))
                                                  : rw::gpu::by_mapping(std::span<const std::int64_t>(made.ids));
        return made;
    }

    const bool paged =
        kind == slot_kind::table_offset || kind == slot_kind::table_ids || kind == slot_kind::table_ragged;
    const bool ragged = kind == slot_kind::table_ragged;
    const std::int64_t sequences = ragged ? 3 : batch, max_pages = paged ? cache.pages / sequences : 1;
    const std::int64_t capacity = max_pages * cache.page_size;
    std::int64_t first = 0;
    if (ragged) {
        // An empty sequence among them.
        made.starts = {0, tokens / 3, tokens / 3, tokens};
        first = numbers.integer(0, capacity - tokens);
        made.slots.entries = rw::cu_seqlens(std::span<const std::int64_t>(made.starts), first);
        made.where = made.slots.entries;
    } else if (kind == slot_kind::by_sequence_offset || kind == slot_kind::table_offset) {
        first = numbers.integer(0, capacity - tokens);
        made.slots.entries = rw::offset{first};
    } else {
        draw_entries(made, batch, tokens, capacity, numbers);
        // Outside: the host cannot know.
        if (batch * tokens > 1) made.ids.front() = -3, made.ids.back() = capacity + 5;
        made.slots.entries = rw::ids(std::span<const std::int64_t>(made.ids), batch);
    }
    const rw::positions entries = made.slots.entries;
    if (paged) {
        draw_table(made, sequences, max_pages, cache.pages, numbers);
        made.slots = rw::gpu::by_page_table(made.table, sequences, entries);
    } else {
        made.slots = rw::gpu::by_sequence(entries);
    }
    for (std::int64_t i = 0; i < batch * tokens; ++i) {
        std::int64_t sequence = i / tokens, entry = first + i % tokens;
        if (!made.ids.empty()) entry = made.ids[static_cast<std::size_t>(i)];
        if (ragged) {
            while (made.starts[static_cast<std::size_t>(sequence + 1)] <= i) ++sequence;
            entry = first + i - made.starts[static_cast<std::size_t>(sequence)];
        }
        std::int64_t page = sequence;
        const bool fits = entry >= 0 && entry < capacity;
        if (fits && paged) page = made.table[static_cast<std::size_t>(sequence * max_pages + entry / cache.page_size)];
        made.places.push_back(fits && page >= 0 && page < cache.pages
                                  ? std::optional(slot_case::place{page, paged ? entry % cache.page_size : entry})
                                  : std::nullopt);
    }
    return made;
}

}  // namespace test
