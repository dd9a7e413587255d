// Calls that are refused with their values, before anything is written.
#include <limits>

#include "cases/rotation_case.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace refusal_cases {
namespace {

using rw::element_type;
using rw::layout_kind;
using rows_are = rw::cos_sin_table::rows_are;
constexpr std::int64_t max_int64 = std::numeric_limits<std::int64_t>::max();

/// A valid rotation of q [2, 4, 4, 16] and k [2, 4, 2, 16], which a test makes invalid.
struct call {
    test::random numbers{0};
    test::array q_memory{element_type::f32, {2, 4, 4, 16}, numbers},
        k_memory{element_type::f32, {2, 4, 2, 16}, numbers}, q_out_memory = q_memory, k_out_memory = k_memory;
    std::vector<float> cos = std::vector<float>(128, 1), sin = std::vector<float>(128, 0);
    std::vector<std::int64_t> ids = std::vector<std::int64_t>(36);
    rw::Encoding encoding = rw::make_encoding({.head_dim = 16}), source{};
    rw::rotate_args args;
    rw::tensor &q = args.q_in, &k = args.k_in, &q_out = args.q_out, &k_out = args.k_out;
    rw::positions& positions = args.target_positions;
    rw::cos_sin_table& table = args.table;

    explicit call(bool in_place) {
        q = q_memory.tensor(), k = k_memory.tensor();
        q_out = in_place ? q : q_out_memory.tensor(), k_out = in_place ? k : k_out_memory.tensor();
        args.target = &encoding;
    }
    void rerotate(const rw::Encoding& from, const rw::Encoding& to) {
        q = q_out = test::none(), k_out = k;
        source = from, encoding = to, args.source = &source;
    }
    /// Makes q [1, tokens, heads, 16] out of the same memory and drops k.
    void only_q(std::int64_t tokens, std::int64_t heads = 2) {
        q.batch = 1, q.tokens = tokens, q.heads = heads, q_out = q, k = k_out = test::none();
    }
    void use_table(std::int64_t rows) {
        table.cos = cos.data() + 64, table.sin = sin.data() + 64;
        table.rows = rows, table.columns = table.stride_row = 8;
    }
    std::string message() {
        const test::array before[] = {q_memory, k_memory, q_out_memory, k_out_memory};
        const std::string text = test::refusal(args);
        const bool same =
            before[0] == q_memory && before[1] == k_memory && before[2] == q_out_memory && before[3] == k_out_memory;
        return same || text.empty() ? text : "something was written; " + text;
    }
};

using change = std::function<void(call&)>;

void refuses(bool in_place, const change& spoil, std::initializer_list<const char*> parts) {
    call c(in_place);
    spoil(c);
    const std::string message = c.message();
    INFO("in place " << in_place << ", message: '" << message << "'");
    CHECK(test::holds(message, parts));
    CHECK(message.find("something was written") == std::string::npos);
    CHECK(message.find('\n') == std::string::npos);
}
void refuses(const change& spoil, std::initializer_list<const char*> parts) { refuses(true, spoil, parts); }

void accepts(bool in_place, const change& spoil) {
    call c(in_place);
    spoil(c);
    CHECK(c.message() == "");
}

rw::tensor moved(rw::tensor t, std::int64_t bytes) {
    t.data = static_cast<char*>(t.data) + bytes;
    return t;
}
rw::Encoding encoding(const rw::Geometry& g, const char* expression = "default") {
    return rw::make_encoding(g, expression);
}

}  // namespace

TEST_CASE("valid calls are accepted", "[refusals]") {
    accepts(true, [](call&) {});
    accepts(false, [](call&) {});
    accepts(false, [](call& c) { c.k.stride_batch = 0; });  // an input may repeat elements
    // Strides of an axis with one entry do not matter, not even in place.
    accepts(true, [](call& c) { c.only_q(4), c.q.stride_batch = 0, c.q_out.stride_batch = 1000000; });
}

TEST_CASE("shapes and types that do not fit are refused", "[refusals]") {
    refuses([](call& c) { c.encoding = encoding({.head_dim = 18}); }, {"q", "head_dim 16", "head_dim 18"});
    refuses([](call& c) { c.k.head_dim = c.k_out.head_dim = 8; }, {"k", "head_dim 8", "head_dim 16"});
    refuses([](call& c) { c.k.batch = c.k_out.batch = 1; }, {"batch 2", "batch 1"});
    refuses([](call& c) { c.k.tokens = c.k_out.tokens = 3; }, {"tokens 4", "tokens 3"});
    refuses([](call& c) { c.q.heads = c.q_out.heads = 3; }, {"multiple", "3 and 2"});
    refuses([](call& c) { c.q.heads = c.q_out.heads = 1; }, {"multiple", "1 and 2"});
    refuses([](call& c) { c.q.heads = c.q_out.heads = -4; }, {"q", "heads -4"});
    refuses(false, [](call& c) { c.q_out.tokens = 3; }, {"q", "tokens 4", "tokens 3"});
    refuses(false, [](call& c) { c.k_out.heads = 1; }, {"k", "heads 2", "heads 1"});
    refuses(false, [](call& c) { c.q_out.type = element_type::bf16; }, {"q", "f32", "bf16"});
    refuses(false, [](call& c) { c.k.type = c.k_out.type = element_type::f16; }, {"f32", "f16"});
    refuses(false, [](call& c) { c.q_out = test::none(); }, {"q"});
    refuses(false, [](call& c) { c.k = test::none(); }, {"k"});
    refuses(false, [](call& c) { c.q.tokens = c.k.tokens = std::int64_t{1} << 60; },
            {"tokens 1152921504606846976", "2^60 elements"});
    refuses([](call& c) { c.q.tokens = std::int64_t{1} << 55; }, {"2^60 elements"});
}

TEST_CASE("memory that is absent, misaligned or not contiguous is refused", "[refusals]") {
    refuses([](call& c) { c.q.data = c.q_out.data = nullptr; }, {"q", "512 elements", "no memory"});
    refuses(false, [](call& c) { c.q_out.data = nullptr; }, {"q", "512 elements", "no memory"});
    refuses([](call& c) { c.only_q(4), c.q.data = c.q_out.data = nullptr; }, {"q", "no memory"});
    refuses([](call& c) { c.q = c.q_out = moved(c.q, 2); }, {"q", "not aligned", "4 bytes"});
    refuses(false, [](call& c) { c.k_out = moved(c.k_out, 1); }, {"k", "not aligned", "4 bytes"});
    refuses([](call& c) { c.q.stride_element = c.q_out.stride_element = 2; }, {"q", "contiguous", ", 2]"});
    refuses(false, [](call& c) { c.k_out.stride_element = -1; }, {"k", "contiguous", ", -1]"});
}

TEST_CASE("extents and strides near 2^63 are refused unless they do not matter", "[refusals]") {
    constexpr std::int64_t min_int64 = std::numeric_limits<std::int64_t>::min(), two_62 = std::int64_t{1} << 62;
    for (const std::int64_t stride : {two_62, max_int64, min_int64, min_int64 + 1, std::int64_t{1} << 56}) {
        for (const auto member : {&rw::tensor::stride_batch, &rw::tensor::stride_token, &rw::tensor::stride_head}) {
            refuses([&](call& c) { c.q.*member = c.q_out.*member = stride; }, {"q", "2^56 elements"});
            refuses(false, [&](call& c) { c.q.*member = stride; }, {"q", "2^56 elements"});
            refuses(false, [&](call& c) { c.k_out.*member = stride; }, {"k's output", "2^56 elements"});
            // The stride of an axis with one entry does not matter.
            for (const bool in_place : {true, false}) {
                accepts(in_place, [&](call& c) {
                    c.only_q(1, 1);
                    c.q.*member = c.q_out.*member = stride;
                    if (!in_place) c.q.stride_head = 0;
                });
            }
        }
    }
    refuses([](call& c) { c.q.stride_batch = c.q_out.stride_batch = -(std::int64_t{1} << 54); },
            {"q", "address space"});
    refuses([](call& c) { c.q.heads = c.q_out.heads = max_int64; }, {"q", "2^60 elements"});
    refuses([](call& c) { c.q.batch = c.q_out.batch = min_int64; }, {"q", "negative"});
    // Without heads, tokens may be any number.
    accepts(true, [](call& c) { c.only_q(two_62, 0), c.q.batch = c.q_out.batch = two_62; });
    // Tables and ids.
    refuses([](call& c) { c.use_table(two_62), c.table.stride_row = two_62; }, {"table", "2^56 elements"});
    refuses([](call& c) { c.use_table(-1), c.only_q(0); }, {"negative", "-1"});
    refuses(
        [](call& c) {
            c.positions = rw::ids(std::span<const std::int64_t>(c.ids).first(8), 2);
            c.positions.stride_row = two_62;
        },
        {"positions", "2^56 entries"});
}

TEST_CASE("outputs that overlap themselves, their input or each other are refused", "[refusals]") {
    refuses([](call& c) { c.q.stride_head = c.q_out.stride_head = 0; }, {"q", "head axis"});
    refuses([](call& c) { c.k.stride_token = c.k_out.stride_token = 0; }, {"k", "token axis"});
    refuses([](call& c) { c.q.stride_batch = c.q_out.stride_batch = 0; }, {"q", "batch axis"});
    refuses(false, [](call& c) { c.q_out.stride_head = 8; }, {"q", "head axis"});
    refuses(false, [](call& c) { c.q_out = moved(c.q, 4); }, {"q", "overlap"});
    refuses(false, [](call& c) { c.q_out = moved(c.q, -64); }, {"q", "overlap"});
    refuses(false, [](call& c) { c.k_out = moved(c.k, 32); }, {"k", "overlap"});
    refuses([](call& c) { c.k = c.q, c.k_out = c.q; }, {"q and k overlap"});
    refuses(false, [](call& c) { c.k_out = c.q_out, c.k_out.heads = 2; }, {"overlap"});
    const change q_over_k = [](call& c) {
        c.q_out = c.k, c.q_out.heads = 4;
        c.q_out.stride_head = 16, c.q_out.stride_token = 64, c.q_out.stride_batch = 256;
    };
    refuses(false, q_over_k, {"overlap"});
    refuses(false, [](call& c) { c.k_out = c.q, c.k_out.heads = 2; }, {"overlap"});
    // q in place over memory from which k is still to be read.
    refuses(false, [](call& c) { c.q_out = c.q, c.k = c.q, c.k.heads = 2; }, {"overlap"});
    refuses(false, [](call& c) { c.k_out = c.k, c.q = c.k, c.q_out = c.k; }, {"overlap"});
}

TEST_CASE("encodings of another layout or shape, and those not from make_encoding(), are refused", "[refusals]") {
    const rw::Encoding whole = encoding({.head_dim = 16}), part = encoding({.head_dim = 16, .rotary_dim = 8}),
                       shifted = encoding({.head_dim = 16, .rotary_dim = 8, .rotary_offset = 8}),
                       named = encoding({.head_dim = 16, .layout = layout_kind::interleaved});
    rw::Encoding narrowed = whole;
    narrowed.geometry.rotary_dim = 8;
    refuses([&](call& c) { c.encoding = named; }, {"interleaved", "half_split"});
    accepts(true, [&](call& c) { c.encoding = named, c.args.layout = layout_kind::interleaved; });
    refuses([&](call& c) { c.rerotate(whole, part); }, {"16", "8"});
    refuses([&](call& c) { c.rerotate(part, shifted); }, {"at 0 and 8"});
    refuses([&](call& c) { c.rerotate(named, whole); }, {"interleaved", "half_split"});
    refuses([&](call& c) { c.rerotate(whole, named); }, {"interleaved", "half_split"});
    for (const rw::Encoding& e : {rw::Encoding{}, narrowed}) {
        refuses([&](call& c) { c.encoding = e; }, {"pairs", "make_encoding()"});
        refuses([&](call& c) { c.rerotate(e, whole); }, {"pairs", "make_encoding()"});
        refuses([&](call& c) { c.rerotate(whole, e); }, {"pairs", "make_encoding()"});
    }
}

TEST_CASE("positions of another number, memory or kind are refused", "[refusals]") {
    const auto ids = [](const call& c, std::size_t count) { return std::span(c.ids).first(count); };
    refuses([&](call& c) { c.positions = rw::ids(ids(c, 3)); }, {"3 entries", "4 tokens"});
    refuses([&](call& c) { c.positions = rw::ids(ids(c, 12), 3); }, {"3 rows", "batch of 2"});
    refuses([&](call& c) { c.only_q(4), c.positions = rw::ids(ids(c, 8), 2); }, {"2 rows", "batch of 1"});
    refuses([&](call& c) { c.positions = rw::ids(ids(c, 8)); },
            {"one row of 8 entries", "batch of 2 with 4 tokens", "ids(values, 2)"});
    accepts(true, [&](call& c) { c.positions = rw::ids(ids(c, 9)); });
    refuses([&](call& c) { c.positions = rw::ids(ids(c, 4)), c.positions.axes = 3; }, {"one position per token", "3"});
    refuses([](call& c) { c.positions = rw::offset{max_int64 - 2}; }, {"9223372036854775805", "4 tokens", "64-bit"});
    accepts(true, [](call& c) { c.positions = rw::offset{max_int64 - 4}; });
    accepts(true, [](call& c) { c.positions = rw::offset{std::numeric_limits<std::int64_t>::min()}; });
    refuses([](call& c) { c.positions = rw::cu_seqlens(std::span<const std::int64_t>(c.ids)); },
            {"packed", "batch of 2"});
}

TEST_CASE("offsets of another number or memory, and those together with another offset, are refused", "[refusals]") {
    const auto offsets = [](
                             std::size_t count, const change& spoil = [](call&) {}) {
        return [=](call& c) { c.positions = rw::offsets(std::span(c.ids).first(count)), spoil(c); };
    };
    accepts(true, offsets(2));
    accepts(true, offsets(1));
    refuses(offsets(3), {"3 offsets", "2 batch rows"});
    refuses(offsets(0), {"0 offsets", "2 batch rows"});
    refuses(offsets(2, [](call& c) { c.positions.first = 5; }), {"exclude a common offset", "5"});
    refuses(offsets(2, [](call& c) { c.positions.offsets.data = nullptr; }), {"2 sequences", "null pointer"});
    refuses(offsets(2, [](call& c) { c.positions.offsets.data = reinterpret_cast<const char*>(c.ids.data()) + 4; }),
            {"not aligned", "8 bytes"});
    refuses(offsets(2, [](call& c) { c.positions.source = rw::positions::kind::offset; }), {"offsets per sequence"});
    refuses(offsets(2, [](call& c) { c.positions.source = rw::positions::kind::shift; }), {"offsets per sequence"});
    refuses(offsets(2, [](call& c) { c.positions.axes = 3; }), {"one position per token", "3"});
    const auto packed = [](std::size_t count, std::int64_t offset = 7) {
        return [=](call& c) {
            c.only_q(8), c.ids = {0, 3, 8}, c.ids.resize(36, offset);
            c.positions = rw::cu_seqlens(std::span<const std::int64_t>(c.ids).first(3),
                                         std::span<const std::int64_t>(c.ids).subspan(3, count));
        };
    };
    accepts(true, packed(2));
    accepts(true, packed(1, max_int64 - 5));
    refuses(packed(3), {"3 offsets", "2 sequences of cu_seqlens"});
    refuses(packed(0), {"0 offsets", "2 sequences of cu_seqlens"});
}

TEST_CASE("a shift that has no meaning or no room is refused", "[refusals][xpos]") {
    const auto shifted = [](const char* expression, std::int64_t distance, element_type type = element_type::f32) {
        return [=](call& c) {
            c.encoding = encoding({.head_dim = 16}, expression);
            c.only_q(4), c.q.type = c.q_out.type = type, c.positions = rw::shift{distance};
        };
    };
    refuses(shifted("randomized:64|linear:2", 3), {"'randomized:64|linear:2'", "no distance is the same"});
    refuses(shifted("randomized_sorted:64", 0), {"'randomized_sorted:64'", "no distance is the same"});
    // The reach counts from the distance 0, although the centre is 8192.
    refuses(shifted("xpos:length=16384", 4533, element_type::f16), {"a shift by 4533", "f16", "4532"});
    refuses(shifted("xpos:length=16384", -4533, element_type::f16), {"a shift by -4533", "f16", "4532"});
    accepts(true, shifted("xpos:length=16384", 4532, element_type::f16));
    accepts(true, shifted("xpos:length=16384", -4532, element_type::f16));
    accepts(true, shifted("linear:2", max_int64));
    accepts(true, shifted("linear:2", std::numeric_limits<std::int64_t>::min()));
    refuses([](call& c) { c.positions = rw::shift{1}, c.positions.axes = 3; }, {"one position per token", "3"});
    refuses([](call& c) { c.use_table(6), c.positions = rw::shift{-1}; }, {"position -1", "6 rows"});
}

TEST_CASE("a first position out of the reach of xpos in the element type is refused", "[refusals][xpos]") {
    const auto at = [](element_type type, std::int64_t first, std::int64_t length = 0) {
        return [=](call& c) {
            c.encoding = rw::make_encoding({.head_dim = 16}, rw::XPos{.length = length});
            c.only_q(4), c.q.type = c.q_out.type = type, c.positions = rw::offset{first};
        };
    };
    refuses(at(element_type::f16, 4530), {"xpos", "4533", "f16", "4532"});
    refuses(at(element_type::f16, -4533), {"xpos", "-4533", "f16", "4532"});
    accepts(true, at(element_type::f16, 4529));
    accepts(true, at(element_type::f16, -4532));
    refuses(at(element_type::f32, 35692), {"xpos", "35695", "f32", "35694"});
    refuses(at(element_type::bf16, 35692), {"xpos", "35695", "bf16", "35694"});
    accepts(true, at(element_type::f32, 35691));
    // A stated length moves the centre: f16 then refuses the beginning too.
    refuses(at(element_type::f16, 0, 16384), {"xpos", "position 0", "8192", "4532"});
    const auto slow =
        rw::make_encoding({.head_dim = 16}, rw::XPos{.scale_base = 1e17, .length = std::int64_t{1} << 61});
    REQUIRE(slow.has_magnitude());
    accepts(true, [&](call& c) { c.encoding = slow; });
    accepts(true, [&](call& c) { c.encoding = slow, c.positions = rw::offset{std::int64_t{1} << 61}; });
    // Each position is in reach, but between them lie more than 2^126 of magnitude.
    const rw::Encoding xpos = rw::make_encoding({.head_dim = 16}, rw::XPos{});
    const change far = [&](call& c) {
        c.rerotate(xpos, xpos), c.args.source_positions = rw::offset{-30000}, c.positions = rw::offset{30000};
    };
    refuses(far, {"xpos", "30000"});
    // A change of the attention factor takes bits of the float.
    const rw::Encoding large =
        rw::make_encoding({.head_dim = 16}, rw::XPos{}, rw::LongRope{.attention_factor_given = 0x1p60});
    const auto move = [&](std::int64_t from, std::int64_t to) {
        return [&, from, to](call& c) {
            c.rerotate(xpos, large), c.args.source_positions = rw::offset{from}, c.positions = rw::offset{to};
        };
    };
    accepts(true, move(0, 17000));
    refuses(move(0, 18696), {"longrope", "position 18699", "18696"});
    refuses(move(-17000, 17000), {"longrope", "-17000", "beyond 2^66"});
}

TEST_CASE("a re-rotation that changes the attention factor beyond float32 is refused", "[refusals]") {
    const auto with = [](double factor) {
        return rw::make_encoding({.head_dim = 16}, rw::Yarn{.factor = 1, .attention_factor_given = factor});
    };
    const rw::Encoding small = with(0x1p-70), large = with(0x1p70);
    refuses([&](call& c) { c.rerotate(small, large); }, {"yarn", "attention factor", "1.3937965749081639e+42"});
    refuses([&](call& c) { c.rerotate(large, small); }, {"yarn", "attention factor", "7.1746481373430634e-43"});
    accepts(true, [&](call& c) { c.rerotate(large, large); });
}

TEST_CASE("a table that does not fit is refused", "[refusals][table]") {
    const auto table = [](const std::function<void(rw::cos_sin_table&)>& spoil, std::int64_t first = 0) {
        return [=](call& c) { c.use_table(6), c.positions = rw::offset{first}, spoil(c.table); };
    };
    accepts(true, table([](auto&) {}));
    refuses(table([](auto&) {}, 3), {"position 6", "6 rows"});
    refuses(table([](auto&) {}, -1), {"position -1", "6 rows"});
    refuses(
        [](call& c) {
            c.use_table(6), c.ids.assign(4, 1), c.positions.source = rw::positions::kind::fixed,
                                                c.positions.data = c.ids.data(), c.positions.count = 4;
        },
        {"fractional positions"});
    refuses(table([](auto& t) { t.order = rows_are::by_token, t.rows = 3; }), {"3 rows", "4 tokens"});
    refuses(table([](auto& t) { t.order = rows_are::by_token, t.batch = 3; }), {"3 batches"});
    refuses(table([](auto& t) { t.batch = 2; }), {"one batch", "2"});
    refuses(table([](auto& t) { t.columns = 7; }), {"8 or 16 columns", "got 7"});
    refuses(table([](auto& t) { t.cos = nullptr; }), {"lacks its cosines"});
    refuses(table([](auto& t) { t.sin = nullptr; }), {"lacks its sines"});
    refuses(table([](auto& t) { t.type = element_type::f64; }), {"table of f64", "tensors of f64, got f32"});
    refuses(table([](auto& t) { t.cos = static_cast<const char*>(t.cos) + 2; }), {"aligned", "4 bytes"});
    refuses([](call& c) { c.use_table(6), c.encoding = encoding({.head_dim = 16}, "xpos"); }, {"table", "xpos"});
    refuses([](call& c) { c.use_table(6), c.encoding = {}; }, {"0 pairs", "make_encoding()"});
}

TEST_CASE("rows or batches of a table that overlap are refused, repeated ones are not", "[refusals][table]") {
    constexpr std::int64_t not_given = rw::cos_sin_table{}.stride_row;
    STATIC_REQUIRE(not_given != 0);
    STATIC_REQUIRE(rw::cos_sin_table{}.stride_batch == not_given);
    const auto table = [](std::int64_t batch, std::int64_t stride_row, std::int64_t stride_batch) {
        return [=](call& c) {
            c.use_table(4), c.table.order = rows_are::by_token, c.table.batch = batch;
            c.table.stride_row = stride_row, c.table.stride_batch = stride_batch;
        };
    };
    refuses(table(1, not_given, 0), {"4 rows", "8 columns", "lacks its stride_row"});
    refuses(table(1, 7, 0), {"8 columns", "stride_row is 7"});
    refuses(table(1, -7, 0), {"8 columns", "stride_row is -7"});
    refuses(table(2, 8, not_given), {"2 batches", "lacks its stride_batch"});
    refuses(table(2, 8, 1), {"8 columns", "stride_batch is 1"});
    accepts(true, table(1, 8, not_given));
    accepts(true, table(1, -8, not_given));
    accepts(true, table(1, 0, not_given));  // one row for all tokens
    accepts(true, table(2, 8, 0));          // one batch for all
}

TEST_CASE("several positions per token are refused without sections and for tables by index", "[refusals][mrope]") {
    const auto axes = [](
                          const char* expression, const change& spoil = [](call&) {}) {
        return [=](call& c) {
            c.encoding = encoding({.head_dim = 16}, expression);
            c.positions = rw::axis_ids(std::span<const std::int64_t>(c.ids).first(24), 2);
            spoil(c);
        };
    };
    for (const char* const expression : {"default", "linear:8", "xpos"})
        refuses(axes(expression), {expression, "one position per token", "got 3"});
    const char* const sections = "mrope:[2,3,3]";
    accepts(true, axes(sections));
    refuses(axes(sections, [](call& c) { c.positions.axes = 2; }), {"2 axes", "1 or 3"});
    refuses(axes(sections, [](call& c) { c.positions.axes = 0; }), {"0 axes"});
    refuses(axes(sections, [](call& c) { c.positions.source = rw::positions::kind::fixed; }), {"ids"});
    refuses(axes(sections, [](call& c) { c.positions.source = rw::positions::kind::cu_seqlens64; }), {"ids"});
    refuses(axes(sections, [](call& c) { c.positions = rw::axis_ids(std::span<const std::int64_t>(c.ids).first(9)); }),
            {"3 entries", "4 tokens"});
    refuses(axes(sections, [](call& c) { c.positions = rw::axis_ids(std::span<const std::int64_t>(c.ids), 3); }),
            {"3 rows", "batch of 2"});
    refuses(axes(sections, [](call& c) { c.use_table(6); }), {"table by index", "got 3"});
}

}  // namespace refusal_cases
