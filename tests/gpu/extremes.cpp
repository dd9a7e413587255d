// Plans of launches with extents and strides near the ends of 64 bits. The sanitizers report an overflow.
#include <ropewalk/gpu/fused_plan.hpp>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"
#include "support/extremes.hpp"
#include "support/view_of.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace {

/// A cache [8, 16, 2, 64] of whose numbers up to two are extreme.
gpu::cache_tensor random_cache(test::random& numbers, std::uintptr_t region) {
    auto* const data = reinterpret_cast<std::int8_t*>(region << 44);
    auto* const scales = reinterpret_cast<float*>((region << 44) + (std::uintptr_t{1} << 40));
    gpu::cache_tensor cache = gpu::nhd_cache(data, 8, 16, 2, 64, scales);
    std::int64_t* const all[] = {&cache.pages,
                                 &cache.page_size,
                                 &cache.heads,
                                 &cache.stride_page,
                                 &cache.stride_token,
                                 &cache.stride_head,
                                 &cache.scale_stride_page,
                                 &cache.scale_stride_token,
                                 &cache.scale_stride_head};
    for (std::int64_t count = numbers.integer(0, 2); count > 0; --count)
        *all[numbers.integer(0, 8)] = test::extreme(numbers);
    return cache;
}

gpu::cache_slots random_slots(test::random& numbers) {
    const rw::positions entries = rw::offset{numbers.coin() ? 0 : test::extreme(numbers)};
    gpu::cache_slots slots = gpu::by_sequence(entries);
    if (numbers.coin()) return slots;
    slots.source = gpu::cache_slots::kind::page_table;
    slots.table = reinterpret_cast<const std::int32_t*>(std::uintptr_t{9} << 44);
    slots.sequences = numbers.coin() ? 2 : test::extreme(numbers);
    slots.max_pages = numbers.coin() ? 4 : test::extreme(numbers);
    slots.stride_sequence = numbers.coin() ? 4 : test::extreme(numbers);
    return slots;
}

}  // namespace

TEST_CASE("extents and strides near 2^63 are refused or planned for a device without overflow", "[gpu][extremes]") {
    SEEDED(numbers);
    const rw::Encoding plain = rw::make_encoding({.head_dim = 64}),
                       magnitudes = rw::make_encoding({.head_dim = 64}, "xpos");
    std::int64_t accepted = 0, refused = 0;
    for (std::int64_t i = 0; i < test::cases(20000); ++i) {
        const test::extreme_call call(numbers, numbers.coin() ? plain : magnitudes);
        gpu::launch_plan plan;
        const std::string message = test::message_of([&] { plan = gpu::make_plan(call.args); });
        INFO(message);
        CHECK((message.empty() ? test::problem_of_accepted(call.args) : "") == "");
        (message.empty() ? accepted : refused) += 1;
        if (!message.empty()) continue;
        // One thread moves up to 16 heads of a chunk of 16 bytes.
        const double elements =
            static_cast<double>(call.args.q_in.elements()) + static_cast<double>(call.args.k_in.elements());
        const auto threads = static_cast<double>(plan.kernel.threads);
        CHECK((threads <= elements && threads * 16 * 8 >= elements));
    }
    CHECK((accepted > test::cases(20000) / 50 && refused > test::cases(20000) / 2));
}

TEST_CASE("fused calls with numbers near 2^63 are refused or planned without overflow", "[gpu][fused][extremes]") {
    SEEDED(numbers);
    const rw::Encoding encoding = rw::make_encoding({.head_dim = 64});
    std::int64_t accepted = 0;
    for (std::int64_t i = 0; i < test::cases(20000); ++i) {
        rw::rotate_args args = test::extreme_call(numbers, encoding).args;
        if (numbers.coin()) {
            rw::tensor t = args.q_in;
            t.batch = 2, t.tokens = 3, t.heads = 4, t.stride_batch = 768, t.stride_token = 256, t.stride_head = 64;
            args.q_in = args.q_out = t;
            t.heads = 2, t.stride_batch = 384, t.stride_token = 128,
            t.data = reinterpret_cast<void*>(std::uintptr_t{2} << 44);
            args.k_in = args.k_out = t;
        }
        rw::tensor v = args.k_in;
        if (v.exists()) v.data = reinterpret_cast<void*>(std::uintptr_t{7} << 44);
        const gpu::fusion fusion{
            .cache = {random_cache(numbers, 10), v.exists() ? random_cache(numbers, 11) : gpu::cache_tensor{}},
            .slots = random_slots(numbers)};
        const std::string message = test::message_of([&] {
            (void)gpu::make_fused_plan<float>(rw::layout_kind::half_split,
                                              {test::view_of<const float>(args.q_in),
                                               test::view_of<const float>(args.k_in), test::view_of<const float>(v)},
                                              {test::view_of<float>(args.q_out), {}, {}}, fusion, encoding,
                                              rw::offset{0}, {});
        });
        accepted += message.empty();
    }
    CHECK(accepted > test::cases(20000) / 50);
}
