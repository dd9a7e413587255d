// Prepared fused calls: what they refuse, and what they keep between calls. tests/dispatch/fused_backend.cpp compares
// their results with those of fused().
#include <ropewalk/dispatch.hpp>

#include <optional>
#include <utility>
#include <vector>

#include "prepared_call.hpp"
#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace {

/// An append of two sequences with one token each: 4 query heads, 2 key and value heads of 8 elements, 3 pages of 4.
struct append_call {
    std::vector<float> q, k, v, k_cache, v_cache;
    std::vector<std::int64_t> slots{5, 9};
    rw::Encoding encoding = rw::make_encoding({.head_dim = 8});

    append_call() : q(64, 1.0F), k(32, 2.0F), v(32, 3.0F), k_cache(192), v_cache(192) {}

    [[nodiscard]] rw::fused_args args() {
        const auto tensor = [](std::vector<float>& data, std::int64_t heads) {
            return rw::tensor(rw::view<float>(data.data(), 2, 1, heads, 8, 8 * heads, 8 * heads, 8));
        };
        rw::fused_args args;
        args.rotation.target = &encoding, args.rotation.target_positions = rw::offset{7};
        args.rotation.q_in = args.rotation.q_out = tensor(q, 4), args.rotation.k_in = tensor(k, 2);
        args.v_in = tensor(v, 2);
        args.with.cache = {rw::nhd_cache(k_cache.data(), 3, 4, 2, 8), rw::nhd_cache(v_cache.data(), 3, 4, 2, 8)};
        args.with.slots = rw::by_mapping(std::span<const std::int64_t>(slots));
        return args;
    }
    [[nodiscard]] rw::cpu::prepared_fused::addresses addresses() { return test::addresses_of(args()); }
    bool operator==(const append_call& other) const {
        return q == other.q && k == other.k && v == other.v && k_cache == other.k_cache && v_cache == other.v_cache;
    }
};

}  // namespace

TEST_CASE("a prepared fused call returns false for what it does not accept, and writes nothing", "[fused]") {
    append_call call;
    const append_call before = call;
    rw::fused_args without_slots = call.args();
    without_slots.with.slots = {};
    rw::cpu::prepared_fused prepared = dispatch::prepare_fused(without_slots);
    const std::vector<std::int64_t> positions{7, 7};
    const auto refuses = [&](const auto& change) {
        auto at = call.addresses();
        change(at);
        return !prepared.run(at, positions, call.slots) && call == before;
    };
    CHECK(refuses([](auto& at) { at.q.in = nullptr; }));
    CHECK(refuses([](auto& at) { at.k.cache = nullptr; }));
    CHECK(refuses([&](auto& at) { at.k.out = call.k.data(); }));
    CHECK(refuses([&](auto& at) { at.q.out = call.k.data(); }));
    CHECK(refuses([&](auto& at) { at.q.cache = call.k_cache.data(); }));
    CHECK(refuses([&](auto& at) { at.k.norm = call.k.data(); }));
    CHECK(refuses([&](auto& at) { at.k.scales = call.k.data(); }));
    CHECK(refuses([](auto& at) { at.v.in = static_cast<const std::byte*>(at.v.in) + 2; }));

    const auto refuses_numbers = [&](const std::vector<std::int64_t>& at, const std::vector<std::int64_t>& slots) {
        return !prepared.run(call.addresses(), at, slots) && call == before;
    };
    CHECK(refuses_numbers({7}, call.slots));
    CHECK(refuses_numbers({7, 7, 7}, call.slots));
    CHECK(refuses_numbers({7, std::int64_t{1} << 62}, call.slots));
    CHECK(refuses_numbers(positions, {}));
    CHECK(refuses_numbers(positions, {5}));
    CHECK(refuses_numbers(positions, {5, 12}));
    CHECK(prepared.run(call.addresses(), positions, call.slots));
    CHECK_FALSE(call == before);
}

TEST_CASE("a prepared fused call follows positions, slots and addresses, and outlives its encoding", "[fused]") {
    append_call first, second;
    std::optional<rw::cpu::prepared_fused> prepared;
    {
        append_call temporary;
        prepared.emplace(dispatch::prepare_fused(temporary.args()));
    }
    rw::cpu::prepared_fused moved = std::move(*prepared);
    prepared.reset();
    for (append_call* call : {&first, &second}) {
        for (const std::int64_t position : {100, 100, 3}) {
            append_call expected = *call;
            expected.slots = call->slots = {position == 3 ? -1 : 11, position == 100 ? 2 : 0};
            rw::fused_args args = expected.args();
            args.rotation.target_positions = rw::offset{position};
            dispatch::fused(args, 1);
            const std::vector<std::int64_t> positions{position, position};
            CHECK(moved.run(call->addresses(), positions, call->slots));
            CHECK(*call == expected);
        }
    }
}

TEST_CASE("calls that cannot be prepared are refused with a reason", "[fused]") {
    append_call call;
    const auto prepare = [](const rw::fused_args& args) { (void)dispatch::prepare_fused(args); };
    rw::fused_args args = call.args();
    const rw::Encoding drawn = rw::make_encoding({.head_dim = 8}, "randomized:4096");
    args.rotation.target = &drawn;
    CHECK_REFUSED(prepare(args), "randomized", "draws its positions");

    args = call.args();
    args.rotation.q_in.tokens = args.rotation.q_out.tokens = args.rotation.k_in.tokens = args.v_in.tokens = 0;
    CHECK_REFUSED(prepare(args), "needs elements", "tokens 0");

    args = call.args();
    args.with.cache.k.head_dim = 6;
    CHECK_REFUSED(prepare(args), "cache of k", "head_dim 6");
    args = call.args();
    args.rotation.direction = rw::direction::adjoint;
    CHECK_REFUSED(prepare(args), "direction::forward");

    std::vector<float> scales(64);
    std::vector<std::int8_t> bytes(64);
    args = call.args();
    args.with.cache.k.type = rw::cache_type::i8, args.with.cache.k.scales = scales.data();
    args.with.cache.k.scale_stride_page = 8, args.with.cache.k.scale_stride_token = 2;
    args.with.cache.k.scale_stride_head = 1;
    args.with.quantised.k = rw::nhd_cache(bytes.data(), 2, 1, 2, 8, scales.data() + 32);
    CHECK_REFUSED(prepare(args), "one int8 destination");
}
