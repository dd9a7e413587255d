#include <dispatch/dispatch.hpp>

#include <sys/mman.h>

#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace {

/// Address space without memory behind it until it is touched.
class sparse {
public:
    explicit sparse(std::size_t bytes) : bytes_(bytes) {
        void* const memory =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        REQUIRE(memory != MAP_FAILED);
        memory_ = static_cast<unsigned char*>(memory);
    }
    ~sparse() { munmap(memory_, bytes_); }
    sparse(const sparse&) = delete;
    sparse& operator=(const sparse&) = delete;
    [[nodiscard]] unsigned char* data() const { return memory_; }

private:
    std::size_t bytes_;
    unsigned char* memory_ = nullptr;
};

std::int64_t element(const rw::tensor& t, std::int64_t b, std::int64_t s, std::int64_t h) {
    return b * t.stride_batch + s * t.stride_token + h * t.stride_head;
}

/// Copies between a small array in BSHD order and the strided tensor.
void copy(const rw::tensor& t, test::array& small, bool out_of_t) {
    const auto size = static_cast<std::int64_t>(rw::size_of(t.type));
    auto* near = static_cast<unsigned char*>(small.tensor().data);
    for (std::int64_t b = 0; b < t.batch; ++b) {
        for (std::int64_t s = 0; s < t.tokens; ++s) {
            for (std::int64_t h = 0; h < t.heads; ++h, near += t.head_dim * size) {
                auto* const far = static_cast<unsigned char*>(t.data) + element(t, b, s, h) * size;
                std::memcpy(out_of_t ? near : far, out_of_t ? far : near, static_cast<std::size_t>(t.head_dim * size));
            }
        }
    }
}

}  // namespace

TEST_CASE("strides carry tensors past 2^31 elements and 2^32 bytes", "[huge]") {
    SEEDED(numbers);
    constexpr std::int64_t two_31 = std::int64_t{1} << 31;
    const test::extents size{3, 2, 2, 64};
    const test::twin t = test::plain_twin({.head_dim = 64});
    for (const rw::element_type type : test::all_types) {
        for (const int far_axis : {0, 1, 2}) {
            test::array values(type, size, numbers), k_values(type, size, numbers);
            rw::tensor q = values.tensor();
            const std::int64_t far = two_31 + 64;
            q.stride_head = 64, q.stride_token = 128, q.stride_batch = 256;
            (far_axis == 0 ? q.stride_batch : far_axis == 1 ? q.stride_token : q.stride_head) = far;
            const auto elements = static_cast<std::size_t>(3 * far + 4096);
            const sparse memory(2 * elements * rw::size_of(type));
            q.data = memory.data();
            rw::tensor k = q;
            k.data = memory.data() + elements * rw::size_of(type);
            copy(q, values, false);
            copy(k, k_values, false);
            const auto layout = numbers.one_of({rw::layout_kind::half_split, rw::layout_kind::interleaved});
            const auto shape = test::shape_of(size, t.ours.geometry, layout);
            const auto places = test::consecutive(size, 5);
            const auto exact = oracle::rotate(shape, values.values(), t.exact, places),
                       k_exact = oracle::rotate(shape, k_values.values(), t.exact, places);
            dispatch::rotate(layout, q, k, q, k, t.ours, rw::offset{5});
            copy(q, values, true);
            copy(k, k_values, true);
            INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << " far axis " << far_axis);
            CHECK(test::compare(values, exact, shape).first_problem == "");
            CHECK(test::compare(k_values, k_exact, shape).first_problem == "");
        }
    }
}

TEST_CASE("a cos_sin table by index is read past 2^31 elements", "[huge]") {
    SEEDED(numbers);
    constexpr std::int64_t stride = (std::int64_t{1} << 31) + 32;
    const sparse cos_memory(static_cast<std::size_t>(2 * stride) * 4 + 4096),
        sin_memory(static_cast<std::size_t>(2 * stride) * 4 + 4096);
    rw::cpu::options options;
    options.table.cos = cos_memory.data(), options.table.sin = sin_memory.data();
    options.table.rows = 3, options.table.columns = 32, options.table.stride_row = stride;
    auto* const cos = reinterpret_cast<float*>(cos_memory.data()) + 2 * stride;
    auto* const sin = reinterpret_cast<float*>(sin_memory.data()) + 2 * stride;
    for (int j = 0; j < 32; ++j) cos[j] = 0.0F, sin[j] = 1.0F;
    test::array x(rw::element_type::f32, {1, 1, 1, 64}, numbers);
    const auto before = x.values();
    dispatch::rotate(rw::layout_kind::half_split, x.tensor(), test::none(), x.tensor(), test::none(),
                     rw::make_encoding({.head_dim = 64}), rw::offset{2}, options);
    const auto after = x.values();
    for (std::size_t j = 0; j < 32; ++j) {
        CHECK(after[j] == -before[j + 32]);
        CHECK(after[j + 32] == before[j]);
    }
}
