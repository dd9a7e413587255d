#include "trial.hpp"

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

using rw::layout_kind;

/// Tensors of shapes only: plans look at no element.
rw::tensor shaped(std::int64_t tokens, std::int64_t heads, std::int64_t head_dim, std::uintptr_t address = 0x10000) {
    rw::view<rw::bf16> v(nullptr, tokens, heads, head_dim);
    v.data = reinterpret_cast<void*>(address);
    return v;
}

rw::gpu::launch_plan plan(const rw::tensor& q, const rw::tensor& k, const rw::Encoding& e, const rw::positions& where,
                          const rw::gpu::options& chosen = {}) {
    return rw::gpu::make_plan(layout_kind::half_split, q, k, q, k, e, where, chosen);
}

const rw::Encoding& plain() {
    static const rw::Encoding e = rw::make_encoding({.head_dim = 128, .layout = layout_kind::half_split});
    return e;
}

}  // namespace

TEST_CASE("what the CPU refuses of shapes, the GPU refuses in the same words", "[gpu]") {
    const rw::tensor q = shaped(7, 8, 128), k = shaped(7, 2, 128, 0x900000);
    CHECK_REFUSED(plan(q, shaped(6, 2, 128, 0x900000), plain(), rw::offset{0}), "tokens 7", "tokens 6");
    CHECK_REFUSED(plan(q, shaped(7, 3, 128, 0x900000), plain(), rw::offset{0}), "multiple", "8 and 3");
    CHECK_REFUSED(plan(q, q, plain(), rw::offset{0}), "q and k overlap");
    CHECK_REFUSED(plan(shaped(7, 8, 64), {}, plain(), rw::offset{0}), "head_dim 64", "head_dim 128");
    CHECK_REFUSED(plan(shaped(7, 8, 128, 0x10001), {}, plain(), rw::offset{0}), "not aligned", "2 bytes");
    rw::tensor null = q;
    null.data = nullptr;
    CHECK_REFUSED(plan(null, k, plain(), rw::offset{0}), "no memory", "7168 elements");
    rw::tensor apart = q;
    apart.stride_element = 2;
    CHECK_REFUSED(plan(apart, k, plain(), rw::offset{0}), "contiguous");
    CHECK_REFUSED(rw::gpu::make_plan(layout_kind::interleaved, q, k, q, k, plain(), rw::offset{0}, {}), "half_split",
                  "interleaved");
    CHECK_REFUSED(plan(q, k, plain(), rw::offset{std::numeric_limits<std::int64_t>::max() - 3}), "7 tokens", "64-bit");
}

TEST_CASE("positions: their number, their memory, their kind", "[gpu]") {
    const rw::tensor q = shaped(7, 8, 128);
    rw::positions where;
    where.source = rw::positions::kind::ids64, where.count = 6, where.data = reinterpret_cast<const void*>(0x1000);
    CHECK_REFUSED(plan(q, {}, plain(), where), "6 entries", "7 tokens");
    where.count = 7, where.data = reinterpret_cast<const void*>(0x1004);
    CHECK_REFUSED(plan(q, {}, plain(), where), "0x1004", "8 bytes");
    where.data = nullptr;
    CHECK_REFUSED(plan(q, {}, plain(), where), "null pointer", "7 tokens");
    where.data = reinterpret_cast<const void*>(0x1000), where.rows = 2;
    CHECK_REFUSED(plan(q, {}, plain(), where), "2 rows", "batch of 1");
    where.rows = 1, where.axes = 3;
    CHECK_REFUSED(plan(q, {}, plain(), where), "one position per token", "3");

    where = {};
    where.source = rw::positions::kind::cu_seqlens32, where.data = reinterpret_cast<const void*>(0x1000);
    where.count = 1;
    CHECK_REFUSED(plan(q, {}, plain(), where), "1 entries", "7 tokens");
    where.count = 3;
    rw::tensor batched = q;
    batched.batch = 2, batched.stride_batch = 7 * 8 * 128;
    CHECK_REFUSED(plan(batched, {}, plain(), where), "batch of 2");

    const rw::Encoding drawn = rw::make_encoding({.head_dim = 128}, "randomized:64");
    CHECK_REFUSED(plan(q, {}, drawn, rw::offset{0}), "randomized", "fixed_position", "device memory");
}

TEST_CASE("tables and magnitudes, as far as the host can know", "[gpu]") {
    const rw::tensor q = shaped(7, 8, 128);
    rw::cos_sin_table table;
    table.cos = table.sin = reinterpret_cast<const void*>(0x2000), table.rows = 5, table.columns = 64;
    table.stride_row = 64;
    CHECK_REFUSED(plan(q, {}, plain(), rw::offset{0}, {.table = table}), "position 6", "5 rows");
    rw::positions ids;
    ids.source = rw::positions::kind::ids32, ids.count = 7, ids.data = reinterpret_cast<const void*>(0x1000);
    CHECK(plan(q, {}, plain(), ids, {.table = table}).shape.threads > 0);  // a kernel takes the nearest row
    table.rows = 0;
    CHECK_REFUSED(plan(q, {}, plain(), ids, {.table = table}), "no rows");
    table.rows = 9, table.columns = 32;
    CHECK_REFUSED(plan(q, {}, plain(), ids, {.table = table}), "64 or 128 columns", "32");
    table.columns = 64, table.sin = nullptr;
    CHECK_REFUSED(plan(q, {}, plain(), ids, {.table = table}), "lacks its sines");

    const rw::Encoding xpos = rw::make_encoding({.head_dim = 128}, rw::XPos{.length = 2048});
    CHECK_REFUSED(plan(q, {}, xpos, rw::offset{10000000}), "position 10000000", "bf16");
    CHECK(plan(q, {}, xpos, ids).shape.threads > 0);  // taken on trust
    CHECK_REFUSED(rw::gpu::make_rerotation_plan(layout_kind::half_split, q, q, xpos, rw::offset{0}, xpos,
                                                rw::offset{50000000}, {}),
                  "50000000");
}

TEST_CASE("more pairs than a kernel's parameter holds, and options which rerotate has not", "[gpu]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 1026});
    const rw::tensor q = shaped(2, 2, 1026);
    CHECK_REFUSED(plan(q, {}, e, rw::offset{0}), "1026 elements", "1024");
    const rw::tensor k = shaped(2, 2, 128);
    CHECK_REFUSED(rw::gpu::make_rerotation_plan(layout_kind::half_split, k, k, plain(), rw::offset{0}, plain(),
                                                rw::offset{1}, {.direction = rw::direction::inverse}),
                  "directions");
    CHECK_REFUSED(
        rw::gpu::make_rerotation_plan(layout_kind::half_split, q, q, plain(), rw::offset{0}, e, rw::offset{1}, {}),
        "1026 of head_dim 128 and 1026");
}
