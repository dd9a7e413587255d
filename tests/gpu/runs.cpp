// Memory that the lanes of a warp access together: one contiguous run, so that the device fetches few lines.
#include <ropewalk/gpu/fused_body.hpp>
#include <ropewalk/gpu/fused_plan.hpp>
#include <ropewalk/gpu/rotate_body.hpp>

#include <algorithm>
#include <vector>

#include "support/catch.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace {

/// An access policy that records the addresses of loads and touches no memory.
struct loads {
    static thread_local std::vector<std::uintptr_t> addresses;

    template <int Bytes>
    static gpu::vec_bits<Bytes> load(const void* from) {
        addresses.push_back(reinterpret_cast<std::uintptr_t>(from));
        return {};
    }
    template <int Bytes>
    static void store(void* /*to*/, const gpu::vec_bits<Bytes>& /*value*/) {}
};
thread_local std::vector<std::uintptr_t> loads::addresses;

/// Returns whether accesses of 16 bytes cover one run without a gap.
bool is_one_run(std::vector<std::uintptr_t> addresses) {
    std::sort(addresses.begin(), addresses.end());
    for (std::size_t i = 1; i < addresses.size(); ++i)
        if (addresses[i] != addresses[i - 1] + 16) return false;
    return true;
}

constexpr std::size_t lanes = gpu::warp_lanes, vecs = 2;
constexpr gpu::device_shape small{.multiprocessors = 1};

/// 40 heads at an address that nothing reads.
rw::view<rw::bf16> heads() {
    return {reinterpret_cast<rw::bf16*>(std::uintptr_t{1} << 20), 1, 64, 40, 128, 64 * 40 * 128, 40 * 128, 128};
}

}  // namespace

TEST_CASE("the lanes of a warp of a rotation load one contiguous run per head of a group", "[gpu]") {
    const rw::Encoding encoding = rw::make_encoding({.head_dim = 128});
    const rw::tensor q = heads();
    const auto made = gpu::make_plan(rw::layout_kind::half_split, q, {}, q, {}, encoding, rw::offset{0}, {}, small);
    const auto heads_per_thread = static_cast<std::size_t>(made.kernel.side[0].heads_per_thread);
    REQUIRE(heads_per_thread > 1);
    using rates = gpu::plain_rates<gpu::plain_pairs>;
    const auto params = gpu::kernel_params<rates>(made);
    std::vector<std::vector<std::uintptr_t>> by_head(heads_per_thread);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
        loads::addresses.clear();
        gpu::rotate_body<rw::bf16, rw::half_split, 16, rates, loads>(params, static_cast<std::int64_t>(lane));
        for (std::size_t i = 0; i < loads::addresses.size(); ++i) by_head.at(i / vecs).push_back(loads::addresses[i]);
    }
    CHECK(by_head[0].size() == lanes * vecs);
    // The last groups have one head less.
    for (std::size_t head = 0; head + 1 < heads_per_thread; ++head) CHECK(is_one_run(by_head[head]));
}

TEST_CASE("the lanes of a warp of a fused call load one contiguous run per head of a group", "[gpu][fused]") {
    const rw::Encoding encoding = rw::make_encoding({.head_dim = 128});
    const auto made = gpu::make_fused_plan<rw::bf16>(rw::layout_kind::half_split, {heads(), {}, {}}, {heads(), {}, {}},
                                                     {}, encoding, rw::offset{0}, {}, small);
    using rates = gpu::plain_rates<gpu::few_pairs>;
    using body = gpu::fused_body<rw::bf16, rw::half_split, 16, rates, gpu::fused_parts{}, loads>;
    const auto params = gpu::kernel_params<rates>(made);
    REQUIRE(params.side[0].heads_per_thread > body::heads_in_flight);
    loads::addresses.clear();
    gpu::run_lanes<gpu::host_warp>(body{params}, 0);
    // One lane after the other loads the vecs of heads_in_flight heads.
    constexpr std::size_t per_lane = vecs * body::heads_in_flight;
    REQUIRE(loads::addresses.size() >= lanes * per_lane);
    for (std::size_t head = 0; head < body::heads_in_flight; ++head) {
        std::vector<std::uintptr_t> together;
        for (std::size_t lane = 0; lane < lanes; ++lane)
            for (std::size_t vec = 0; vec < vecs; ++vec)
                together.push_back(loads::addresses[lane * per_lane + head * vecs + vec]);
        CHECK(is_one_run(together));
    }
}
