#include <ropewalk/gpu/plan.hpp>
#include <ropewalk/gpu/rotate_body.hpp>

#include <vector>

#include "support/catch.hpp"

namespace rw = ropewalk;

namespace {

constexpr std::int64_t two_31 = std::int64_t{1} << 31;

/// An access policy that records the addresses of writes and touches no memory.
struct addresses {
    static thread_local std::vector<std::uintptr_t> written;

    template <int Bytes>
    static rw::gpu::vec_bits<Bytes> load(const void* /*from*/) {
        return {};
    }
    template <int Bytes>
    static void store(void* to, const rw::gpu::vec_bits<Bytes>& /*value*/) {
        written.push_back(reinterpret_cast<std::uintptr_t>(to));
    }
};
thread_local std::vector<std::uintptr_t> addresses::written;

/// The addresses that thread number `index` of a launch in place writes.
std::vector<std::uintptr_t> written_by(const rw::gpu::launch_plan& made, std::int64_t index) {
    using rates = rw::gpu::plain_rates<rw::gpu::plain_pairs>;
    addresses::written.clear();
    rw::gpu::rotate_body<float, rw::half_split, 16, rates, addresses>(rw::gpu::kernel_params<rates>(made), index);
    return addresses::written;
}

}  // namespace

TEST_CASE("strides carry a thread past 2^31 elements and 2^32 bytes", "[gpu]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 64});
    for (const int far_axis : {0, 1, 2}) {
        rw::tensor q;
        q.data = reinterpret_cast<void*>(std::uintptr_t{1} << 20);
        q.batch = 3, q.tokens = 2, q.heads = 2, q.head_dim = 64;
        q.stride_head = 64, q.stride_token = 128, q.stride_batch = 256;
        (far_axis == 0 ? q.stride_batch : far_axis == 1 ? q.stride_token : q.stride_head) = two_31 + 64;
        const auto made =
            rw::gpu::make_plan(rw::layout_kind::half_split, q, {}, q, {}, e, rw::offset{0}, {}, {.multiprocessors = 1});
        const auto written = written_by(made, made.kernel.threads - 1);
        const std::int64_t elements = 2 * q.stride_batch + q.stride_token + q.stride_head;
        // The last vec of either half of the last head of the last token.
        const std::uintptr_t head = (std::uintptr_t{1} << 20) + 4 * static_cast<std::uintptr_t>(elements);
        REQUIRE(written.size() >= 2);
        CHECK(written[written.size() - 2] == head + 4 * 28);
        CHECK(written.back() == head + 4 * 60);
    }
}

TEST_CASE("the last of more than 2^32 threads finds its token", "[gpu]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 64});
    rw::tensor q;
    q.data = reinterpret_cast<void*>(std::uintptr_t{1} << 20);
    q.tokens = 2 * two_31 - 1, q.heads = 1, q.head_dim = 64;
    q.stride_head = 64, q.stride_token = 64, q.stride_batch = 64 * q.tokens;
    const auto made = rw::gpu::make_plan(rw::layout_kind::half_split, q, {}, q, {}, e, rw::offset{0}, {});
    REQUIRE(made.kernel.threads == 8 * q.tokens);
    const auto written = written_by(made, made.kernel.threads - 1);
    const std::uintptr_t head = (std::uintptr_t{1} << 20) + 4 * 64 * static_cast<std::uintptr_t>(q.tokens - 1);
    CHECK(written == std::vector<std::uintptr_t>{head + 4 * 28, head + 4 * 60});
}
