// Streams, graphs, early launches and refused calls.
#include <cstring>
#include <span>

#include "device_array.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

constexpr rw::Geometry head{.head_dim = 128};
constexpr auto half = rw::layout_kind::half_split;
constexpr auto f32 = rw::element_type::f32;

/// One rotation of queries and keys on the device.
void rotate(const device::tensors& in, const device::tensors& out, const rw::Encoding& encoding,
            const rw::positions& positions, const rw::gpu::options& options = {}, rw::layout_kind layout = half) {
    const rw::tensor& any = in.q.exists() ? in.q : in.k;
    device::with_calls(any.type, layout, [&](auto calls) { calls.rotate(in, out, encoding, positions, options); });
}
device::tensors queries(const rw::tensor& q) { return {.q = q, .k = {}, .v = {}}; }

}  // namespace

TEST_CASE("a decode step in a graph follows the numbers in device memory", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin(head);
    for (const rw::layout_kind layout : test::all_layouts) {
        const test::extents size{4, 1, 8, 128};
        test::array q(rw::element_type::bf16, size, numbers), k(rw::element_type::bf16, {4, 1, 2, 128}, numbers);
        test::device_array q_copy(q), k_copy(k);
        std::vector<std::int64_t> ids{0, 0, 0, 0};
        const test::device_positions where(rw::ids(std::span<const std::int64_t>(ids), 4));
        const device::tensors both{.q = q_copy.tensor(), .k = k_copy.tensor(), .v = {}};
        const device::stream stream;
        // Recording validates pointers; it neither waits nor allocates.
        const device::graph step(
            stream, [&](device::stream_handle on) { rotate(both, both, t.ours, where.get(), {.stream = on}, layout); });
        CHECK(step.nodes() == std::size_t{1});
        for (const std::int64_t first : {std::int64_t{5}, std::int64_t{1000000}, std::int64_t{1} << 31}) {
            std::vector<oracle::place> places;
            for (std::int64_t row = 0; row < 4; ++row) {
                ids[static_cast<std::size_t>(row)] = first + 100 * row;
                places.push_back({first + 100 * row, 0});
            }
            device::copy(where.memory().data(), ids.data(), where.memory().bytes());
            const auto q_before = q.values(), k_before = k.values();
            step.replay(stream);
            device::finish();
            q_copy.fetch(), k_copy.fetch();
            const auto q_shape = test::shape_of(size, head, layout), k_shape = test::shape_of(k.size(), head, layout);
            CHECK_THAT(q, test::matches(oracle::rotate(q_shape, q_before, t.exact, places), q_shape));
            CHECK_THAT(k, test::matches(oracle::rotate(k_shape, k_before, t.exact, places), k_shape));
        }
    }
}

TEST_CASE("rotations and their inverses, each launch starting while the previous one ends", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin(head);
    const std::int64_t tokens = test::reduced() ? 40 : 2000;
    test::array q(f32, {1, tokens, 8, 128}, numbers), waited(q);
    test::device_array early_copy(q), waited_copy(waited);
    const device::stream stream;
    for (const bool early : {false, true}) {
        const device::tensors x = queries((early ? early_copy : waited_copy).tensor());
        for (int i = 0; i < 20; ++i) {
            rw::gpu::options options{.stream = stream.get(), .overlap_previous = early};
            options.direction = i % 2 == 0 ? rw::direction::forward : rw::direction::inverse;
            rotate(x, x, t.ours, rw::offset{1000000}, options);
        }
    }
    device::finish();
    early_copy.fetch(), waited_copy.fetch();
    CHECK(q.bytes() == waited.bytes());
}

TEST_CASE("the same call gives the same bits, in place and out of place, in any launch", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin(head);
    for (const rw::element_type type : test::all_types) {
        test::array all(type, {1, 300, 8, 128}, numbers), in_steps(all), out(type, all.size());
        test::device_array all_copy(all), single_copy(in_steps), out_copy(out);
        rotate(queries(all_copy.tensor()), queries(out_copy.tensor()), t.ours, rw::offset{77});
        rotate(queries(all_copy.tensor()), queries(all_copy.tensor()), t.ours, rw::offset{77});
        for (std::int64_t token = 0; token < 300; ++token) {
            rw::tensor row = single_copy.tensor();
            row.data = static_cast<char*>(row.data) + token * row.stride_token * std::int64_t(rw::size_of(type));
            row.tokens = 1;
            rotate(queries(row), queries(row), t.ours, rw::offset{77 + token});
        }
        device::finish();
        all_copy.fetch(), single_copy.fetch(), out_copy.fetch();
        CHECK(all.bytes() == out.bytes());
        CHECK(all.bytes() == in_steps.bytes());
    }
}

TEST_CASE("without norm and cache a fused call has the bits of a rotation", "[cuda][fused]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin(head);
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            test::array x(type, {2, 33, 8, 128}, numbers), y(x);
            test::device_array x_copy(x), y_copy(y);
            const device::tensors in = queries(x_copy.tensor()), fused = queries(y_copy.tensor());
            rotate(in, in, t.ours, rw::offset{1000000}, {}, layout);
            device::with_fused_calls(type, layout,
                                     [&](auto calls) { calls.run(fused, fused, {}, t.ours, rw::offset{1000000}, {}); });
            device::finish();
            x_copy.fetch(), y_copy.fetch();
            CHECK(x == y);
        }
    }
}

TEST_CASE("host memory that the device may use", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin(head);
    const test::extents size{1, 6, 4, 128};
    test::array q(f32, size, numbers);
    const auto before = q.values();
    const std::size_t bytes = before.size() * sizeof(float);
    const device::pinned pinned(bytes);
    std::memcpy(pinned.data(), q.tensor().data, bytes);
    const auto view = queries(rw::thd(static_cast<float*>(pinned.data()), 6, 4, 128));
    rotate(view, view, t.ours, rw::offset{3});
    device::finish();
    std::memcpy(q.tensor().data, pinned.data(), bytes);
    const auto shape = test::shape_of(size, head, half);
    CHECK_THAT(q, test::matches(oracle::rotate(shape, before, t.exact, test::consecutive(size, 3)), shape));
}

TEST_CASE("invalid calls are refused with their values, and write nothing", "[cuda]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin(head);
    test::array q(f32, {1, 6, 4, 128}, numbers), k(f32, {1, 6, 2, 128}, numbers);
    const test::array before(q);
    test::device_array copy(q), k_copy(k);
    const rw::tensor whole = copy.tensor();
    const auto refused = [&](const device::tensors& in, const device::tensors& out, const rw::Encoding& encoding,
                             const rw::positions& positions) {
        return test::message_of([&] { rotate(in, out, encoding, positions); });
    };
    const auto in_place = [&](const rw::tensor& x, const rw::positions& positions = rw::offset{0}) {
        return refused(queries(x), queries(x), t.ours, positions);
    };

    if (device::is_real()) {
        std::string message = in_place(q.tensor());
        CHECK(test::holds(message, {"q at", "host memory"}));
        message = refused({.q = whole, .k = k.tensor(), .v = {}}, {.q = whole, .k = k.tensor(), .v = {}}, t.ours,
                          rw::offset{0});
        CHECK(test::holds(message, {"k at", "host memory"}));
        const std::vector<std::int64_t> ids(6, 1);
        CHECK(test::holds(in_place(whole, rw::ids(std::span<const std::int64_t>(ids))),
                          {"the positions at", "host memory"}));
        message = test::message_of([&] {
            device::with_broken_stream([&](device::stream_handle on) {
                rotate(queries(whole), queries(whole), t.ours, rw::offset{0}, {.stream = on, .check_pointers = false});
            });
        });
        CHECK(test::holds(message, {"launch of", "blocks of", "threads"}));
    }
    rw::tensor x = whole;
    x.data = nullptr;
    CHECK(test::holds(in_place(x), {"no memory"}));
    x = whole, x.data = static_cast<char*>(whole.data) + 2;
    CHECK(test::holds(in_place(x), {"not aligned to the 4 bytes of f32"}));
    x = whole, x.stride_element = 2;
    CHECK(test::holds(in_place(x), {"contiguous"}));
    x = whole, x.head_dim = 64;
    CHECK(test::holds(in_place(x), {"head_dim 128", "head_dim 64"}));
    rw::positions where;
    where.source = rw::positions::kind::ids64, where.count = 6;
    CHECK(test::holds(in_place(whole, where), {"6 tokens", "null pointer"}));
    where.data = static_cast<char*>(whole.data) + 4;
    CHECK(test::holds(in_place(whole, where), {"not aligned to the 8 bytes"}));
    x = whole, x.heads = 2;
    rw::tensor over = x;
    over.data = static_cast<char*>(x.data) + 64;
    CHECK(test::holds(refused(queries(x), queries(over), t.ours, rw::offset{0}), {"overlap"}));
    rw::tensor wide = whole;
    wide.head_dim = 1026, wide.heads = 1, wide.tokens = 1;
    CHECK(test::holds(refused(queries(wide), queries(wide), rw::make_encoding({.head_dim = 1026}), rw::offset{0}),
                      {"1026", "1024"}));
    CHECK(test::holds(
        refused(queries(whole), queries(whole), rw::make_encoding(head, "randomized:512,seed=3"), rw::offset{0}),
        {"randomized", "fixed_position"}));
    device::finish();
    copy.fetch();
    CHECK(q == before);
}

TEST_CASE("memory of another device is refused", "[cuda]") {
    if (device::look().count < 2) SKIP("there is one device");
    SEEDED(numbers);
    const test::twin t = test::plain_twin(head);
    test::array q(f32, {1, 6, 4, 128}, numbers);
    test::device_array copy(q);
    const device::on_device other(1);
    const std::string message =
        test::message_of([&] { rotate(queries(copy.tensor()), queries(copy.tensor()), t.ours, rw::offset{0}); });
    CHECK(test::holds(message, {"on device 0", "current one is 1"}));
}
