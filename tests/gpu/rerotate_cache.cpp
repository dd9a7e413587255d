// The bodies that re-encode cached keys on the host: they must read and write every element once.
#include <ropewalk/gpu/rerotate_cache_plan.hpp>

#include "backend.hpp"
#include "cases/rerotate_cache_case.hpp"
#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace test {

namespace {

/// The first byte that is not accessed as often as it is written.
std::string counts_problem(const rerotate_cache_call& call, const memory_log& log) {
    const std::vector<std::uint8_t> expected = call.written();
    if (log.reads(call.cache.bytes.data()) != expected) return "not every element was read once";
    if (log.writes(call.cache.bytes.data()) != expected) return "not every element was written once";
    if (call.cache.scales.empty()) return {};
    std::size_t written = 0, heads = 0;
    for (const std::uint8_t count : log.writes(call.cache.scales.data())) {
        if (count > 1) return "a scale was written twice";
        written += count;
    }
    for (const auto& slot : call.slots.of_token) heads += slot ? static_cast<std::size_t>(call.setup.heads) : 0;
    return written == 4 * heads ? "" : "not every scale was written";
}

}  // namespace

bool checks_slots() { return false; }

rerotate_cache_call run(const rerotate_cache_case& c, random& numbers) {
    rerotate_cache_call call(c, numbers);
    const gpu::rerotate_cache_plan plan = gpu::make_rerotate_cache_plan(call.args(), random_device(numbers));
    memory_log log;
    log.watch(call.cache.bytes.data(), call.cache.bytes.size());
    if (!call.cache.scales.empty()) log.watch(call.cache.scales.data(), call.cache.scales.size());
    run_on_host(c.layout, plan, log);
    call.problem = log.problem().empty() ? counts_problem(call, log) : log.problem();
    return call;
}

}  // namespace test

TEST_CASE("caches are accessed in 16 bytes where addresses and widths allow", "[rerotate_cache]") {
    SEEDED(numbers);
    const auto bytes = [&](const rw::Geometry& head, rw::cache_type type, std::int64_t misalignment = 0) {
        test::rerotate_cache_case c;
        c.source = c.target = test::plain_twin(head), c.type = type, c.misalignment = misalignment;
        return gpu::make_rerotate_cache_plan(test::rerotate_cache_call(c, numbers).args()).shape.bytes;
    };
    using enum rw::cache_type;
    CHECK(bytes({.head_dim = 128}, bf16) == 16);
    CHECK(bytes({.head_dim = 128}, f32) == 16);
    CHECK(bytes({.head_dim = 128}, f8e4m3) == 16);
    CHECK(bytes({.head_dim = 128}, i8) == 16);
    CHECK(bytes({.head_dim = 576, .rotary_dim = 64, .rotary_offset = 512}, f8e4m3) == 16);
    CHECK(bytes({.head_dim = 576, .rotary_dim = 64, .rotary_offset = 512}, i8) == 16);
    CHECK(bytes({.head_dim = 128}, bf16, 1) == 2);
    CHECK(bytes({.head_dim = 80}, f8e4m3) == 1);
}

TEST_CASE("int8 heads that no warp holds are refused", "[rerotate_cache][errors]") {
    SEEDED(numbers);
    test::rerotate_cache_case c;
    c.type = rw::cache_type::i8, c.misalignment = 1;
    c.source = c.target = test::plain_twin({.head_dim = 512});
    const test::rerotate_cache_call call(c, numbers);
    CHECK_REFUSED(gpu::make_rerotate_cache_plan(call.args()), "512 elements", "1024", "256");
}
