// Positions in host memory whose values are refused, and buffers of cos_sin() that do not fit.
#include "calls.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace bad_positions_tests {
namespace {

constexpr auto layout = rw::layout_kind::half_split;
constexpr rw::Geometry head{.head_dim = 16};

std::string message_of(const rw::Encoding& e, const rw::positions& positions, const rw::cpu::options& options = {},
                       rw::element_type type = rw::element_type::f32) {
    SEEDED(numbers);
    test::array x(type, {1, 6, 2, 16}, numbers);
    const test::array before = x;
    const std::string message = test::message_of([&] { test::rotate_q(layout, x, e, positions, options); });
    CHECK((message.empty() || x == before));
    return message;
}

void refuses(const rw::Encoding& e, const rw::positions& positions, std::initializer_list<const char*> parts,
             const rw::cpu::options& options = {}) {
    const std::string message = message_of(e, positions, options);
    INFO("message: '" << message << "'");
    CHECK(test::holds(message, parts));
}

template <class I>
void refuses_ids(const rw::Encoding& e, const std::vector<I>& ids, std::initializer_list<const char*> parts,
                 const rw::cpu::options& options = {}) {
    refuses(e, rw::ids(ids), parts, options);
}

}  // namespace

TEST_CASE("cu_seqlens must begin with 0, ascend and end with the tokens", "[bad_positions]") {
    const rw::Encoding e = rw::make_encoding(head);
    const auto refuses_starts = [&](const std::vector<std::int64_t>& starts, std::initializer_list<const char*> parts) {
        refuses(e, rw::cu_seqlens(starts), parts);
        if (starts.empty()) return;
        const std::vector<std::int32_t> narrow(starts.begin(), starts.end());
        refuses(e, rw::cu_seqlens(narrow), parts);
    };
    refuses_starts({1, 6}, {"begin with 0", "got 1"});
    refuses_starts({}, {"begin with 0", "nothing"});
    refuses_starts({0, 4, 3, 6}, {"ascend", "got 3 after 4", "entry 2"});
    refuses_starts({0, 4}, {"ends with 4", "6 tokens"});
    refuses_starts({0, 7}, {"ends with 7", "6 tokens"});
    refuses_starts({0, 9, 6}, {"ascend", "got 6 after 9"});
    refuses_starts({0, -1, 6}, {"ascend", "got -1 after 0"});
    const std::int64_t one_sequence[] = {0, 6};
    refuses(e, rw::cu_seqlens(one_sequence, std::numeric_limits<std::int64_t>::max() - 2), {"9223372036854775805"});
}

TEST_CASE("offsets of sequences must leave room for their tokens", "[bad_positions][xpos]") {
    constexpr std::int64_t last = std::numeric_limits<std::int64_t>::max();
    const std::vector<std::int64_t> starts{0, 4, 6}, early{0, last - 1}, late{0, last - 2}, rows{last - 5};
    const rw::Encoding e = rw::make_encoding(head), xpos = rw::make_encoding(head, rw::XPos{});
    refuses(e, rw::cu_seqlens(starts, early), {"offset 9223372036854775806", "2 tokens of sequence 1", "64-bit"});
    CHECK(message_of(e, rw::cu_seqlens(starts, late)) == "");
    refuses(e, rw::offsets(rows), {"offset 9223372036854775802", "6 tokens of sequence 0", "64-bit"});
    const std::vector<std::int32_t> reached{35691, 35690}, beyond{0, 35694};
    refuses(xpos, rw::cu_seqlens(starts, beyond), {"xpos", "position 35695", "35694"});
    CHECK(message_of(xpos, rw::cu_seqlens(starts, reached)) == "");
    refuses(xpos, rw::offsets(std::span<const std::int32_t>(beyond).last(1)), {"xpos", "position 35699", "35694"});
    refuses(rw::make_encoding(head, "randomized"), rw::offsets(std::span(starts).first(1)), {"sequence_length"});
}

TEST_CASE("ids out of the reach of xpos are refused", "[bad_positions][xpos]") {
    const rw::Encoding e = rw::make_encoding(head, rw::XPos{});
    refuses_ids(e, std::vector<std::int32_t>{0, 1, 40000, 2, 3, 4}, {"xpos", "40000"});
    refuses_ids(e, std::vector<std::int64_t>{0, 1, -40000, 2, 3, 4}, {"xpos", "-40000"});
    refuses_ids(e, std::vector<rw::fixed_position>{{}, {}, {std::int64_t{40000} << 32}, {}, {}, {}}, {"xpos", "40000"});
    const std::int64_t starts[] = {0, 6};
    refuses(e, rw::cu_seqlens(starts, 40000), {"xpos", "40000"});
}

TEST_CASE("an index beyond the randomized length is refused", "[bad_positions]") {
    const rw::Encoding e = rw::make_encoding(head, "randomized:8");
    CHECK(message_of(e, rw::offset{2}) == "");
    refuses(e, rw::offset{3}, {"randomized:8", "8 positions", "index 8"});
    refuses(e, rw::offset{-1}, {"randomized:8", "index -1"});
    refuses_ids(e, std::vector<std::int64_t>{0, 1, 2, 9, 3, 4}, {"randomized:8", "index 9"});
    refuses_ids(e, std::vector<rw::fixed_position>(6), {"randomized:8", "indices"});
    const std::vector<std::int64_t> on_axes(18);
    refuses(e, rw::axis_ids(on_axes), {"'randomized:8'", "one position"});
    refuses(rw::make_encoding(head, "randomized"), rw::offset{1}, {"randomized", "length"});
    refuses(rw::make_encoding(head, "randomized_sorted:5"), rw::offset{0}, {"randomized_sorted", "5", "6"});
}

TEST_CASE("an id outside a table is refused", "[bad_positions][table]") {
    const std::vector<float> cos(64, 1), sin(64, 0);
    rw::cpu::options options;
    options.table = {.cos = cos.data(), .sin = sin.data(), .rows = 8, .columns = 8, .stride_row = 8};
    refuses_ids(rw::make_encoding(head), std::vector<std::int32_t>{0, 1, 2, 8, 3, 4}, {"position 8", "8 rows"},
                options);
}

TEST_CASE("cos_sin refuses what does not fit its buffers", "[bad_positions][table]") {
    const rw::Encoding e = rw::make_encoding(head);
    std::vector<float> cos(48, 7), sin(48, 7);
    const auto make = [&](std::int64_t tokens, std::int64_t columns) {
        rw::dispatch::cos_sin(layout, e, rw::offset{0}, tokens, columns, cos, sin);
    };
    CHECK_REFUSED(make(7, 8), "7 tokens", "8 columns", "56 floats", "48");
    CHECK_REFUSED(make(6, 9), "8 or 16 columns", "got 9");
    CHECK_REFUSED(make(-1, 8), "tokens", "-1");
    CHECK_REFUSED(make(std::int64_t{1} << 60, 16), "1152921504606846976 tokens", "16 columns", "48");
    CHECK_REFUSED(make(std::int64_t{1} << 62, 8), "4611686018427387904 tokens", "8 columns", "48");
    const std::vector<std::int64_t> ids(5);
    CHECK_REFUSED(rw::dispatch::cos_sin(layout, e, rw::ids(ids), 6, 8, cos, sin), "5 entries", "6 tokens");
    CHECK(cos == std::vector<float>(48, 7));
    CHECK(sin == std::vector<float>(48, 7));
    CHECK_NOTHROW(make(6, 8));
    CHECK_REFUSED(rw::dispatch::cos_sin(layout, {}, rw::offset{0}, 6, 8, cos, sin), "0 pairs", "64", "make_encoding()");
}

TEST_CASE("cos_sin refuses the other layout unless its columns do not depend on it", "[bad_positions][table]") {
    rw::Geometry named = head;
    named.layout = rw::layout_kind::interleaved;
    const rw::Encoding e = rw::make_encoding(named);
    std::vector<float> cos(96, 7), sin(96, 7);
    const auto make = [&](rw::layout_kind kind, std::int64_t columns) {
        rw::dispatch::cos_sin(kind, e, rw::offset{0}, 6, columns, cos, sin);
    };
    CHECK_REFUSED(make(rw::layout_kind::half_split, 16), "interleaved", "half_split");
    CHECK(cos == std::vector<float>(96, 7));
    CHECK_NOTHROW(make(rw::layout_kind::half_split, 8));
    CHECK_NOTHROW(make(rw::layout_kind::interleaved, 16));
}

}  // namespace bad_positions_tests
