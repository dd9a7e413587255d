#include <ropewalk/gpu/fused_plan.hpp>
#include <ropewalk/gpu/plan.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

namespace rw = ropewalk;

namespace {

using rw::layout_kind;
constexpr rw::gpu::device_shape h100{};

/// A tensor over an address that no plan reads.
rw::tensor shaped(rw::element_type type, std::int64_t tokens, std::int64_t heads, std::int64_t head_dim,
                  std::uintptr_t address) {
    rw::tensor t;
    t.type = type, t.data = reinterpret_cast<void*>(address);
    t.tokens = tokens, t.heads = heads, t.head_dim = head_dim;
    t.stride_head = head_dim, t.stride_token = heads * head_dim, t.stride_batch = tokens * heads * head_dim;
    return t;
}

rw::gpu::launch_plan plan(std::int64_t tokens, std::int64_t q_heads, std::int64_t k_heads,
                          rw::element_type type = rw::element_type::bf16) {
    const rw::Encoding e = rw::make_encoding({.head_dim = 128});
    const rw::tensor q = shaped(type, tokens, q_heads, 128, 0x1000000000);
    const rw::tensor k = k_heads == 0 ? rw::tensor{} : shaped(type, tokens, k_heads, 128, std::uintptr_t{1} << 52);
    return rw::gpu::make_plan(layout_kind::half_split, q, k, q, k, e, rw::offset{0}, {}, h100);
}

/// The number of heads in `groups` groups of a side, or −1 where a group has another number of heads than g, g +
/// groups, g + 2 · groups, …
std::int64_t heads_covered(const rw::gpu::heads_params& side, std::int32_t groups) {
    std::int64_t covered = 0;
    for (std::int32_t g = 0; g < groups; ++g) {
        std::int64_t count = 0;
        for (std::int64_t head = g; head < side.heads; head += groups) ++count;
        if (side.groups != groups || side.heads_of_group(g) != count || count == 0) return -1;
        covered += count;
    }
    return covered;
}

double waves(const rw::gpu::launch_shape& shape) {
    return static_cast<double>(shape.threads) / (h100.multiprocessors * h100.threads_per_multiprocessor / 2);
}

}  // namespace

TEST_CASE("a grid covers every head of every token, and no block is empty", "[gpu]") {
    SEEDED(numbers);
    for (int i = 0; i < 2000; ++i) {
        const auto tokens = static_cast<std::int64_t>(numbers.logarithmic(1, 1e6));
        const std::int64_t k_heads = numbers.integer(0, 16);
        const std::int64_t q_heads = k_heads == 0 ? numbers.integer(1, 64) : k_heads * numbers.integer(1, 8);
        const rw::gpu::launch_plan made = plan(tokens, q_heads, k_heads);
        const rw::gpu::rotate_kernel_base& f = made.kernel;
        INFO(tokens << " tokens, heads " << q_heads << '/' << k_heads);
        REQUIRE(f.threads == tokens * f.groups * f.chunks);
        REQUIRE(made.shape.threads == f.threads);
        REQUIRE(made.shape.grid * made.shape.block >= f.threads);
        REQUIRE((made.shape.grid - 1) * made.shape.block < f.threads);
        REQUIRE(heads_covered(f.side[0], f.q_groups) == q_heads);
        REQUIRE(heads_covered(f.side[1], f.groups - f.q_groups) == k_heads);
        REQUIRE(made.shape.block % 32 == 0);
    }
}

TEST_CASE("options force the number of heads per thread", "[gpu]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 128});
    const rw::tensor q = shaped(rw::element_type::bf16, 4096, 40, 128, 0x1000000000);
    const auto groups = [&](int heads) {
        rw::gpu::options options;
        options.heads_per_thread = heads;
        return rw::gpu::make_plan(layout_kind::half_split, q, {}, q, {}, e, rw::offset{0}, options).kernel.groups;
    };
    CHECK((groups(1) == 40 && groups(3) == 14 && groups(16) == 3 && groups(100) == 1));
    CHECK_REFUSED(groups(-2), "heads_per_thread must not be negative, got -2");
}

TEST_CASE("few tokens use many multiprocessors, many tokens make full waves of threads with several heads", "[gpu]") {
    for (const auto& [q_heads, k_heads] : {std::pair{40, 40}, std::pair{32, 8}}) {
        for (const std::int64_t tokens : {1, 4, 16}) {
            const auto made = plan(tokens, q_heads, k_heads);
            INFO(tokens << " tokens, heads " << q_heads << '/' << k_heads);
            CHECK(made.kernel.side[0].heads_per_thread == 1);
            CHECK(made.shape.block == (made.kernel.threads < 132 * 128 ? 64 : 128));
        }
        for (const std::int64_t tokens : {4096, 8192, 16384, 32768, 1000000}) {
            const auto made = plan(tokens, q_heads, k_heads);
            INFO(tokens << " tokens, heads " << q_heads << '/' << k_heads << ", " << waves(made.shape) << " waves of "
                        << made.kernel.side[0].heads_per_thread << " heads");
            CHECK(made.kernel.side[0].heads_per_thread >= 4);
            CHECK(made.shape.block == 128);
            // At least four fifths of the threads of all waves have work.
            CHECK(waves(made.shape) / std::ceil(waves(made.shape)) > 0.8);
        }
    }
}

TEST_CASE("tests/house/instructions.py counts with the heads per thread of these plans", "[gpu]") {
    const auto most = [](const auto& sides) {
        std::int32_t heads = 0;
        for (const auto& side : sides) heads = std::max(heads, side.heads_per_thread);
        return heads;
    };
    const rw::Encoding e = rw::make_encoding({.head_dim = 128});
    for (const auto& [q_heads, k_heads, rotated, appended] : {std::array{40, 40, 10, 10}, std::array{32, 8, 11, 8}}) {
        CHECK(most(plan(8192, q_heads, k_heads).kernel.side) == rotated);
        const rw::tensor q = shaped(rw::element_type::bf16, 8192, q_heads, 128, 0x1000000000);
        const rw::tensor k = shaped(rw::element_type::bf16, 8192, k_heads, 128, std::uintptr_t{1} << 51);
        const rw::tensor v = shaped(rw::element_type::bf16, 8192, k_heads, 128, std::uintptr_t{1} << 52);
        rw::fused_args args{.rotation = {.layout = layout_kind::half_split,
                                         .q_in = q,
                                         .k_in = k,
                                         .q_out = q,
                                         .k_out = k,
                                         .target = &e,
                                         .target_positions = rw::offset{0}}};
        const std::vector<float> weight(128);
        args.with.q_norm.weight = args.with.k_norm.weight = weight.data();
        CHECK(most(rw::gpu::make_fused_plan(args, h100).kernel.side) == rotated);
        args.with = {}, args.v_in = v, args.v_out = v;
        CHECK(most(rw::gpu::make_fused_plan(args, h100).kernel.side) == appended);
    }
}

TEST_CASE("accesses are the widest that every chunk, base and stride allows", "[gpu]") {
    const auto bytes = [](rw::element_type type, rw::Geometry head, std::uintptr_t address = 0x10000,
                          std::int64_t padding = 0, bool in_place = true,
                          layout_kind layout = layout_kind::half_split) {
        const rw::Encoding e = rw::make_encoding(head);
        rw::tensor q = shaped(type, 4, 2, head.head_dim, address);
        q.stride_token += padding;
        rw::tensor out = q;
        if (!in_place) out.data = reinterpret_cast<void*>(address + 0x100000);
        return rw::gpu::make_plan(layout, q, {}, out, {}, e, rw::offset{0}, {}).shape.bytes;
    };
    using enum rw::element_type;
    CHECK(bytes(bf16, {.head_dim = 128}) == 16);
    CHECK(bytes(f32, {.head_dim = 128}) == 16);
    CHECK(bytes(bf16, {.head_dim = 80}) == 16);
    CHECK(bytes(bf16, {.head_dim = 20}) == 4);
    CHECK(bytes(bf16, {.head_dim = 6}) == 2);
    CHECK(bytes(f32, {.head_dim = 6}) == 4);
    CHECK(bytes(f16, {.head_dim = 6}, 0x10000, 0, true, layout_kind::interleaved) == 2);
    CHECK(bytes(bf16, {.head_dim = 128}, 0x10002) == 2);
    CHECK(bytes(bf16, {.head_dim = 128}, 0x10004) == 4);
    CHECK(bytes(f32, {.head_dim = 128}, 0x10004) == 4);
    CHECK(bytes(bf16, {.head_dim = 128}, 0x10000, 4) == 8);
    CHECK(bytes(bf16, {.head_dim = 192, .rotary_dim = 64, .rotary_offset = 128}) == 16);
    CHECK(bytes(bf16, {.head_dim = 192, .rotary_dim = 64, .rotary_offset = 124}) == 8);
    // Elements after the rotary part matter if they are copied.
    CHECK(bytes(bf16, {.head_dim = 66, .rotary_dim = 64}, 0x10000, 4 * 66) == 4);
    CHECK(bytes(bf16, {.head_dim = 76, .rotary_dim = 64}, 0x10000, 0, false) == 8);
    // More pairs than the small parameters hold take the widest or the narrowest access.
    CHECK(bytes(bf16, {.head_dim = 1024}) == 16);
    CHECK(bytes(bf16, {.head_dim = 1024}, 0x10008) == 2);
    CHECK(bytes(f32, {.head_dim = 1024}, 0x10008) == 4);
}

TEST_CASE("an axis with one entry need not be aligned", "[gpu]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 128});
    rw::tensor q = shaped(rw::element_type::bf16, 4, 2, 128, 0x10000);
    q.stride_batch = 4 * 2 * 128 + 1;
    CHECK(rw::gpu::make_plan(layout_kind::half_split, q, {}, q, {}, e, rw::offset{0}, {}).shape.bytes == 16);
    q.batch = 2;
    CHECK(rw::gpu::make_plan(layout_kind::half_split, q, {}, q, {}, e, rw::offset{0}, {}).shape.bytes == 2);
}

TEST_CASE("a launch refuses more tokens per row than its kernels can count", "[gpu]") {
    CHECK_NOTHROW(plan((std::int64_t{1} << 32) - 1, 1, 0));
    CHECK_REFUSED(plan(std::int64_t{1} << 32, 1, 0), "2^32 - 1", "4294967296");
}

TEST_CASE("more than 2^31 tokens and 2^32 threads are counted", "[gpu]") {
    const std::int64_t tokens = (std::int64_t{1} << 32) - 5;
    const auto made = plan(tokens, 1, 1);
    CHECK(made.kernel.threads == tokens * 2 * 8);
    CHECK(made.shape.grid == (tokens * 16 + 127) / 128);
    CHECK(made.kernel.split.by_outer.divisor == tokens);
    // More blocks than a grid holds: 2^48 bytes of queries.
    CHECK_REFUSED(plan(tokens, 256, 0), "blocks of 128 threads", "2147483647");
}

TEST_CASE("the kind of kernel parameters depends on the call", "[gpu]") {
    const auto kind = [](const rw::Encoding& e) {
        const rw::tensor q = shaped(rw::element_type::f32, 4, 2, e.geometry.head_dim, 0x10000);
        const auto made = rw::gpu::make_plan(layout_kind::half_split, q, {}, q, {}, e, rw::offset{0}, {});
        std::pair<int, bool> found;
        rw::gpu::with_rates(made.kernel.rotation, [&]<class Rates>(std::type_identity<Rates>) {
            found = {Rates::capacity, Rates::full};
        });
        return found;
    };
    CHECK(kind(rw::make_encoding({.head_dim = 512})) == std::pair{256, false});
    CHECK(kind(rw::make_encoding({.head_dim = 514})) == std::pair{512, true});
    CHECK(kind(rw::make_encoding({.head_dim = 128}, rw::XPos{.length = 512})) == std::pair{512, true});
    CHECK(kind(rw::make_encoding({.head_dim = 1024})) == std::pair{512, true});
    // All devices accept 4 KiB of parameters, and 32764 bytes since CUDA 12.1.
    CHECK(sizeof(rw::gpu::rotate_kernel_params<rw::gpu::plain_rates<rw::gpu::plain_pairs>>) <= 4096);
    CHECK(sizeof(rw::gpu::rotate_kernel_params<rw::gpu::full_rates<rw::gpu::max_pairs>>) <= 32764);
}

TEST_CASE("steps by value follow the axis that has them", "[gpu]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 64}, "mrope:[8,12,12]");
    rw::rotate_params params;
    params.pairs = 32;
    params.target.steps = e.axis_steps.data(), params.target.positions.axes = 3;
    const auto rates = rw::gpu::rates_of<rw::gpu::plain_rates<128>>(params);
    for (std::size_t pair = 0; pair < 32; ++pair) {
        CHECK(rates.target.step[pair] == e.steps[pair]);
        CHECK(rates.target.axis[pair] == (pair < 8 ? 0 : pair < 20 ? 1 : 2));
    }
}
