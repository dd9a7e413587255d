// The compiled CPU kernels as the backend of re-encoded caches, and what only calls in host memory have.
#include <ropewalk/cpu/rerotate_cache.hpp>
#include <ropewalk/dispatch.hpp>

#include "cases/rerotate_cache_case.hpp"
#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace test {

bool checks_slots() { return true; }

rerotate_cache_call run(const rerotate_cache_case& c, random& numbers) {
    rerotate_cache_call call(c, numbers);
    const int threads = static_cast<int>(numbers.integer(0, 3));
    call.problem = message_of([&] { rw::dispatch::rerotate_cache(call.args(), threads); });
    return call;
}

}  // namespace test

namespace {

/// A small case of a mapping, whose arguments a test spoils.
test::rerotate_cache_call small_call(test::random& numbers, rw::cache_type type = rw::cache_type::f16) {
    test::rerotate_cache_case c;
    c.type = type, c.tokens = 4;
    test::rerotate_cache_call call(c, numbers);
    for (std::size_t i = 0; i < 4; ++i) call.slots.ids[i] = static_cast<std::int64_t>(i);
    return call;
}

}  // namespace

TEST_CASE("any number of threads leaves the same cache", "[rerotate_cache][threads]") {
    SEEDED(numbers);
    for (const rw::cache_type type : test::all_cache_types) {
        test::rerotate_cache_case c = test::random_rerotate_cache_case(numbers, {.head_dim = 128}, type);
        c.tokens = 2000, c.heads = 3, c.batch = 1, c.slots = test::slot_kind::mapping64, c.page_size = 16;
        test::rerotate_cache_call one(c, numbers), several = one;
        one.slots.slots.mapping = one.slots.ids.data(), several.slots.slots.mapping = several.slots.ids.data();
        rw::dispatch::rerotate_cache(one.args(), 1);
        rw::dispatch::rerotate_cache(several.args(), 4);
        CHECK((one.cache.bytes == several.cache.bytes && one.cache.bytes != one.before));
        CHECK((one.cache.scales == several.cache.scales));
    }
}

TEST_CASE("there and back restores cached keys", "[rerotate_cache]") {
    SEEDED(numbers);
    for (int i = 0; i < 20; ++i) {
        test::rerotate_cache_case c = test::random_rerotate_cache_case(numbers, {.head_dim = 64}, rw::cache_type::f32);
        const test::rerotate_cache_call call(c, numbers);
        const rw::rerotate_cache_args there = call.args();
        rw::rerotate_cache_args back = there;
        std::swap(back.source, back.target), std::swap(back.source_positions, back.target_positions);
        rw::dispatch::rerotate_cache(there), rw::dispatch::rerotate_cache(back);
        const std::vector<std::uint8_t> written = call.written();
        float worst = 0;
        for (std::size_t byte = 0; byte < written.size(); byte += 4) {
            float before = 0, after = 0;
            std::memcpy(&before, call.before.data() + byte, 4);
            std::memcpy(&after, call.cache.bytes.data() + byte, 4);
            if (written[byte] != 0) worst = std::max(worst, std::fabs(after - before));
        }
        CHECK(worst < 1e-5F);
    }
}

TEST_CASE("the header compiles to the same kernels", "[rerotate_cache]") {
    SEEDED(numbers);
    for (const rw::cache_type type : test::all_cache_types) {
        test::rerotate_cache_case c = test::random_rerotate_cache_case(numbers, {.head_dim = 64}, type);
        c.layout = rw::layout_kind::half_split;
        test::rerotate_cache_call call(c, numbers);
        const rw::rerotate_cache_args a = call.args();
        rw::cpu::rerotate_cache<rw::half_split>(a.keys, a.at, *a.source, a.source_positions, *a.target,
                                                a.target_positions);
        CHECK_THAT(call, test::matches_rerotated_cache());
    }
}

TEST_CASE("results beyond the largest f8 saturate", "[rerotate_cache]") {
    const rw::Geometry head{.head_dim = 2};
    const rw::Encoding plain = rw::make_encoding(head, rw::Default{}),
                       stronger = rw::make_encoding(head, test::Constant{4});
    rw::f8e4m3 keys[2] = {rw::f8e4m3(448.0F), rw::f8e4m3(-3.0F)};
    const std::vector<std::int64_t> slots{0};
    rw::cache_tensor k = rw::nhd_cache(keys, 1, 1, 1, 2);
    rw::dispatch::rerotate_cache<rw::half_split>(k, {rw::by_mapping(slots), 1}, plain, rw::offset{3}, stronger,
                                                 rw::offset{3});
    CHECK(static_cast<float>(keys[0]) == 448.0F);
    CHECK(static_cast<float>(keys[1]) == -12.0F);
}

TEST_CASE("wrong slots and shapes are errors that change nothing", "[rerotate_cache][errors]") {
    SEEDED(numbers);
    const auto refusal = [&](const auto& spoil, rw::cache_type type = rw::cache_type::f16) {
        test::rerotate_cache_call call = small_call(numbers, type);
        rw::rerotate_cache_args args = call.args();
        const std::vector<unsigned char> before = call.cache.bytes;
        spoil(call, args);
        args.at.slots.mapping = call.slots.ids.data();
        const std::string message = test::message_of([&] { rw::dispatch::rerotate_cache(args); });
        CHECK((message.empty() || call.cache.bytes == before));
        return message;
    };
    using call = test::rerotate_cache_call;
    using args = rw::rerotate_cache_args;
    CHECK(refusal([](call&, args&) {}).empty());
    CHECK(test::holds(refusal([](call& c, args&) { c.slots.ids[2] = 12345; }), {"12345"}));
    CHECK(test::holds(refusal([](call& c, args&) { c.slots.ids[3] = 1; }),
                      {"tokens 1 and 3 have the same slot: entry 1 of page 0"}));
    CHECK(test::holds(refusal([](call&, args& a) { a.at.tokens = 3; }), {"4 entries for 3 tokens"}));
    CHECK(test::holds(refusal([](call&, args& a) { a.at.tokens = -1; }), {"must not be negative, got 1 and -1"}));
    CHECK(test::holds(refusal([](call&, args& a) { a.keys.head_dim = 32; }), {"the encoding is for head_dim 64"}));
    CHECK(test::holds(refusal([](call&, args& a) { a.keys.data = nullptr; }), {"has no memory"}));
    CHECK(test::holds(refusal([](call&, args& a) { a.keys.page_size = 0; }), {"page_size must be positive"}));
    CHECK(test::holds(refusal([](call&, args& a) { a.keys.stride_token = 0; }), {"share memory"}));
    CHECK(test::holds(refusal([](call&, args& a) { a.at.slots = {}; }), {"no slots"}));
    CHECK(test::holds(refusal([](call&, args& a) { a.keys.scales = nullptr; }, rw::cache_type::i8), {"needs scales"}));
    CHECK(test::holds(refusal([](call&, args& a) { a.keys.scale = 0; }, rw::cache_type::f8e4m3),
                      {"2^-64 and 2^64, got 0"}));
    static const float none = 0;
    CHECK(test::holds(refusal([](call&, args& a) { a.keys.scale_at = &none; }, rw::cache_type::f8e4m3),
                      {"2^-64 and 2^64, got 0"}));
    const rw::Encoding narrower = rw::make_encoding({.head_dim = 64, .rotary_dim = 32}, rw::Default{});
    CHECK(test::holds(refusal([&](call&, args& a) { a.source = &narrower; }),
                      {"both encodings must rotate the same elements"}));
}
