// Refusals of the plan of a launch, and arguments that the host cannot validate.
#include <ropewalk/gpu/plan.hpp>

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace launch_errors_tests {
namespace {

using rw::layout_kind;
using kind = rw::positions::kind;

/// A tensor over an address that no plan reads.
rw::tensor shaped(std::int64_t tokens, std::int64_t heads, std::int64_t head_dim) {
    rw::view<rw::bf16> v(nullptr, tokens, heads, head_dim);
    v.data = reinterpret_cast<void*>(std::uintptr_t{0x10000});
    return v;
}

const rw::tensor q = shaped(7, 8, 128);
const rw::Encoding plain = rw::make_encoding({.head_dim = 128});

rw::gpu::launch_plan plan(const rw::tensor& x, const rw::Encoding& e, const rw::positions& positions,
                          const rw::gpu::options& options = {}) {
    return rw::gpu::make_plan(layout_kind::half_split, x, {}, x, {}, e, positions, options);
}
rw::gpu::launch_plan rerotation_plan(const rw::tensor& k, const rw::Encoding& source, const rw::Encoding& target,
                                     std::int64_t position, const rw::gpu::options& options = {}) {
    return rw::gpu::make_rerotation_plan(layout_kind::half_split, k, k, source, rw::offset{0}, target,
                                         rw::offset{position}, options);
}

rw::positions device_positions(kind source, std::int64_t count, std::uintptr_t address) {
    rw::positions p;
    p.source = source, p.count = count, p.data = reinterpret_cast<const void*>(address);
    return p;
}

}  // namespace

TEST_CASE("positions in device memory: null or misaligned pointers and missing entries; float64", "[gpu]") {
    CHECK_REFUSED(plan(q, plain, device_positions(kind::ids64, 6, 0x1000)), "6 entries", "7 tokens");
    CHECK_REFUSED(plan(q, plain, device_positions(kind::ids64, 7, 0x1004)), "0x1004", "8 bytes");
    CHECK_REFUSED(plan(q, plain, device_positions(kind::ids64, 7, 0)), "null pointer", "7 tokens");
    CHECK_REFUSED(plan(q, plain, device_positions(kind::cu_seqlens32, 1, 0x1000)), "1 entries", "7 tokens");
    rw::tensor batched = q;
    batched.batch = 2, batched.stride_batch = 7 * 8 * 128;
    CHECK_REFUSED(plan(batched, plain, device_positions(kind::cu_seqlens32, 3, 0x1000)), "batch of 2");
    rw::tensor wide = q;
    wide.type = rw::element_type::f64;
    CHECK_REFUSED(plan(wide, plain, rw::offset{0}), "f64", "on the CPU only");
    const rw::Encoding drawing = rw::make_encoding({.head_dim = 128}, "randomized:64");
    CHECK_REFUSED(plan(q, drawing, rw::offset{0}), "randomized", "fixed_position", "device memory");
}

TEST_CASE("ids in device memory are not checked against tables and magnitudes", "[gpu]") {
    rw::cos_sin_table table;
    table.cos = table.sin = reinterpret_cast<const void*>(0x2000), table.rows = 5;
    table.columns = table.stride_row = 64;
    const rw::positions ids = device_positions(kind::ids32, 7, 0x1000);
    CHECK_REFUSED(plan(q, plain, rw::offset{0}, {.table = table}), "position 6", "5 rows");
    CHECK(plan(q, plain, ids, {.table = table}).shape.threads > 0);  // a kernel takes the nearest row
    table.rows = 0;
    CHECK_REFUSED(plan(q, plain, ids, {.table = table}), "no rows");
    const rw::Encoding xpos = rw::make_encoding({.head_dim = 128}, rw::XPos{.length = 2048});
    CHECK_REFUSED(plan(q, xpos, rw::offset{10000000}), "position 10000000", "bf16");
    CHECK(plan(q, xpos, ids).shape.threads > 0);
    CHECK_REFUSED(rerotation_plan(q, xpos, xpos, 50000000), "50000000");
}

TEST_CASE("more pairs than a kernel parameter holds, and options that re-rotation lacks", "[gpu]") {
    const rw::Encoding wide = rw::make_encoding({.head_dim = 1026});
    CHECK_REFUSED(plan(shaped(2, 2, 1026), wide, rw::offset{0}), "1026 elements", "1024");
    CHECK_REFUSED(rerotation_plan(q, plain, plain, 1, {.direction = rw::direction::inverse}), "directions");
    CHECK_REFUSED(rerotation_plan(q, plain, wide, 1), "1026 of head_dim 128 and 1026");
}

TEST_CASE("tensors without tokens or heads need no launch", "[gpu]") {
    for (const auto& [tokens, heads] : {std::pair{0, 8}, {7, 0}}) {
        const rw::gpu::launch_plan none = plan(shaped(tokens, heads, 128), plain, rw::offset{7});
        CHECK(none.shape.threads == 0);
        CHECK(none.shape.grid == 0);
    }
}

}  // namespace launch_errors_tests
