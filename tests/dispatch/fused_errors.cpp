// Fused calls that are refused with their values, before anything is written.
#include <ropewalk/dispatch.hpp>

#include <functional>

#include "cases/fused_case.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

/// A valid call on two rows of three tokens, which a test makes invalid. Its cache has 8 pages of 4 slots.
struct fused_call {
    test::array q{rw::element_type::bf16, {2, 3, 4, 64}}, k{rw::element_type::bf16, {2, 3, 2, 64}}, v = k;
    test::cache_memory k_cache{rw::cache_type::f8e5m2, {8, 4, 2, 64}, test::cache_order::nhd, 0.5F};
    test::cache_memory v_cache{rw::cache_type::i8, {8, 4, 2, 64}, test::cache_order::nhd};
    std::vector<std::int32_t> table{0, 1, 2, 3}, starts{0, 2, 4}, last_page_len{3, 4};
    std::vector<std::int64_t> entries{0, 1, 2, 0, 1, 2}, mapping{-1, 0, 1, 2, 3, 31}, cu_seqlens{0, 4, 6};
    float scale = 2;
    rw::Encoding encoding = rw::make_encoding({.head_dim = 64}, rw::Default{});
    rw::fused_args args;

    fused_call() {
        rw::rotate_args& rotation = args.rotation;
        rotation.target = &encoding, rotation.target_positions = rw::offset{5};
        rotation.q_in = rotation.q_out = q.tensor(), rotation.k_in = k.tensor(), args.v_in = v.tensor();
        args.with.cache = {k_cache.tensor(), v_cache.tensor()};
        map();
    }
    void map() { args.with.slots = rw::by_mapping(std::span<const std::int64_t>(mapping)); }
    void use_table() {
        args.with.slots = rw::by_page_table(table, 2, rw::ids(std::span<const std::int64_t>(entries), 2));
    }
    void use_list() {
        args.with.slots = rw::by_page_list(starts, table, rw::ids(std::span<const std::int64_t>(entries), 2));
    }
    /// One row of six tokens, which are the last ones of two sequences.
    void use_last_pages() {
        for (rw::tensor* t : {&args.rotation.q_in, &args.rotation.q_out, &args.rotation.k_in, &args.v_in})
            t->batch = 1, t->tokens = 6;
        args.with.slots =
            rw::by_page_list(starts, table, last_page_len, rw::cu_seqlens(std::span<const std::int64_t>(cu_seqlens)));
    }
};

std::string message_of(const std::function<void(fused_call&)>& change) {
    fused_call call;
    change(call);
    const auto before = std::tuple(call.q.bytes(), call.k.bytes(), call.k_cache.bytes, call.v_cache.bytes);
    const std::string message = test::message_of([&] { rw::dispatch::fused(call.args); });
    const auto after = std::tuple(call.q.bytes(), call.k.bytes(), call.k_cache.bytes, call.v_cache.bytes);
    CHECK((message.empty() || before == after));
    return message;
}

/// Checks that the changed call is refused in a message that contains all parts.
void refuses(const std::function<void(fused_call&)>& change, std::initializer_list<const char*> parts) {
    const std::string text = message_of(change);
    INFO("message: '" << text << "'");
    CHECK(test::holds(text, parts));
}

}  // namespace

TEST_CASE("valid fused calls are accepted", "[fused]") {
    CHECK(message_of([](fused_call&) {}) == "");
    CHECK(message_of([](fused_call& c) { c.use_table(); }) == "");
    CHECK(message_of([](fused_call& c) { c.use_list(); }) == "");
    CHECK(message_of([](fused_call& c) { c.use_last_pages(); }) == "");
    CHECK(message_of([](fused_call& c) { c.args.with.cache.k.scale_at = &c.scale; }) == "");
}

TEST_CASE("slot numbers beyond the cache are refused", "[fused]") {
    refuses([](fused_call& c) { c.mapping[5] = 32; }, {"token 5 has slot 32", "8 pages of 4 slots"});
    refuses([](fused_call& c) { c.mapping[0] = INT64_MAX; }, {"token 0 has slot 9223372036854775807"});
}

TEST_CASE("entries beyond the pages of a sequence are refused", "[fused]") {
    refuses([](fused_call& c) { c.use_table(), c.entries[4] = 8; },
            {"token 1 has entry 8 of sequence 1, which has 2 pages of 4 entries"});
    refuses([](fused_call& c) { c.use_list(), c.entries[2] = INT64_MAX; }, {"token 2 has entry 9223372036854775807"});
    refuses([](fused_call& c) { c.use_list(), c.starts[1] = 1, c.entries[1] = 4; },
            {"token 1 has entry 4 of sequence 0, which has 1 pages"});
    refuses(
        [](fused_call& c) {
            c.entries[0] = 4;
            c.args.with.slots = rw::by_sequence(rw::ids(std::span<const std::int64_t>(c.entries), 2));
        },
        {"token 0 has entry 4 of sequence 0, which has 1 pages of 4 entries"});
}

TEST_CASE("page numbers outside the cache are refused", "[fused]") {
    refuses([](fused_call& c) { c.use_table(), c.table[2] = 8; },
            {"token 0 has page 8, number 0 of sequence 1, but the cache has 8 pages"});
    refuses([](fused_call& c) { c.use_list(), c.table[0] = -1; }, {"page -1, number 0 of sequence 0"});
    // A page without a token of the call may be anything.
    CHECK(message_of([](fused_call& c) { c.use_table(), c.table[1] = -1; }) == "");
}

TEST_CASE("lists of pages that do not fit are refused", "[fused]") {
    refuses([](fused_call& c) { c.use_list(), c.starts[0] = -1; }, {"indptr must not be negative, got -1"});
    refuses([](fused_call& c) { c.use_list(), c.starts[1] = 5; }, {"indptr must ascend, got 4 after 5 at entry 2"});
    refuses([](fused_call& c) { c.use_list(), c.starts[2] = 5; }, {"indptr ends with 5 but there are 4 pages"});
    refuses([](fused_call& c) { c.use_last_pages(), c.last_page_len[1] = 0; },
            {"last_page_len of sequence 1", "1 and 4, got 0"});
    refuses([](fused_call& c) { c.use_last_pages(), c.last_page_len[0] = 5; },
            {"last_page_len of sequence 0", "got 5"});
    refuses([](fused_call& c) { c.use_last_pages(), c.starts[1] = 1; },
            {"sequence 0 has 4 tokens", "1 pages with last_page_len 3 hold 3 entries"});
}

TEST_CASE("scales in memory that are out of range, and tensors of f64, are refused", "[fused]") {
    refuses([](fused_call& c) { c.scale = 0, c.args.with.cache.k.scale_at = &c.scale; },
            {"the cache of k", "scale must lie within", "got 0"});
    refuses([](fused_call& c) { c.args.rotation.q_in.type = rw::element_type::f64; }, {"f32, f16 and bf16, got f64"});
    refuses([](fused_call& c) { c.args.rotation.direction = rw::direction::inverse; }, {"only direction::forward"});
    CHECK_REFUSED(rw::dispatch::fused(fused_call().args, -1), "threads must not be negative", "-1");
}
