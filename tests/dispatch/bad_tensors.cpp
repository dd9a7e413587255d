#include <dispatch/dispatch.hpp>

#include "support/catch.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace {

constexpr auto layout = rw::layout_kind::half_split;

/// A call whose arguments a test spoils; `message` also checks that not a bit was written anywhere.
struct call {
    explicit call(test::random& numbers)
        : q_memory(rw::element_type::f32, {2, 4, 4, 16}, numbers),
          k_memory(rw::element_type::f32, {2, 4, 2, 16}, numbers),
          q_out_memory(rw::element_type::f32, {2, 4, 4, 16}, numbers),
          k_out_memory(rw::element_type::f32, {2, 4, 2, 16}, numbers) {
        q = q_memory.tensor(), k = k_memory.tensor(), q_out = q_out_memory.tensor(), k_out = k_out_memory.tensor();
    }
    void in_place() { q_out = q, k_out = k; }

    std::string message() {
        const test::array before[] = {q_memory, k_memory, q_out_memory, k_out_memory};
        const std::string text =
            test::message_of([&] { dispatch::rotate(layout, q, k, q_out, k_out, encoding, where, options); });
        const bool written =
            !(before[0] == q_memory && before[1] == k_memory && before[2] == q_out_memory && before[3] == k_out_memory);
        return written ? "something was written; " + text : text;
    }

    test::array q_memory, k_memory, q_out_memory, k_out_memory;
    rw::tensor q, k, q_out, k_out;
    rw::Encoding encoding = rw::make_encoding({.head_dim = 16});
    rw::positions where = rw::offset{0};
    rw::cpu::options options;
};

/// Spoils a fresh call, in place or not, and expects an error with all the parts.
template <class F>
void check_refused(bool in_place, const F& spoil, std::initializer_list<const char*> parts) {
    SEEDED(numbers);
    call c(numbers);
    if (in_place) c.in_place();
    spoil(c);
    const std::string message = c.message();
    INFO("in place " << in_place << ", message: '" << message << "'");
    CHECK(test::holds(message, parts));
    CHECK(message.find("something was written") == std::string::npos);
}

rw::tensor moved(rw::tensor t, std::int64_t bytes) {
    t.data = static_cast<char*>(t.data) + bytes;
    return t;
}

}  // namespace

TEST_CASE("the unspoilt call works, so that the errors below are about what they say", "[bad_tensors]") {
    SEEDED(numbers);
    call c(numbers);
    CHECK(c.message() == "something was written; ");
    c.in_place();
    CHECK(c.message() == "something was written; ");
}

TEST_CASE("a head_dim other than the encoding's is refused", "[bad_tensors]") {
    check_refused(true, [](call& c) { c.encoding = rw::make_encoding({.head_dim = 18}); },
                  {"q", "head_dim 16", "head_dim 18"});
    check_refused(true, [](call& c) { c.k.head_dim = c.k_out.head_dim = 8; }, {"k", "head_dim 8", "head_dim 16"});
}

TEST_CASE("q and k of different batches or tokens are refused", "[bad_tensors]") {
    check_refused(true, [](call& c) { c.k.batch = c.k_out.batch = 1; }, {"batch 2", "batch 1"});
    check_refused(true, [](call& c) { c.k.tokens = c.k_out.tokens = 3; }, {"tokens 4", "tokens 3"});
}

TEST_CASE("head counts that do not divide are refused", "[bad_tensors]") {
    check_refused(true, [](call& c) { c.q.heads = c.q_out.heads = 3; }, {"heads", "3", "2"});
    check_refused(true, [](call& c) { c.q.heads = c.q_out.heads = 1; }, {"heads", "1", "2"});
}

TEST_CASE("an output of another shape or type is refused", "[bad_tensors]") {
    check_refused(false, [](call& c) { c.q_out.tokens = 3; }, {"q", "tokens 4", "tokens 3"});
    check_refused(false, [](call& c) { c.k_out.heads = 1; }, {"k", "heads 2", "heads 1"});
    check_refused(false, [](call& c) { c.q_out.type = rw::element_type::bf16; }, {"q", "f32", "bf16"});
    check_refused(false, [](call& c) { c.k.type = c.k_out.type = rw::element_type::f16; }, {"f32", "f16"});
    check_refused(false, [](call& c) { c.q_out = test::none(); }, {"q"});
    check_refused(false, [](call& c) { c.k = test::none(); }, {"k"});
    check_refused(false, [](call& c) { c.q_out.data = nullptr; }, {"q", "512 elements", "no memory"});
}

TEST_CASE("elements that are not contiguous are refused", "[bad_tensors]") {
    check_refused(true, [](call& c) { c.q.stride_element = c.q_out.stride_element = 2; }, {"q", "contiguous", ", 2]"});
    check_refused(false, [](call& c) { c.k_out.stride_element = -1; }, {"k", "contiguous", ", -1]"});
}

TEST_CASE("a misaligned address is refused", "[bad_tensors]") {
    check_refused(true, [](call& c) { c.q = c.q_out = moved(c.q, 2); }, {"q", "aligned", "4 bytes"});
    check_refused(false, [](call& c) { c.k_out = moved(c.k_out, 1); }, {"k", "aligned", "4 bytes"});
}

TEST_CASE("a negative extent is refused", "[bad_tensors]") {
    check_refused(true, [](call& c) { c.q.heads = c.q_out.heads = -4; }, {"q", "heads -4"});
}

TEST_CASE("an output that folds onto itself is refused", "[bad_tensors]") {
    check_refused(true, [](call& c) { c.q.stride_head = c.q_out.stride_head = 0; }, {"q", "head axis"});
    check_refused(true, [](call& c) { c.k.stride_token = c.k_out.stride_token = 0; }, {"k", "token axis"});
    check_refused(true, [](call& c) { c.q.stride_batch = c.q_out.stride_batch = 0; }, {"q", "batch axis"});
    check_refused(false, [](call& c) { c.q_out.stride_head = 8; }, {"q", "head axis"});
}

TEST_CASE("an input that folds onto itself is fine out of place", "[bad_tensors]") {
    SEEDED(numbers);
    call c(numbers);
    c.k.stride_batch = 0;
    CHECK(c.message() == "something was written; ");
}

TEST_CASE("an output that overlaps its input without being it is refused", "[bad_tensors]") {
    check_refused(false, [](call& c) { c.q_out = moved(c.q, 4); }, {"q", "overlap"});
    check_refused(false, [](call& c) { c.q_out = moved(c.q, -64); }, {"q", "overlap"});
    check_refused(false, [](call& c) { c.k_out = moved(c.k, 32); }, {"k", "overlap"});
}

TEST_CASE("queries and keys that overlap each other are refused", "[bad_tensors]") {
    check_refused(true, [](call& c) { c.k = c.q, c.k_out = c.q; }, {"q and k overlap"});
    check_refused(false, [](call& c) { c.k_out = c.q_out, c.k_out.heads = 2; }, {"overlap"});
    check_refused(false,
                  [](call& c) {
                      c.q_out = c.k, c.q_out.heads = 4, c.q_out.stride_head = 16, c.q_out.stride_token = 64,
                      c.q_out.stride_batch = 256;
                  },
                  {"overlap"});
    check_refused(false, [](call& c) { c.k_out = c.q, c.k_out.heads = 2; }, {"overlap"});
}

TEST_CASE("q in place over the memory that k still has to be read from is refused", "[bad_tensors]") {
    check_refused(false, [](call& c) { c.q_out = c.q, c.k = c.q, c.k.heads = 2; }, {"overlap"});
    check_refused(false, [](call& c) { c.q = c.q_out, c.k_out = c.k, c.q = c.k, c.q.heads = c.q_out.heads = 2; },
                  {"overlap"});
}

TEST_CASE("strides of axes with one entry do not matter in place", "[bad_tensors]") {
    SEEDED(numbers);
    test::array x(rw::element_type::f32, {1, 4, 2, 16}, numbers);
    const test::array before = x;
    rw::tensor in = x.tensor(), out = x.tensor();
    in.stride_batch = 0, out.stride_batch = 1000000;
    CHECK_NOTHROW(dispatch::rotate(layout, in, test::none(), out, test::none(), rw::make_encoding({.head_dim = 16}),
                                   rw::offset{1}));
    CHECK_FALSE(x == before);
}

TEST_CASE("a tensor with elements but without memory is refused", "[bad_tensors]") {
    check_refused(true, [](call& c) { c.q.data = c.q_out.data = nullptr, c.k = c.k_out = test::none(); },
                  {"q", "no memory"});
}

TEST_CASE("the layout that the encoding names is the only one it takes", "[bad_tensors]") {
    check_refused(
        true, [](call& c) { c.encoding = rw::make_encoding({.head_dim = 16, .layout = rw::layout_kind::interleaved}); },
        {"interleaved", "half_split"});
    SEEDED(numbers);
    call c(numbers);
    c.encoding = rw::make_encoding({.head_dim = 16, .layout = rw::layout_kind::half_split});
    CHECK(c.message() == "something was written; ");
}

TEST_CASE("rerotate refuses encodings of different shapes or layouts", "[bad_tensors]") {
    SEEDED(numbers);
    test::array k(rw::element_type::f32, {1, 4, 2, 16}, numbers);
    const test::array before = k;
    const rw::Encoding whole = rw::make_encoding({.head_dim = 16}),
                       part = rw::make_encoding({.head_dim = 16, .rotary_dim = 8}),
                       moved_part = rw::make_encoding({.head_dim = 16, .rotary_dim = 8, .rotary_offset = 8}),
                       other = rw::make_encoding({.head_dim = 16, .layout = rw::layout_kind::interleaved});
    const auto rerotate = [&](const rw::Encoding& from, const rw::Encoding& to) {
        dispatch::rerotate(layout, k.tensor(), k.tensor(), from, rw::offset{0}, to, rw::offset{1});
    };
    CHECK_REFUSED(rerotate(whole, part), "16", "8");
    CHECK_REFUSED(rerotate(part, moved_part), "at 0 and 8");
    CHECK_REFUSED(rerotate(other, whole), "interleaved", "half_split");
    CHECK_REFUSED(rerotate(whole, other), "interleaved", "half_split");
    CHECK(k == before);
}

TEST_CASE("an encoding that make_encoding() has not made is refused", "[bad_tensors]") {
    SEEDED(numbers);
    test::array k(rw::element_type::f32, {1, 2, 1, 128}, numbers);
    const test::array before = k;
    const rw::Encoding made = rw::make_encoding({.head_dim = 128}), none;
    rw::Encoding narrowed = made;
    narrowed.geometry.rotary_dim = 64;
    for (const rw::Encoding& e : {none, narrowed}) {
        CHECK_REFUSED(dispatch::rotate(layout, k.tensor(), test::none(), k.tensor(), test::none(), e, rw::offset{0}),
                      "pairs", "make_encoding()");
        CHECK_REFUSED(dispatch::rerotate(layout, k.tensor(), k.tensor(), e, rw::offset{0}, made, rw::offset{0}),
                      "pairs", "make_encoding()");
        CHECK_REFUSED(dispatch::rerotate(layout, k.tensor(), k.tensor(), made, rw::offset{0}, e, rw::offset{0}),
                      "pairs", "make_encoding()");
    }
    CHECK(k == before);
}

TEST_CASE("more elements than 64 bits count are refused", "[bad_tensors]") {
    const auto grow = [](call& c) { c.q.tokens = c.k.tokens = std::int64_t{1} << 60; };
    check_refused(false, grow, {"tokens 1152921504606846976", "2^60 elements"});
    check_refused(true, [](call& c) { c.q.tokens = std::int64_t{1} << 55; }, {"2^60 elements"});
}
