// Strides past 2^31 elements, in address space without memory until it is touched.
#include <sys/mman.h>

#include "calls.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;

namespace {

class sparse_memory {
public:
    explicit sparse_memory(std::size_t bytes) : bytes_(bytes) {
        void* const memory =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        REQUIRE(memory != MAP_FAILED);
        memory_ = static_cast<unsigned char*>(memory);
    }
    ~sparse_memory() { munmap(memory_, bytes_); }
    sparse_memory(const sparse_memory&) = delete;
    sparse_memory& operator=(const sparse_memory&) = delete;
    [[nodiscard]] unsigned char* data() const { return memory_; }

private:
    std::size_t bytes_;
    unsigned char* memory_ = nullptr;
};

/// Copies between a small array in BSHD order and a strided tensor.
void copy(const rw::tensor& t, test::array& small, bool to_small) {
    const auto size = static_cast<std::int64_t>(rw::size_of(t.type));
    auto* near = static_cast<unsigned char*>(small.tensor().data);
    for (std::int64_t b = 0; b < t.batch; ++b) {
        for (std::int64_t s = 0; s < t.tokens; ++s) {
            for (std::int64_t h = 0; h < t.heads; ++h, near += t.head_dim * size) {
                const std::int64_t element = b * t.stride_batch + s * t.stride_token + h * t.stride_head;
                auto* const far = static_cast<unsigned char*>(t.data) + element * size;
                std::memcpy(to_small ? near : far, to_small ? far : near, static_cast<std::size_t>(t.head_dim * size));
            }
        }
    }
}

}  // namespace

TEST_CASE("strides carry tensors past 2^31 elements and 2^32 bytes", "[huge]") {
    SEEDED(numbers);
    constexpr std::int64_t far = (std::int64_t{1} << 31) + 64;
    const test::extents size{3, 2, 2, 64};
    const test::twin t = test::plain_twin({.head_dim = 64});
    for (const rw::element_type type : test::all_types) {
        for (const int far_axis : {0, 1, 2}) {
            test::array q_values(type, size, numbers), k_values(type, size, numbers);
            rw::tensor q = q_values.tensor();
            q.stride_head = 64, q.stride_token = 128, q.stride_batch = 256;
            (far_axis == 0 ? q.stride_batch : far_axis == 1 ? q.stride_token : q.stride_head) = far;
            const auto elements = static_cast<std::size_t>(3 * far + 4096);
            const sparse_memory memory(2 * elements * rw::size_of(type));
            q.data = memory.data();
            rw::tensor k = q;
            k.data = memory.data() + elements * rw::size_of(type);
            copy(q, q_values, false), copy(k, k_values, false);
            const auto layout = test::all_layouts[numbers.integer(0, 1)];
            const auto shape = test::shape_of(size, t.ours.geometry, layout);
            const auto places = test::consecutive(size, 5);
            const auto q_exact = oracle::rotate(shape, q_values.values(), t.exact, places),
                       k_exact = oracle::rotate(shape, k_values.values(), t.exact, places);
            rw::dispatch::rotate(layout, q, k, q, k, t.ours, rw::offset{5});
            copy(q, q_values, true), copy(k, k_values, true);
            INFO(rw::to_string(layout) << " far axis " << far_axis);
            CHECK_THAT(q_values, test::matches(q_exact, shape));
            CHECK_THAT(k_values, test::matches(k_exact, shape));
        }
    }
}

TEST_CASE("a cos_sin table by index is read past 2^31 elements", "[huge]") {
    SEEDED(numbers);
    constexpr std::int64_t stride = (std::int64_t{1} << 31) + 32;
    const sparse_memory cos_memory(static_cast<std::size_t>(2 * stride) * 4 + 4096),
        sin_memory(static_cast<std::size_t>(2 * stride) * 4 + 4096);
    rw::cpu::options options;
    options.table = {
        .cos = cos_memory.data(), .sin = sin_memory.data(), .rows = 3, .columns = 32, .stride_row = stride};
    // Row 2 rotates by a quarter turn.
    auto* const sin = reinterpret_cast<float*>(sin_memory.data()) + 2 * stride;
    for (int j = 0; j < 32; ++j) sin[j] = 1.0F;
    test::array x(rw::element_type::f32, {1, 1, 1, 64}, numbers);
    const auto before = x.values();
    test::rotate_q(rw::layout_kind::half_split, x, rw::make_encoding({.head_dim = 64}), rw::offset{2}, options);
    const auto after = x.values();
    for (std::size_t j = 0; j < 32; ++j) {
        CHECK(after[j] == -before[j + 32]);
        CHECK(after[j + 32] == before[j]);
    }
}
