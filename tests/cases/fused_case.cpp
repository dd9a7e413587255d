#include "cases/fused_case.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "support/fp8.hpp"

namespace rw = ropewalk;
using rw::cache_type;

namespace test {

cache_memory::cache_memory(cache_type type, const extents& size, cache_order axes, float scale,
                           std::int64_t misalignment, bool scale_in_memory) {
    const auto [pages, page_size, heads, head_dim] = size;
    float* const none = nullptr;
    shape_ = axes == cache_order::hnd ? rw::hnd_cache(none, pages, heads, page_size, head_dim)
                                      : rw::nhd_cache(none, pages, page_size, heads, head_dim);
    shape_.type = type, shape_.scale = scale;
    if (axes == cache_order::interleaved) shape_.stride_page *= 2, shape_.scale_stride_page *= 2;
    if (axes == cache_order::padded) {
        shape_.stride_head = head_dim + 3, shape_.stride_token = heads * shape_.stride_head + 5;
        shape_.stride_page = page_size * shape_.stride_token + 7;
        shape_.scale_stride_head = 2, shape_.scale_stride_token = 2 * heads + 1;
        shape_.scale_stride_page = page_size * shape_.scale_stride_token + 3;
    }
    const std::int64_t element = rw::size_of(type);
    first_ = (guard + misalignment) * element;
    bytes.assign(static_cast<std::size_t>((pages * shape_.stride_page + 2 * guard) * element), pattern);
    if (type == cache_type::i8)
        scales.assign(static_cast<std::size_t>((pages * shape_.scale_stride_page + 2 * guard) * 4), pattern);
    if (scale_in_memory && rw::is_f8(type)) divisor.assign(1, scale);
    named_.assign(bytes.size(), 0), named_scales_.assign(scales.size(), 0);
}

rw::cache_tensor cache_memory::tensor_over(void* data, void* scale_data, const void* divisor_data) const {
    rw::cache_tensor result = shape_;
    result.data = static_cast<unsigned char*>(data) + first_;
    if (!scales.empty()) result.scales = static_cast<float*>(scale_data) + guard;
    if (!divisor.empty()) result.scale = 1, result.scale_at = static_cast<const float*>(divisor_data);
    return result;
}

bool cache_memory::holds(const unsigned char* element, double exact, double room, double largest) const {
    if (shape_.type == cache_type::i8) {
        const auto got = static_cast<std::int64_t>(static_cast<signed char>(*element));
        const float scaled = largest == 0 ? 0.0F : static_cast<float>(exact) * (127.0F / static_cast<float>(largest));
        // `largest` may be off by `room` too.
        const double slack = largest == 0 ? 0 : 254 * room / largest;
        return std::nearbyint(static_cast<double>(scaled) - slack) <= static_cast<double>(got) &&
               static_cast<double>(got) <= std::nearbyint(static_cast<double>(scaled) + slack);
    }
    if (rw::is_f8(shape_.type)) {
        const oracle::fp8& format = shape_.type == cache_type::f8e4m3 ? oracle::e4m3 : oracle::e5m2;
        const auto number = [&](std::uint32_t code) {
            return oracle::fp8_number(format, static_cast<int>(code & 127)) * ((code & 128) != 0 ? -1 : 1);
        };
        const auto stored = [&](double x) {
            return number(oracle::fp8_code(format, static_cast<double>(static_cast<float>(x) / shape_.scale)));
        };
        return stored(exact - room) <= number(*element) && number(*element) <= stored(exact + room);
    }
    const oracle::format& f = shape_.type == cache_type::f32   ? oracle::f32
                              : shape_.type == cache_type::f16 ? oracle::f16
                                                               : oracle::bf16;
    std::uint32_t bits = 0;
    std::memcpy(&bits, element, static_cast<std::size_t>(f.bytes));
    return within(oracle::decode(bits, f), exact, room, f);
}

std::string cache_memory::check(const cache_slot& slot, std::int64_t head, std::span<const double> exact, double room) {
    const auto size = static_cast<std::size_t>(rw::size_of(shape_.type));
    const std::int64_t element =
        slot.page * shape_.stride_page + slot.token * shape_.stride_token + head * shape_.stride_head;
    const std::size_t begin = static_cast<std::size_t>(first_) + static_cast<std::size_t>(element) * size;
    for (std::size_t i = begin; i < begin + exact.size() * size; ++i) ++named_[i];
    float largest = 0;
    for (const double x : exact) largest = std::max(largest, std::fabs(static_cast<float>(x)));
    const std::string where = "head " + std::to_string(head) + " of token " + std::to_string(slot.token) + " of page " +
                              std::to_string(slot.page) + ": ";
    if (shape_.type == cache_type::i8) {
        const auto at =
            static_cast<std::size_t>((guard + slot.page * shape_.scale_stride_page +
                                      slot.token * shape_.scale_stride_token + head * shape_.scale_stride_head) *
                                     4);
        for (std::size_t i = at; i < at + 4; ++i) ++named_scales_[i];
        float scale = 0;
        std::memcpy(&scale, scales.data() + at, 4);
        if (!(std::fabs(static_cast<double>(scale - largest / 127.0F)) <= room / 100))
            return where + "scale " + std::to_string(scale) + ", exact is " + std::to_string(largest / 127.0F);
    }
    for (std::size_t i = 0; i < exact.size(); ++i) {
        if (!holds(bytes.data() + begin + i * size, exact[i], room, static_cast<double>(largest)))
            return where + "element " + std::to_string(i) + " should hold " + std::to_string(exact[i]);
    }
    return {};
}

std::string cache_memory::check_rest() const {
    const auto intact = [](const std::vector<unsigned char>& got, const std::vector<std::uint8_t>& named) {
        for (std::size_t i = 0; i < got.size(); ++i) {
            if (named[i] == 0 && got[i] != pattern) return false;
        }
        return true;
    };
    return intact(bytes, named_) && intact(scales, named_scales_) ? "" : "bytes outside the slots of the call changed";
}

namespace {

std::vector<std::int64_t> shuffled(std::int64_t count, random& numbers) {
    std::vector<std::int64_t> values;
    for (std::int64_t i = 0; i < count; ++i) {
        values.push_back(i);
        std::swap(values.back(), values[static_cast<std::size_t>(numbers.integer(0, i))]);
    }
    return values;
}

void draw_mapping(slot_case& made, bool narrow, std::int64_t tokens, const cache_memory::extents& cache,
                  random& numbers, bool checked) {
    const auto order = shuffled(cache.pages * cache.page_size, numbers);
    for (std::int64_t i = 0; i < tokens; ++i) {
        const bool outside = numbers.integer(0, 5) == 0;
        const std::int64_t slot =
            outside ? numbers.one_of<std::int64_t>(
                          {-1, -7, checked ? -1 : cache.pages * cache.page_size, checked ? -2 : 0x7fffffff})
                    : order[static_cast<std::size_t>(i)];
        made.ids.push_back(slot), made.table.push_back(static_cast<std::int32_t>(slot));
        made.of_token.push_back(outside ? std::nullopt
                                        : std::optional(cache_slot{slot / cache.page_size, slot % cache.page_size}));
    }
    made.slots = narrow ? rw::by_mapping(std::span<const std::int32_t>(made.table))
                        : rw::by_mapping(std::span<const std::int64_t>(made.ids));
}

}  // namespace

slot_case random_slots(slot_kind kind, std::int64_t batch, std::int64_t tokens, const cache_memory::extents& cache,
                       random& numbers, bool checked) {
    slot_case made;
    if (kind == slot_kind::mapping32 || kind == slot_kind::mapping64) {
        draw_mapping(made, kind == slot_kind::mapping32, batch * tokens, cache, numbers, checked);
        return made;
    }
    const bool list = is_list(kind);
    const bool paged =
        list || kind == slot_kind::table_offset || kind == slot_kind::table_ids || kind == slot_kind::table_ragged;
    const std::int64_t sequences = is_ragged(kind) ? 3 : batch, max_pages = paged ? cache.pages / sequences : 1;
    const std::int64_t capacity = max_pages * cache.page_size;
    rw::positions entries;
    if (kind == slot_kind::by_sequence_ids || kind == slot_kind::table_ids || kind == slot_kind::list_ids) {
        for (std::int64_t row = 0; row < batch; ++row) {
            const std::int64_t start = numbers.integer(0, capacity - tokens);
            for (std::int64_t t = 0; t < tokens; ++t) made.ids.push_back(start + t);
        }
        // The host does not know that these lie outside.
        if (batch * tokens > 1) made.ids.front() = -3, made.ids.back() = checked ? -1 : capacity + 5;
        entries = rw::ids(std::span<const std::int64_t>(made.ids), batch);
    } else if (is_ragged(kind)) {
        made.starts = {0, tokens / 3, tokens / 3, tokens};  // the second sequence is empty
        // The last tokens of a long sequence may lie outside.
        made.first = kind == slot_kind::list_last ? 0 : numbers.integer(0, capacity - tokens + tokens / 3);
        entries = rw::cu_seqlens(std::span<const std::int64_t>(made.starts), made.first);
    } else {
        made.first = numbers.integer(0, capacity - tokens);
        entries = rw::offset{made.first};
    }
    // The pages of sequence s are table[starts[s]] to table[starts[s + 1] - 1].
    std::vector<std::int32_t> starts{0};
    for (std::int64_t s = 0; paged && s < sequences; ++s) {
        // Lists have different lengths, so that the last tokens of a sequence may lie outside.
        const std::int64_t pages = list && !checked ? numbers.integer(1, max_pages) : max_pages;
        starts.push_back(starts.back() + static_cast<std::int32_t>(pages));
    }
    if (paged) {
        const auto order = shuffled(cache.pages, numbers);
        for (std::int64_t i = 0; i < starts.back(); ++i) {
            // Some pages do not exist.
            const std::int64_t page = !checked && numbers.integer(0, 5) == 0
                                          ? numbers.one_of<std::int64_t>({-1, cache.pages, 1 << 30})
                                          : order[static_cast<std::size_t>(i)];
            made.table.push_back(static_cast<std::int32_t>(page));
        }
    }
    if (list) {
        made.indptr = starts;
        for (std::size_t s = 0; kind == slot_kind::list_last && s + 1 < starts.size(); ++s) {
            // Where slots are checked, the pages hold at least the tokens of the call.
            const std::int64_t in_call = made.starts[s + 1] - made.starts[s];
            const std::int64_t needed = in_call - (starts[s + 1] - starts[s] - 1) * cache.page_size;
            const std::int64_t smallest = checked ? std::max<std::int64_t>(needed, 1) : 1;
            made.last_page_len.push_back(static_cast<std::int32_t>(numbers.integer(smallest, cache.page_size)));
        }
        made.slots = kind == slot_kind::list_last
                         ? rw::by_page_list(made.indptr, made.table, made.last_page_len, entries)
                         : rw::by_page_list(made.indptr, made.table, entries);
    } else {
        made.slots = paged ? rw::by_page_table(made.table, sequences, entries) : rw::by_sequence(entries);
    }
    for (std::int64_t i = 0; i < batch * tokens; ++i) {
        std::int64_t sequence = i / tokens, entry = made.first + i % tokens;
        if (!made.ids.empty()) entry = made.ids[static_cast<std::size_t>(i)];
        if (is_ragged(kind)) {
            while (made.starts[static_cast<std::size_t>(sequence + 1)] <= i) ++sequence;
            entry = made.first + i - made.starts[static_cast<std::size_t>(sequence)];
        }
        const auto s = static_cast<std::size_t>(sequence);
        const std::int64_t pages = paged ? starts[s + 1] - starts[s] : 1;
        if (kind == slot_kind::list_last) {
            // The tokens of the call are the last ones of their sequences.
            const std::int64_t length = (pages - 1) * cache.page_size + made.last_page_len[s];
            entry = length - made.starts[s + 1] + i;
        }
        std::int64_t page = sequence;
        const bool fits = entry >= 0 && entry < pages * cache.page_size;
        if (fits && paged) page = made.table[static_cast<std::size_t>(starts[s] + entry / cache.page_size)];
        made.of_token.push_back(fits && page >= 0 && page < cache.pages
                                    ? std::optional(cache_slot{page, paged ? entry % cache.page_size : entry})
                                    : std::nullopt);
    }
    return made;
}

static cache_type any_cache_type(random& numbers) {
    return all_cache_types[numbers.integer(0, std::ssize(all_cache_types) - 1)];
}

fused_case random_fused_case(random& numbers, const rw::Geometry& head) {
    fused_case c;
    c.type = all_types[numbers.integer(0, 2)], c.layout = all_layouts[numbers.integer(0, 1)];
    c.first = numbers.integer(-100000, 100000);
    c.encoding = random_twin(numbers, head);
    if (numbers.integer(0, 2) == 0) c.encoding = xpos_twin(head, {.length = 4096}), c.first = numbers.integer(0, 4000);
    c.kv_heads = numbers.integer(1, 3);
    c.q = {numbers.integer(1, 3), numbers.integer(1, 12), c.kv_heads * numbers.integer(1, 5), head.head_dim};
    // Slices of padded tensors might overlap as far as their strides tell, and wide heads need wide accesses.
    const bool wide = head.head_dim > 256;
    c.packed = numbers.integer(0, 2) == 0;
    c.axes = wide ? order::bshd : all_orders[numbers.integer(0, c.packed ? 2 : 4)];
    c.v_dim = c.packed || numbers.coin() ? head.head_dim : wide ? 512 : numbers.one_of<std::int64_t>({64, 128, 33});
    c.in_place = numbers.coin(), c.k_output = numbers.coin(), c.v_output = numbers.coin();
    c.q_norm = numbers.coin(), c.k_norm = numbers.coin(), c.one_plus = numbers.coin();
    c.weight_type = all_types[numbers.integer(0, 2)];
    if (numbers.integer(0, 3) > 0) {
        c.k_cache = any_cache_type(numbers);
        if (numbers.integer(0, 3) > 0) c.v_cache = any_cache_type(numbers);
    }
    for (auto& quantised : c.quantised)
        if (numbers.integer(0, 3) == 0) quantised = any_cache_type(numbers);
    c.scale_in_memory = numbers.coin();
    c.cache_axes = wide ? cache_order::hnd : static_cast<cache_order>(numbers.integer(0, 3));
    c.page_size = numbers.one_of<std::int64_t>({1, 4, 16, 32, 5});
    c.slots = all_slot_kinds[numbers.integer(0, std::ssize(all_slot_kinds) - 1)];
    if (is_ragged(c.slots)) c.q.batch = 1;
    return c;
}

fused_call::fused_call(const fused_case& c, random& numbers) : setup(c) {
    const std::int64_t heads[] = {c.q.heads, c.kv_heads, c.kv_heads}, dims[] = {c.q.head_dim, c.q.head_dim, c.v_dim};
    const auto add_memory = [&](std::int64_t count, std::int64_t head_dim) {
        const extents size{c.q.batch, c.q.tokens, count, head_dim};
        array x(c.type, size, numbers, c.axes);
        x.repeat(c.elements);
        memories.push_back({x, x, array(c.type, size, c.axes)});
    };
    if (c.packed) add_memory(c.q.heads + 2 * c.kv_heads, c.q.head_dim);
    for (std::size_t i = 0; i < 3; ++i) {
        const bool is_cached = i > 0 && (i == 1 ? c.k_cache : c.v_cache).has_value();
        parts[i] = {.memory = c.packed ? 0 : i,
                    .first_head = c.packed && i > 0 ? c.q.heads + (i == 2 ? c.kv_heads : 0) : 0,
                    .heads = heads[i],
                    .in_place = i < 2 && c.in_place,
                    .has_output = !c.quantised[i] && (!is_cached || (i == 1 ? c.k_output : c.v_output))};
        if (!c.packed) add_memory(heads[i], dims[i]);
    }
    const bool is_norm[] = {c.q_norm, c.k_norm};
    for (std::size_t i = 0; i < 2; ++i)
        if (is_norm[i]) weights[i] = array(c.weight_type, {1, 1, 1, c.q.head_dim}, numbers);

    const std::int64_t tokens = c.q.batch * c.q.tokens, pages = 3 * ((tokens + c.page_size - 1) / c.page_size + 2);
    const bool by_sequence = c.slots == slot_kind::by_sequence_offset || c.slots == slot_kind::by_sequence_ids ||
                             c.slots == slot_kind::by_sequence_ragged;
    const std::int64_t sequences = is_ragged(c.slots) ? 3 : c.q.batch;
    cache_memory::extents size{by_sequence ? sequences : pages,
                               by_sequence ? std::max(c.page_size, c.q.tokens) : c.page_size, c.kv_heads, c.q.head_dim};
    if (c.k_cache) caches[0].emplace(*c.k_cache, size, c.cache_axes, 0.03F, c.misalignment, c.scale_in_memory);
    slots = random_slots(c.slots, c.q.batch, c.q.tokens, size, numbers, c.checked_slots);
    size.head_dim = c.v_dim;
    if (c.v_cache) caches[1].emplace(*c.v_cache, size, c.cache_axes, 0.5F, c.misalignment, c.scale_in_memory);
    for (std::size_t i = 0; i < 3; ++i)
        if (c.quantised[i])
            quantised[i].emplace(*c.quantised[i], cache_memory::extents{c.q.batch, c.q.tokens, heads[i], dims[i]},
                                 c.cache_axes, 0.07F, c.misalignment, c.scale_in_memory);

    positions = from_offset(c.q, c.first);
    if (slots.starts.empty()) return;
    std::vector<std::int64_t> lengths;
    for (std::size_t i = 1; i < slots.starts.size(); ++i) lengths.push_back(slots.starts[i] - slots.starts[i - 1]);
    positions = ragged<std::int64_t>(lengths, c.first);
}

rw::tensor fused_call::heads_of(const rw::tensor& array, std::size_t i) const {
    if (parts[i].heads == 0) return {};
    rw::tensor t = array;
    t.data = static_cast<char*>(t.data) + parts[i].first_head * t.stride_head * std::int64_t(rw::size_of(t.type));
    t.heads = parts[i].heads;
    return t;
}

rw::fusion fused_call::fusion() {
    rw::fusion result;
    rw::head_norm* const norms[] = {&result.q_norm, &result.k_norm};
    rw::cache_tensor* const tensors[] = {&result.cache.k, &result.cache.v};
    for (std::size_t i = 0; i < 2; ++i) {
        norms[i]->epsilon = i == 0 ? 1e-6 : 1e-5, norms[i]->one_plus = setup.one_plus;
        if (!weights[i].bytes().empty())
            norms[i]->weight = weights[i].tensor().data, norms[i]->type = weights[i].type();
        if (caches[i]) *tensors[i] = caches[i]->tensor();
    }
    if (caches[0] || caches[1]) result.slots = slots.slots;
    rw::cache_tensor* const outputs[] = {&result.quantised.q, &result.quantised.k, &result.quantised.v};
    for (std::size_t i = 0; i < 3; ++i)
        if (quantised[i] && parts[i].heads > 0) *outputs[i] = quantised[i]->tensor();
    return result;
}

rw::fused_args fused_call::args() {
    rw::fused_args result;
    result.rotation.layout = setup.layout, result.rotation.target = &setup.encoding.ours;
    result.rotation.target_positions = positions.given;
    result.with = fusion();
    rw::tensor* const in[] = {&result.rotation.q_in, &result.rotation.k_in, &result.v_in};
    rw::tensor* const out[] = {&result.rotation.q_out, &result.rotation.k_out, &result.v_out};
    for (std::size_t i = 0; i < 3; ++i) {
        memory& m = memories[parts[i].memory];
        *in[i] = heads_of(m.in.tensor(), i);
        if (parts[i].has_output) *out[i] = parts[i].in_place ? *in[i] : heads_of(m.out.tensor(), i);
    }
    return result;
}

void norm_alone(rw::layout_kind layout, const rw::tensor& x, const rw::head_norm& norm, const rw::Encoding& encoding,
                const std::function<void(const rw::fused_args&)>& run) {
    const std::vector<std::int64_t> zeros(static_cast<std::size_t>(x.tokens), 0);
    rw::fused_args args;
    args.rotation.layout = layout, args.rotation.target = &encoding;
    args.rotation.q_in = args.rotation.q_out = x;
    args.rotation.target_positions = rw::ids(std::span<const std::int64_t>(zeros));
    args.with.q_norm = norm;
    run(args);
}

std::vector<double> composed(fused_call& call, std::size_t i, const std::function<void(const rw::fused_args&)>& fused,
                             const std::function<void(const rw::tensor& q, const rw::tensor& k)>& rotate) {
    const array& before = call.memories[call.parts[i].memory].before;
    if (i == 2 || call.parts[i].heads == 0) return before.values();
    array floats(rw::element_type::f32, before.size());
    floats.set(before.values());
    const rw::tensor x = call.heads_of(floats.tensor(), i), none{};
    const rw::fusion fusion = call.fusion();
    const rw::head_norm& norm = i == 0 ? fusion.q_norm : fusion.k_norm;
    // At position 0 an encoding without magnitudes changes nothing.
    if (norm.weight != nullptr)
        norm_alone(call.setup.layout, x, norm, rw::make_encoding(call.setup.encoding.ours.geometry, rw::Default{}),
                   fused);
    rotate(i == 0 ? x : none, i == 1 ? x : none);
    return floats.values();
}

std::vector<cache_memory*> fused_call::written() {
    std::vector<cache_memory*> result;
    for (auto* const each : {&caches[0], &caches[1], &quantised[0], &quantised[1], &quantised[2]})
        if (*each) result.push_back(&**each);
    return result;
}

std::vector<double> fused_call::exact(std::size_t i) const {
    std::vector<double> x = memories[parts[i].memory].before.values();
    if (i == 2) return x;
    const extents& size = memories[parts[i].memory].before.size();
    const auto dim = static_cast<std::size_t>(size.head_dim);
    if (!weights[i].bytes().empty()) {
        // RMSNorm (arXiv 1910.07467): x / √(mean(x²) + epsilon) · weight.
        const std::vector<double> weight = weights[i].values();
        for (std::size_t row = 0; row < x.size(); row += dim) {
            double squares = 0;
            for (std::size_t j = 0; j < dim; ++j) squares += x[row + j] * x[row + j];
            const double factor = 1 / std::sqrt(squares / static_cast<double>(dim) + (i == 0 ? 1e-6 : 1e-5));
            for (std::size_t j = 0; j < dim; ++j) x[row + j] *= factor * (weight[j] + (setup.one_plus ? 1 : 0));
        }
    }
    return oracle::rotate(shape_of(size, setup.encoding.ours.geometry, setup.layout), std::move(x),
                          setup.encoding.exact, positions.exact, i == 0 ? oracle::role::query : oracle::role::key);
}

std::string fused_call::compare(const std::array<std::vector<double>, 3>& heads, bool is_exact) {
    for (std::size_t m = 0; m < memories.size(); ++m) {
        const memory& x = memories[m];
        const auto count = static_cast<std::size_t>(x.in.size().heads),
                   dim = static_cast<std::size_t>(x.in.size().head_dim);
        const std::vector<double> before = x.before.values(), in = x.in.values(), out = x.out.values(),
                                  untouched = array(x.out.type(), x.out.size()).values();
        for (std::size_t row = 0; row * dim < in.size(); ++row) {
            const auto head = static_cast<std::int64_t>(row % count);
            std::size_t i = 0;
            while (parts[i].memory != m || head >= parts[i].first_head + parts[i].heads) ++i;
            const part& p = parts[i];
            const std::span<const double> exact(heads[i].data() + row * dim, dim);
            double squares = 0;
            for (const double value : exact) squares += value * value;
            const bool normed = i < 2 && !weights[i].bytes().empty();
            const double room = is_exact || i == 2 ? 0 : (normed ? 2e-6 : 4e-7) * std::sqrt(squares);
            for (std::size_t j = row * dim; j < (row + 1) * dim; ++j) {
                const bool right =
                    (p.has_output && p.in_place ? within(in[j], exact[j - row * dim], room, x.in.format())
                                                : in[j] == before[j]) &&
                    (p.has_output && !p.in_place ? within(out[j], exact[j - row * dim], room, x.out.format())
                                                 : out[j] == untouched[j]);
                if (!right)
                    return std::string(1, "qkv"[i]) + ": head row " + std::to_string(row) + " element " +
                           std::to_string(j - row * dim) + " is " + std::to_string(in[j]) + " in the input and " +
                           std::to_string(out[j]) + " in the output, exact is " + std::to_string(exact[j - row * dim]);
            }
            const auto token = row / count;
            if (quantised[i]) {
                const auto tokens = static_cast<std::size_t>(setup.q.tokens);
                const cache_slot slot{static_cast<std::int64_t>(token / tokens),
                                      static_cast<std::int64_t>(token % tokens)};
                const std::string wrong = quantised[i]->check(slot, head - p.first_head, exact, room);
                if (!wrong.empty()) return std::string("the quantised output of ") + "qkv"[i] + ", " + wrong;
            }
            if (i == 0 || !caches[i - 1] || !slots.of_token[token]) continue;
            const std::string wrong = caches[i - 1]->check(*slots.of_token[token], head - p.first_head, exact, room);
            if (!wrong.empty()) return std::string("the cache of ") + "qkv"[i] + ", " + wrong;
        }
        if (!x.in.guards_intact() || !x.out.guards_intact()) return "bytes around a tensor changed";
    }
    for (const cache_memory* const each : written()) {
        const std::string wrong = each->check_rest();
        if (!wrong.empty()) return "a cache or a quantised output: " + wrong;
    }
    return {};
}

std::string describe(const fused_case& c) {
    const rw::Geometry& g = c.encoding.ours.geometry;
    const auto name = [](const auto& cache) { return std::string(cache ? rw::to_string(*cache) : "none"); };
    std::ostringstream text;
    text << to_string(c.type) << ' ' << to_string(c.layout) << " head_dim " << g.head_dim << " width " << g.width()
         << " at " << g.rotary_offset << ", v " << c.v_dim << ", batch " << c.q.batch << " tokens " << c.q.tokens
         << " heads " << c.q.heads << '/' << c.kv_heads << (c.packed ? ", packed" : "") << ", order "
         << static_cast<int>(c.axes) << (c.in_place ? ", in place" : ", out of place") << ", outputs " << c.k_output
         << c.v_output << ", norms " << c.q_norm << c.k_norm << c.one_plus << ", caches " << name(c.k_cache) << ' '
         << name(c.v_cache) << ", quantised " << name(c.quantised[0]) << ' ' << name(c.quantised[1]) << ' '
         << name(c.quantised[2]) << (c.scale_in_memory ? ", scales in memory" : "") << ", axes "
         << static_cast<int>(c.cache_axes) << " pages of " << c.page_size << " slots " << static_cast<int>(c.slots)
         << ", '" << c.encoding.ours.expression << "' from " << c.first;
    return text.str();
}

}  // namespace test
