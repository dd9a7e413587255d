#include "cases/rerotate_cache_case.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace rw = ropewalk;
using rw::cache_type;

namespace test {

namespace {

/// The value of an f8 code, from the definition of its format.
double f8_number(unsigned code, int mantissa_bits, int bias) {
    const int magnitude = static_cast<int>(code & 127U), fraction = 1 << mantissa_bits;
    const int exponent = magnitude / fraction, mantissa = magnitude % fraction;
    const double value = exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                       : std::ldexp(fraction + mantissa, exponent - bias - mantissa_bits);
    return (code & 128U) != 0 ? -value : value;
}

/// Writes a random element and returns its value. Results of f8 stay below the largest number.
double draw_element(unsigned char* to, cache_type type, float scale, random& numbers) {
    if (type == cache_type::i8) {
        const auto number = static_cast<signed char>(numbers.integer(-127, 127));
        std::memcpy(to, &number, 1);
        return static_cast<double>(static_cast<float>(number) * scale);
    }
    if (rw::is_f8(type)) {
        const auto code = static_cast<unsigned>(numbers.integer(0, 255)) & 0xdfU;
        *to = static_cast<unsigned char>(code);
        return (type == cache_type::f8e4m3 ? f8_number(code, 3, 7) : f8_number(code, 2, 15)) *
               static_cast<double>(scale);
    }
    const oracle::format& format = type == cache_type::f32   ? oracle::f32
                                   : type == cache_type::f16 ? oracle::f16
                                                             : oracle::bf16;
    const double value = oracle::rounded(numbers.normal(), format);
    oracle::store(value, format, to);
    return value;
}

cache_memory::extents size_of_cache(const rerotate_cache_case& c) {
    const bool paged =
        c.slots == slot_kind::table_offset || c.slots == slot_kind::table_ids || c.slots == slot_kind::table_ragged;
    const bool mapped = c.slots == slot_kind::mapping32 || c.slots == slot_kind::mapping64;
    const std::int64_t sequences = is_ragged(c.slots) ? 3 : c.batch, all = c.batch * c.tokens;
    const std::int64_t pages = mapped  ? (all + c.page_size - 1) / c.page_size + 2
                               : paged ? sequences * ((c.tokens + c.page_size - 1) / c.page_size + 1)
                                       : sequences;
    return {pages, mapped || paged ? c.page_size : std::max(c.page_size, c.tokens), c.heads,
            c.source.ours.geometry.head_dim};
}

}  // namespace

rerotate_cache_case random_rerotate_cache_case(random& numbers, const rw::Geometry& head, cache_type type) {
    rerotate_cache_case c;
    c.type = type, c.layout = all_layouts[numbers.integer(0, 1)];
    c.checked_slots = checks_slots();
    c.first = numbers.integer(-100000, 100000);
    c.source = random_twin(numbers, head);
    c.target = numbers.coin() ? c.source : random_twin(numbers, head);
    if (numbers.integer(0, 3) == 0) {
        c.source = xpos_twin(head, {.length = 4096}), c.first = numbers.integer(1800, 2000);
        if (numbers.coin()) c.target = c.source;
    } else if (numbers.integer(0, 3) == 0) {
        const double factor = numbers.uniform(0.7, 1.4);
        c.target = {rw::make_encoding(head, Constant{factor}), plain_twin(head).exact};
        c.target.exact.factor = factor;
    }
    c.heads = numbers.integer(1, 9), c.tokens = numbers.integer(1, 9), c.batch = numbers.integer(1, 3);
    c.axes = static_cast<cache_order>(numbers.integer(0, 3));
    c.page_size = numbers.one_of<std::int64_t>({1, 4, 16, 5});
    c.slots = all_slot_kinds[numbers.integer(0, std::ssize(all_slot_kinds) - 1)];
    if (is_ragged(c.slots)) c.batch = 1;
    c.scale_in_memory = rw::is_f8(type) && numbers.coin();
    return c;
}

rerotate_cache_call::rerotate_cache_call(const rerotate_cache_case& c, random& numbers)
    : setup(c),
      size(size_of_cache(c)),
      scale(rw::is_f8(c.type) ? static_cast<float>(numbers.uniform(0.01, 3)) : 1.0F),
      cache(c.type, size, c.axes, scale, c.misalignment),
      slots(random_slots(c.slots, c.batch, c.tokens, size, numbers, c.checked_slots)) {
    for (const std::optional<cache_slot>& slot : slots.of_token) {
        for (std::int64_t head = 0; head < c.heads; ++head) {
            const auto factor = c.type == cache_type::i8 ? static_cast<float>(numbers.uniform(0.01, 0.1)) : scale;
            for (std::int64_t i = 0; i < size.head_dim; ++i) {
                unsigned char unused[4];
                unsigned char* const to =
                    slot ? cache.bytes.data() + byte_of(*slot, head) + i * rw::size_of(c.type) : unused;
                keys.push_back(draw_element(to, c.type, factor, numbers));
            }
            if (!slot || c.type != cache_type::i8) continue;
            const rw::cache_tensor k = cache.tensor();
            k.scales[slot->page * k.scale_stride_page + slot->token * k.scale_stride_token +
                     head * k.scale_stride_head] = factor;
        }
    }
    before = cache.bytes;
    const extents tokens{c.batch, c.tokens, c.heads, size.head_dim};
    const bool far = !c.source.ours.has_magnitude();
    source = random_ids<std::int64_t>(numbers, tokens, c.first, c.first + (far ? 1 << 20 : 300), c.batch);
    target = numbers.coin() ? from_offset(tokens, c.first)
                            : random_ids<std::int32_t>(numbers, tokens, c.first, c.first + (far ? 5000 : 300), 1);
}

std::size_t rerotate_cache_call::byte_of(const cache_slot& slot, std::int64_t head) const {
    const rw::cache_tensor k = const_cast<cache_memory&>(cache).tensor();
    const std::int64_t element = slot.page * k.stride_page + slot.token * k.stride_token + head * k.stride_head;
    return static_cast<std::size_t>(static_cast<unsigned char*>(k.data) - cache.bytes.data() +
                                    element * rw::size_of(k.type));
}

rw::rerotate_cache_args rerotate_cache_call::args() const {
    auto& memory = const_cast<cache_memory&>(cache);
    rw::cache_tensor k = memory.tensor();
    if (setup.scale_in_memory) k.scale_at = &scale, k.scale = 1;
    return {.layout = setup.layout,
            .keys = k,
            .at = {slots.slots, setup.tokens, setup.batch},
            .source = &setup.source.ours,
            .source_positions = source.given,
            .target = &setup.target.ours,
            .target_positions = target.given};
}

std::vector<double> rerotate_cache_call::exact() const {
    const oracle::shape shape =
        shape_of({setup.batch, setup.tokens, setup.heads, size.head_dim}, setup.source.ours.geometry, setup.layout);
    const std::vector<double> plain =
        oracle::rotate(shape, keys, setup.source.exact, source.exact, oracle::role::key, oracle::direction::inverse);
    return oracle::rotate(shape, plain, setup.target.exact, target.exact, oracle::role::key);
}

std::vector<std::uint8_t> rerotate_cache_call::written() const {
    std::vector<std::uint8_t> counts(cache.bytes.size(), 0);
    const rw::Geometry& g = setup.source.ours.geometry;
    const bool whole = setup.type == cache_type::i8;
    const auto bytes = static_cast<std::size_t>(rw::size_of(setup.type));
    const auto begin = static_cast<std::size_t>(whole ? 0 : g.rotary_offset) * bytes;
    const auto end = static_cast<std::size_t>(whole ? g.head_dim : g.rotary_offset + g.width()) * bytes;
    for (const std::optional<cache_slot>& slot : slots.of_token) {
        for (std::int64_t head = 0; slot && head < setup.heads; ++head)
            for (std::size_t i = begin; i < end; ++i) ++counts[byte_of(*slot, head) + i];
    }
    return counts;
}

std::string rerotate_cache_call::compare() const {
    const std::vector<double> expected = exact();
    const auto dim = static_cast<std::size_t>(size.head_dim), heads = static_cast<std::size_t>(setup.heads);
    cache_memory marked = cache;
    for (std::size_t row = 0; row * dim < expected.size(); ++row) {
        const std::optional<cache_slot>& slot = slots.of_token[row / heads];
        if (!slot) continue;
        const std::span<const double> head(expected.data() + row * dim, dim);
        double squares = 0;
        for (const double x : head) squares += x * x;
        const std::string wrong =
            marked.check(*slot, static_cast<std::int64_t>(row % heads), head, 6e-7 * std::sqrt(squares));
        if (!wrong.empty()) return "token " + std::to_string(row / heads) + ", " + wrong;
    }
    const std::vector<std::uint8_t> counts = written();
    for (std::size_t i = 0; i < counts.size(); ++i) {
        if (counts[i] > 1) return "two tokens have one slot";
        if (counts[i] == 0 && cache.bytes[i] != before[i]) return "byte " + std::to_string(i) + " changed";
    }
    return marked.check_rest();
}

std::string describe(const rerotate_cache_case& c) {
    const rw::Geometry& g = c.source.ours.geometry;
    std::ostringstream text;
    text << rw::to_string(c.type) << ' ' << to_string(c.layout) << " head_dim " << g.head_dim << " width " << g.width()
         << " at " << g.rotary_offset << ", batch " << c.batch << " tokens " << c.tokens << " heads " << c.heads
         << " axes " << static_cast<int>(c.axes) << " pages of " << c.page_size << " slots "
         << static_cast<int>(c.slots) << ", '" << c.source.ours.expression << "' to '" << c.target.ours.expression
         << "' from " << c.first;
    return text.str();
}

}  // namespace test
