// Fuzz target of the C interface: the input is decoded into calls. Every buffer has exactly the bytes that its
// description states, so that AddressSanitizer detects accesses outside. A call that fails writes nothing, and a call
// that succeeds writes the elements of its outputs only.

#include <ropewalk/ropewalk.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "check.hpp"

using fuzz::byte_stream, fuzz::must;

namespace {

constexpr std::int64_t numbers[] = {0,         1,         2,          -1,        5,
                                    63,        1 << 20,   -(1 << 20), 1LL << 31, 1LL << 40,
                                    1LL << 60, 1LL << 61, INT64_MAX,  INT64_MIN, INT64_MAX - 2};

/// True once in 16 bytes of arbitrary input.
bool rarely(byte_stream& in) { return in.below(16) == 15; }

/// A copy of a struct in memory of exactly its stated size, or NULL.
class argument {
public:
    argument() = default;
    template <class Struct>
    argument(byte_stream& in, const Struct& value, bool may_be_null = false) {
        const std::uint8_t kind = in.take<std::uint8_t>();
        refused = kind == 251 || kind == 252 || kind == 253 || (kind == 250 && !may_be_null);
        if (kind == 250) return;
        const std::size_t size = kind == 251 ? sizeof value - 8 : kind >= 253 ? sizeof value + 8 : sizeof value;
        bytes_ = std::make_unique<unsigned char[]>(size);
        std::memcpy(bytes_.get(), &value, std::min(size, sizeof value));
        const std::size_t stated = kind == 252 ? 0 : size;
        std::memcpy(bytes_.get(), &stated, sizeof stated);
        if (kind == 253) bytes_[size - 1] = 1;  // a member of a later version
    }
    template <class Struct>
    [[nodiscard]] const Struct* as() const {
        return reinterpret_cast<const Struct*>(bytes_.get());
    }
    bool refused = false;  ///< no call accepts this argument

private:
    std::unique_ptr<unsigned char[]> bytes_;
};

std::size_t size_of(std::int32_t type) { return type == ROPEWALK_F64 ? 8 : type == ROPEWALK_F32 ? 4 : 2; }

/// Values of an element type, of at most 1, or arbitrary bits.
void fill(std::vector<std::byte>& memory, std::int32_t type, std::uint32_t seed, bool arbitrary) {
    const std::size_t size = size_of(type);
    for (std::size_t i = 0; i + size <= memory.size(); i += size) {
        seed = seed * 1664525U + 1013904223U;
        const double value = static_cast<std::int32_t>(seed) * 0x1p-31;
        const auto single = static_cast<float>(value);
        const auto half = static_cast<std::uint16_t>(seed >> 16U & (type == ROPEWALK_F16 ? 0xbbffU : 0xbf7fU));
        if (arbitrary) {
            const std::uint64_t bits = seed * 0x9e3779b97f4a7c15ULL;
            std::memcpy(&memory[i], &bits, size);
        } else if (type == ROPEWALK_F64) {
            std::memcpy(&memory[i], &value, size);
        } else {
            std::memcpy(&memory[i], type == ROPEWALK_F32 ? static_cast<const void*>(&single) : &half, size);
        }
    }
}

struct encoding_case {
    std::shared_ptr<ropewalk_encoding> encoding;
    std::int64_t head_dim = 0, first = 0, pairs = 0;  ///< elements [first, first + 2 · pairs) rotate
};

encoding_case make_encoding(byte_stream& in) {
    constexpr const char* expressions[] = {"default",
                                           "linear:8",
                                           "truncated:64",
                                           "yarn:8,original_length=4096",
                                           "xpos:512",
                                           "randomized:4096,seed=1",
                                           "mrope:[1,1,2]",
                                           "dynamic:4,original_length=64",
                                           "llama3:8,original_length=512",
                                           "power:0.5|linear:2",
                                           "randomized_sorted:512",
                                           "longrope:[2],short_factor=[1],original_length=8",
                                           "ntk:4|xpos:64",
                                           "proportional:0.5"};
    constexpr std::int64_t head_dims[] = {8, 16, 2, 4, 64, 80, 128, 20, 7, 0, -2};
    ropewalk_geometry geometry{};
    geometry.head_dim = rarely(in) ? in.pick(numbers) : in.pick(head_dims);
    geometry.rotary_offset = rarely(in) ? in.pick(numbers) : in.below(3) == 2 ? 2 : 0;
    geometry.rotary_dim = rarely(in) ? in.pick(numbers) : in.below(3) == 2 ? geometry.head_dim / 4 * 2 : 0;
    geometry.base = rarely(in) ? in.take<double>() : 10000;
    geometry.sequence_length = rarely(in) ? in.pick(numbers) : 0;
    geometry.original_length = rarely(in) ? in.pick(numbers) : 0;
    geometry.layout = rarely(in) ? in.take<std::int32_t>() : 1 + static_cast<int>(in.below(2));
    geometry.reserved = rarely(in) ? 1 : 0;
    std::string expression = in.pick(expressions);
    if (rarely(in)) {
        expression = in.text(in.below(40));
        // Such a policy draws all positions for each call: up to 8 GiB.
        if (expression.find("randomized") != std::string::npos) return {};
    }
    const argument given(in, geometry);
    auto* made = reinterpret_cast<ropewalk_encoding*>(&geometry);
    const int result = ropewalk_encoding_create(given.as<ropewalk_geometry>(), expression.c_str(), &made);
    must((result == ROPEWALK_OK) == (made != nullptr), "a failed call stores NULL");
    must(result != ROPEWALK_OK || !given.refused, "a struct of another size is refused");
    if (result != ROPEWALK_OK) return {};
    encoding_case e{{made, ropewalk_encoding_destroy},
                    ropewalk_encoding_head_dim(made),
                    geometry.rotary_offset,
                    ropewalk_encoding_pairs(made)};
    must(e.head_dim == geometry.head_dim && e.first >= 0 && e.first + 2 * e.pairs <= e.head_dim, "pairs fit the head");
    std::vector<double> frequencies(static_cast<std::size_t>(e.pairs));
    must(ropewalk_encoding_inv_freq(made, frequencies.data(), e.pairs) == ROPEWALK_OK, "frequencies can be read");
    must(ropewalk_encoding_inv_freq(made, frequencies.data(), e.pairs + 1) != ROPEWALK_OK, "a wrong count is refused");
    for (const double frequency : frequencies)
        must(frequency >= 0 && frequency < 6.283186, "a frequency is at most one turn per token");
    return e;
}

/// The extents of a call.
struct shape {
    std::int64_t batch, tokens, heads[2];  ///< of q and of k
    std::int32_t type;
};

shape make_shape(byte_stream& in) {
    constexpr std::int64_t batches[] = {1, 2, 3, 1, 0}, tokens[] = {1, 2, 3, 5, 17, 0, 40}, heads[] = {1, 2, 3, 8, 0};
    const std::int64_t keys = in.pick(heads);
    shape s{in.pick(batches), in.pick(tokens), {keys * (1 + static_cast<std::int64_t>(in.below(3))), keys}, 0};
    s.type = 1 + static_cast<std::int32_t>(in.below(4));
    return s;
}

/// A tensor in memory of exactly its bytes.
struct tensor_case {
    ropewalk_view view{};
    std::vector<std::byte> memory, before;
    std::int64_t start = 0;  ///< byte of the element [0, 0, 0, 0]
    bool usable = true;      ///< false: the view describes more memory than there is, so that its call must be refused
    bool arbitrary = false;  ///< NaN and infinity may occur

    /// Calls visit(byte, element) for the first byte of every head.
    template <class Visit>
    void for_each_head(const Visit& visit) const {
        for (std::int64_t b = 0; b < view.batch; ++b) {
            for (std::int64_t t = 0; t < view.tokens; ++t) {
                for (std::int64_t h = 0; h < view.heads; ++h) {
                    const auto at = b * view.stride_batch + t * view.stride_token + h * view.stride_head;
                    visit(static_cast<std::size_t>(start + at * static_cast<std::int64_t>(size_of(view.type))));
                }
            }
        }
    }
    [[nodiscard]] bool empty() const { return memory.empty(); }
    /// Returns whether an extent of 0 makes the other ones meaningless.
    [[nodiscard]] bool no_tokens() const { return view.batch == 0 || view.tokens == 0 || view.heads == 0; }
    void set_memory() {
        before = memory;
        if (usable) view.data = memory.data() + start;
    }
};

tensor_case make_tensor(byte_stream& in, const shape& s, std::int64_t heads, std::int64_t head_dim) {
    tensor_case c;
    ropewalk_view& v = c.view;
    v.batch = s.batch, v.tokens = s.tokens, v.heads = heads, v.head_dim = head_dim, v.type = s.type;
    if (rarely(in)) v.batch = in.pick(numbers);
    if (rarely(in)) v.tokens = in.pick(numbers);
    if (rarely(in)) v.heads = in.pick(numbers);
    if (rarely(in)) v.head_dim = in.pick(numbers);
    if (rarely(in)) v.type = static_cast<std::int32_t>(in.below(6));
    v.reserved = rarely(in) ? 1 : 0;
    // Axes from the inside to the outside, with gaps between their entries.
    std::array<std::pair<std::int64_t, std::int64_t*>, 3> axes{
        {{v.heads, &v.stride_head}, {v.tokens, &v.stride_token}, {v.batch, &v.stride_batch}}};
    const std::size_t order = in.below(6);
    for (std::size_t i = 0; i < order; ++i) std::next_permutation(axes.begin(), axes.end());
    constexpr std::int64_t gaps[] = {0, 0, 1, 8};
    __int128 span = std::clamp<std::int64_t>(v.head_dim, 0, INT32_MAX);
    for (const auto& [extent, stride] : axes) {
        *stride = static_cast<std::int64_t>(span + in.pick(gaps));
        if (rarely(in)) *stride = -*stride;
        if (rarely(in)) *stride = in.pick(numbers);
        span = static_cast<__int128>(extent) * (*stride < 0 ? -static_cast<__int128>(*stride) : *stride);
        span = std::clamp<__int128>(span, 0, INT32_MAX);
    }
    c.arbitrary = rarely(in);
    // The bytes from the lowest to the highest element.
    constexpr std::int64_t most = 1 << 16;
    long double low = 0, high = static_cast<long double>(v.head_dim);
    bool filled = v.head_dim > 0;
    for (const auto& [extent, stride] : axes) {
        filled = filled && extent > 0;
        const long double reach = (static_cast<long double>(extent) - 1) * static_cast<long double>(*stride);
        (reach < 0 ? low : high) += reach;
    }
    const auto size = static_cast<std::int64_t>(size_of(v.type));
    const bool misaligned = rarely(in);
    if (!filled) {
        v.data = rarely(in) ? nullptr : &c;
        c.usable = false;
    } else if (high - low > most) {
        alignas(64) static std::byte nothing[64];
        v.data = nothing, c.usable = false;
    } else {
        c.start = static_cast<std::int64_t>(-low) * size + (misaligned ? 1 : 0);
        c.memory.resize(static_cast<std::size_t>(static_cast<std::int64_t>(high - low) * size + (misaligned ? 1 : 0)));
        fill(c.memory, v.type, in.take<std::uint8_t>(), c.arbitrary);
        c.set_memory();
    }
    return c;
}

/// A tensor of the same shape, strides and values in other memory.
tensor_case copy_of(const tensor_case& c) {
    tensor_case copy = c;
    copy.memory = c.before;
    copy.set_memory();
    return copy;
}

/// Checks the memory of a call. `output` is false for an input, which no call writes.
void check_memory(const tensor_case& c, bool output, bool in_place, const encoding_case& e) {
    if (c.empty()) return;
    if (!output) return must(c.memory == c.before, "a failed call and an input leave memory unchanged");
    const auto size = static_cast<std::int64_t>(size_of(c.view.type));
    const auto first = static_cast<std::size_t>(in_place ? e.first * size : 0);
    const auto last = static_cast<std::size_t>(in_place ? (e.first + 2 * e.pairs) * size : e.head_dim * size);
    std::vector<std::byte> expected = c.before;
    c.for_each_head([&](std::size_t at) {
        std::copy(c.memory.data() + at + first, c.memory.data() + at + last, expected.data() + at + first);
    });
    must(c.memory == expected, "a call writes the elements of its outputs only");
}

/// Checks that two tensors of one shape have the same elements.
void check_equal(const tensor_case& a, const tensor_case& b) {
    if (a.empty() || a.arbitrary) return;
    std::vector<std::size_t> heads;
    b.for_each_head([&](std::size_t at) { heads.push_back(at); });
    const auto bytes = static_cast<std::size_t>(a.view.head_dim) * size_of(a.view.type);
    std::size_t i = 0;
    a.for_each_head([&](std::size_t at) {
        must(std::memcmp(a.memory.data() + at, b.memory.data() + heads[i++], bytes) == 0,
             "rotations in place, to outputs and prepared ones agree to the bit");
    });
}

/// Positions with their memory.
struct positions_case {
    ropewalk_positions positions{};
    std::vector<std::byte> memory;
};

template <class T>
void write_ids(byte_stream& in, std::vector<std::byte>& memory, std::size_t count, bool bounds, std::int64_t tokens) {
    memory.resize(count * sizeof(T));
    const bool wild = rarely(in);
    std::int64_t position = bounds ? 0 : in.take<std::int8_t>();
    for (std::size_t i = 0; i < count; ++i) {
        const auto id = static_cast<T>(wild ? in.pick(numbers) : position);
        std::memcpy(&memory[i * sizeof(T)], &id, sizeof id);
        position += bounds ? static_cast<std::int64_t>(in.below(4)) : in.below(8) == 7 ? -3 : 1;
        if (bounds && (position > tokens || i + 2 >= count)) position = tokens;
    }
}

positions_case make_positions(byte_stream& in, std::int64_t batch, std::int64_t tokens) {
    positions_case c;
    ropewalk_positions& p = c.positions;
    p.kind = rarely(in) ? in.take<std::int32_t>() : static_cast<std::int32_t>(in.below(6));
    p.reserved = rarely(in) ? 1 : 0;
    const bool ids = p.kind == ROPEWALK_IDS32 || p.kind == ROPEWALK_IDS64;
    const bool bounds = p.kind == ROPEWALK_CU_SEQLENS32 || p.kind == ROPEWALK_CU_SEQLENS64;
    if (!ids || rarely(in)) p.first = rarely(in) ? in.pick(numbers) : in.take<std::int8_t>();
    if (!ids && !bounds) return c;
    constexpr std::int64_t few = 64;
    p.count = bounds ? 2 + static_cast<std::int64_t>(in.below(4)) : std::clamp<std::int64_t>(tokens, 0, few);
    if (rarely(in)) p.count += static_cast<std::int64_t>(in.below(3)) - 1;
    p.rows = in.below(2) == 0 ? 0 : std::clamp<std::int64_t>(batch, 0, few);
    p.axes = in.below(4) == 3 ? 3 : 0;
    if (rarely(in)) p.stride_row = p.count + static_cast<std::int64_t>(in.below(4));
    if (rarely(in)) p.stride_axis = p.count * 2;
    const std::int64_t rows = p.rows == 0 ? 1 : p.rows, axes = p.axes == 0 ? 1 : p.axes;
    const std::int64_t stride_row = p.stride_row == 0 ? p.count : p.stride_row;
    const std::int64_t stride_axis = p.stride_axis == 0 ? rows * stride_row : p.stride_axis;
    const std::int64_t entries = bounds ? p.count : (rows - 1) * stride_row + (axes - 1) * stride_axis + p.count;
    const auto size = static_cast<std::size_t>(std::max<std::int64_t>(entries, 0));
    const bool narrow = p.kind == ROPEWALK_IDS32 || p.kind == ROPEWALK_CU_SEQLENS32;
    narrow ? write_ids<std::int32_t>(in, c.memory, size, bounds, tokens)
           : write_ids<std::int64_t>(in, c.memory, size, bounds, tokens);
    p.data = rarely(in) ? nullptr : c.memory.data();
    if (p.data == nullptr && entries == 0 && rarely(in)) p.count = -1;
    return c;
}

/// Positions that no call with tokens accepts.
positions_case refused_positions() {
    positions_case c;
    c.memory.resize(8);
    c.positions.kind = ROPEWALK_IDS64, c.positions.count = -1, c.positions.data = c.memory.data();
    return c;
}

/// Options with their table and thread pool.
struct options_case {
    ropewalk_options options{};
    ropewalk_table table{};
    ropewalk_thread_pool pool{};
    std::vector<std::byte> cos, sin;
    argument table_argument, pool_argument, given;

    /// Returns whether no call accepts the options.
    [[nodiscard]] bool refused() const {
        const bool used = given.as<ropewalk_options>() != nullptr;
        return given.refused || (used && (table_argument.refused || pool_argument.refused));
    }
};

/// Runs the tasks in reverse order.
void run_backwards(void* /*pool*/, int count, void (*task)(void* argument, int index), void* argument) {
    for (int i = count - 1; i >= 0; --i) task(argument, i);
}

void make_table(byte_stream& in, ropewalk_table& t, std::vector<std::byte>& cos, std::vector<std::byte>& sin,
                const shape& s, const encoding_case& e) {
    t.type = rarely(in) ? static_cast<std::int32_t>(in.below(6)) : s.type;
    t.by_token = static_cast<std::int32_t>(in.below(2));
    t.rows = t.by_token == 1 ? s.tokens : 70;
    t.columns = e.pairs * (1 + static_cast<std::int64_t>(in.below(2))) + (rarely(in) ? 1 : 0);
    t.batch = t.by_token == 1 && in.below(2) == 1 ? s.batch : 0;
    if (rarely(in)) t.rows = static_cast<std::int64_t>(in.below(4));
    if (rarely(in)) t.stride_row = t.columns + static_cast<std::int64_t>(in.below(4));
    const std::int64_t batch = t.batch == 0 ? 1 : t.batch, stride = t.stride_row == 0 ? t.columns : t.stride_row;
    if (rarely(in)) t.stride_batch = t.rows * stride + 3;
    const std::int64_t stride_batch = t.stride_batch == 0 ? t.rows * stride : t.stride_batch;
    const std::int64_t entries = t.rows > 0 ? (batch - 1) * stride_batch + (t.rows - 1) * stride + t.columns : 0;
    for (auto* const values : {&cos, &sin}) {
        values->resize(static_cast<std::size_t>(std::max<std::int64_t>(entries, 0)) * size_of(t.type));
        fill(*values, t.type, in.take<std::uint8_t>(), false);
    }
    t.cos = rarely(in) ? nullptr : cos.data(), t.sin = sin.data();
}

void make_options(byte_stream& in, options_case& c, const shape& s, const encoding_case& e) {
    constexpr std::int32_t limits[] = {0, 1, 2, 3, 4096, 4097, -1};
    ropewalk_options& o = c.options;
    if (in.below(4) == 0) return;  // NULL
    o.direction = rarely(in) ? in.take<std::int32_t>() : static_cast<std::int32_t>(in.below(4));
    o.threads = in.pick(limits);
    o.fresh_output = rarely(in) ? in.take<std::int32_t>() : static_cast<std::int32_t>(in.below(2));
    o.reserved = rarely(in) ? 1 : 0;
    if (in.below(4) == 3) {
        c.pool.run = rarely(in) ? nullptr : run_backwards, c.pool.size = static_cast<std::int32_t>(in.below(5));
        c.pool_argument = argument(in, c.pool, true);
        o.pool = c.pool_argument.as<ropewalk_thread_pool>();
    }
    if (in.below(4) == 3) {
        make_table(in, c.table, c.cos, c.sin, s, e);
        c.table_argument = argument(in, c.table, true);
        o.table = c.table_argument.as<ropewalk_table>();
    }
    c.given = argument(in, o, true);
}

void check_result(int result, bool refused) {
    must(result == ROPEWALK_OK || result == ROPEWALK_INVALID_ARGUMENT || result == ROPEWALK_UNSUPPORTED ||
             result == ROPEWALK_OUT_OF_MEMORY,
         "a call succeeds or refuses its arguments");
    if (result == ROPEWALK_OK) return must(!refused, "invalid arguments are refused");
    const std::size_t length = std::strlen(ropewalk_last_error());
    must(length > 0 && length < 1024, "a failure has a message");
}

/// q and k of a call, of which one may be absent.
struct pair_of_tensors {
    tensor_case cases[2];
    argument views[2];
    bool exists[2], usable = true, refused = false;

    pair_of_tensors(byte_stream& in, const shape& s, const encoding_case& e) {
        const std::size_t absent = in.below(4);
        for (std::size_t i = 0; i < 2; ++i) {
            exists[i] = absent != i;
            if (!exists[i]) continue;
            cases[i] = make_tensor(in, s, s.heads[i], e.head_dim);
            set(in, i);
        }
    }
    /// Copies in other memory.
    pair_of_tensors(byte_stream& in, const pair_of_tensors& from) {
        for (std::size_t i = 0; i < 2; ++i) {
            exists[i] = from.exists[i];
            if (!exists[i]) continue;
            cases[i] = copy_of(from.cases[i]);
            set(in, i);
        }
    }
    [[nodiscard]] const ropewalk_view* view(std::size_t i) const {
        return exists[i] ? views[i].as<ropewalk_view>() : nullptr;
    }
    [[nodiscard]] void* data(std::size_t i) { return exists[i] ? cases[i].view.data : nullptr; }
    void check(bool output, bool in_place, const encoding_case& e) const {
        for (std::size_t i = 0; i < 2; ++i) {
            if (exists[i]) check_memory(cases[i], output && view(i) != nullptr, in_place, e);
        }
    }

private:
    void set(byte_stream& in, std::size_t i) {
        views[i] = argument(in, cases[i].view, true);
        usable = usable &&
                 (cases[i].usable || cases[i].view.batch == 0 || cases[i].view.tokens == 0 || cases[i].view.heads == 0);
        refused = refused || views[i].refused;
    }
};

void rotate(byte_stream& in, const encoding_case& e) {
    const shape s = make_shape(in);
    pair_of_tensors tensors(in, s, e);
    const positions_case p = tensors.usable ? make_positions(in, s.batch, s.tokens) : refused_positions();
    options_case o;
    make_options(in, o, s, e);
    const argument positions(in, p.positions);
    const bool refused = positions.refused || o.refused() || !tensors.usable;
    const auto* const options = o.given.as<ropewalk_options>();
    const auto* const at = positions.as<ropewalk_positions>();
    pair_of_tensors inputs(in, tensors), outputs(in, tensors);
    const int result = ropewalk_rotate(tensors.view(0), tensors.view(1), e.encoding.get(), at, options);
    check_result(result, refused || tensors.refused);
    tensors.check(result == ROPEWALK_OK, true, e);
    const int out_of_place = ropewalk_rotate_to(inputs.view(0), inputs.view(1), outputs.view(0), outputs.view(1),
                                                e.encoding.get(), at, options);
    check_result(out_of_place, refused || inputs.refused || outputs.refused);
    inputs.check(false, false, e);
    outputs.check(out_of_place == ROPEWALK_OK, false, e);
    if (result != ROPEWALK_OK || out_of_place != ROPEWALK_OK) return;
    for (std::size_t i = 0; i < 2; ++i) {
        if (tensors.view(i) != nullptr && outputs.view(i) != nullptr) check_equal(tensors.cases[i], outputs.cases[i]);
    }
}

void rerotate(byte_stream& in, const encoding_case& source, const encoding_case& target) {
    const shape s = make_shape(in);
    pair_of_tensors keys(in, s, target);
    if (!keys.exists[1]) return;
    const bool usable = keys.cases[1].usable;
    const positions_case before = make_positions(in, s.batch, s.tokens);
    const positions_case after = usable ? make_positions(in, s.batch, s.tokens) : refused_positions();
    options_case o;
    make_options(in, o, s, target);
    const argument from(in, before.positions), to(in, after.positions);
    pair_of_tensors outputs(in, keys);
    const bool in_place = in.below(2) == 0;
    const int result = ropewalk_rerotate(keys.view(1), in_place ? nullptr : outputs.view(1), source.encoding.get(),
                                         from.as<ropewalk_positions>(), target.encoding.get(),
                                         to.as<ropewalk_positions>(), o.given.as<ropewalk_options>());
    const bool empty = keys.cases[1].no_tokens();
    check_result(result, from.refused || to.refused || keys.views[1].refused || keys.view(1) == nullptr ||
                             (!usable && !empty) || o.refused());
    const bool written_in_place = in_place || outputs.view(1) == nullptr;
    check_memory(keys.cases[1], result == ROPEWALK_OK && written_in_place, true, target);
    check_memory(outputs.cases[1], result == ROPEWALK_OK && !written_in_place, false, target);
}

void cos_sin(byte_stream& in, const encoding_case& e) {
    constexpr std::int64_t counts[] = {1, 2, 7, 33, 0, -1, INT64_MIN};
    const std::int64_t tokens = in.pick(counts);
    const std::int64_t columns = e.pairs * (1 + static_cast<std::int64_t>(in.below(3))) + (rarely(in) ? 1 : 0);
    const auto count = static_cast<std::size_t>(std::max<std::int64_t>(tokens, 0) * columns);
    std::vector<float> cos(count, 7), sin(count, 7);
    const positions_case p = make_positions(in, 1, tokens);
    options_case o;
    make_options(in, o, {}, e);
    const argument positions(in, p.positions);
    float* const second = rarely(in) ? cos.data() : sin.data();
    const int result = ropewalk_cos_sin(e.encoding.get(), positions.as<ropewalk_positions>(), tokens, columns,
                                        cos.data(), second, o.given.as<ropewalk_options>());
    check_result(result, positions.refused || tokens < 0 || o.refused() || (second == cos.data() && count != 0));
    for (std::size_t i = 0; i < count; ++i) {
        if (result == ROPEWALK_OK) {
            must(std::abs(cos[i] * cos[i] + sin[i] * sin[i] - 1) < 1e-6F, "cosines and sines are those of an angle");
        } else {
            must(cos[i] == 7 && sin[i] == 7, "a failed call leaves memory unchanged");
        }
    }
}

void prepare(byte_stream& in, const encoding_case& e) {
    const shape s = make_shape(in);
    pair_of_tensors tensors(in, s, e);
    if (!tensors.usable) return;
    options_case o;
    make_options(in, o, s, e);
    pair_of_tensors outputs(in, tensors);
    const bool in_place = in.below(2) == 0;
    ropewalk_prepared* made = nullptr;
    const int prepared =
        ropewalk_prepare(tensors.view(0), tensors.view(1), in_place ? nullptr : outputs.view(0),
                         in_place ? nullptr : outputs.view(1), e.encoding.get(), o.given.as<ropewalk_options>(), &made);
    check_result(prepared, tensors.refused || o.refused() || (!in_place && outputs.refused));
    must((prepared == ROPEWALK_OK) == (made != nullptr), "a failed call stores NULL");
    tensors.check(false, false, e), outputs.check(false, false, e);
    if (made == nullptr) return;
    const std::unique_ptr<ropewalk_prepared, void (*)(ropewalk_prepared*)> owner(made, ropewalk_prepared_destroy);
    for (std::size_t i = 0; i < 2; ++i) {  // a NULL argument
        tensors.exists[i] = tensors.exists[i] && tensors.view(i) != nullptr;
        if (!in_place && tensors.exists[i] && outputs.view(i) == nullptr) return;
        outputs.exists[i] = outputs.exists[i] && tensors.exists[i];
    }
    const std::int64_t position = rarely(in) ? in.pick(numbers) : in.take<std::int8_t>();
    const bool with_ids = in.below(2) == 1;
    std::vector<std::int64_t> ids(static_cast<std::size_t>(s.batch * s.tokens));
    for (std::size_t i = 0; i < ids.size(); ++i)
        ids[i] =
            static_cast<std::int64_t>(static_cast<std::uint64_t>(position) + i % static_cast<std::size_t>(s.tokens));
    const auto count = static_cast<std::int64_t>(ids.size()) + (rarely(in) ? 1 : 0);
    // A wrong count needs memory of its own size: the call may look at every id.
    ids.resize(static_cast<std::size_t>(count));
    ids.shrink_to_fit();
    int result = 0;
    if (in_place) {
        result = with_ids ? ropewalk_prepared_run_ids(made, tensors.data(0), tensors.data(1), ids.data(), count)
                          : ropewalk_prepared_run(made, tensors.data(0), tensors.data(1), position);
    } else {
        result = with_ids ? ropewalk_prepared_run_ids_to(made, tensors.data(0), tensors.data(1), outputs.data(0),
                                                         outputs.data(1), ids.data(), count)
                          : ropewalk_prepared_run_to(made, tensors.data(0), tensors.data(1), outputs.data(0),
                                                     outputs.data(1), position);
    }
    check_result(result, with_ids && count != s.batch * s.tokens);
    tensors.check(result == ROPEWALK_OK && in_place, true, e);
    outputs.check(result == ROPEWALK_OK && !in_place, false, e);
    if (result != ROPEWALK_OK) return;
    // The same rotation, not prepared.
    pair_of_tensors inputs(in, tensors), expected(in, tensors);
    if (inputs.refused || expected.refused) return;
    const ropewalk_positions offset = ropewalk_offset(position);
    const auto* const options = o.given.as<ropewalk_options>();
    const int plain = ropewalk_rotate_to(inputs.view(0), inputs.view(1), expected.view(0), expected.view(1),
                                         e.encoding.get(), &offset, options);
    if (plain != ROPEWALK_OK) return;
    for (std::size_t i = 0; i < 2; ++i) {
        if (tensors.exists[i] && expected.view(i) != nullptr)
            check_equal(in_place ? tensors.cases[i] : outputs.cases[i], expected.cases[i]);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    byte_stream in(data, size);
    encoding_case encodings[2] = {make_encoding(in), make_encoding(in)};
    for (int calls = 0; calls < 6 && !in.empty(); ++calls) {
        const std::uint8_t kind = in.take<std::uint8_t>();
        const encoding_case &e = encodings[kind & 1U], &other = encodings[~kind & 1U];
        if (e.encoding == nullptr || e.head_dim > 4096) continue;
        switch (kind >> 1U & 3U) {
            case 0:
                rotate(in, e);
                break;
            case 1:
                prepare(in, e);
                break;
            case 2:
                cos_sin(in, e);
                break;
            default:
                if (other.encoding != nullptr) rerotate(in, e, other);
        }
    }
    return 0;
}
