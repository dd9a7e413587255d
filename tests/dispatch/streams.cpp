// Streaming stores and huge pages.
#include <dispatch/huge_pages.hpp>
#include <ropewalk/dispatch.hpp>

#include <cstdlib>
#include <cstring>
#include <memory>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <ropewalk/cpu/plan.hpp>

#include "calls.hpp"
#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/tensors.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace {

/// Memory with a guard on either side, `shift` bytes after the start of a cache line.
class guarded_bytes {
public:
    explicit guarded_bytes(std::size_t bytes, std::size_t shift = 0)
        : size_(bytes), all_(new(std::align_val_t{4096}) unsigned char[bytes + 2 * guard]), first_(guard + shift) {
        std::memset(all_.get(), 0xA5, bytes + 2 * guard);
    }
    unsigned char* data() { return all_.get() + first_; }
    [[nodiscard]] bool guards_intact() const {
        for (std::size_t i = 0; i < size_ + 2 * guard; ++i) {
            if ((i < first_ || i >= first_ + size_) && all_[i] != 0xA5) return false;
        }
        return true;
    }

private:
    static constexpr std::size_t guard = 256;
    struct release {
        void operator()(unsigned char* p) const { ::operator delete[](p, std::align_val_t{4096}); }
    };
    std::size_t size_;
    std::unique_ptr<unsigned char[], release> all_;
    std::size_t first_;
};

rw::tensor over(guarded_bytes& memory, rw::element_type type, std::int64_t tokens, std::int64_t heads, std::int64_t dim,
                bool heads_first) {
    rw::tensor t = heads_first ? rw::bhsd(static_cast<float*>(nullptr), 1, heads, tokens, dim)
                               : rw::thd(static_cast<float*>(nullptr), tokens, heads, dim);
    t.data = memory.data(), t.type = type;
    return t;
}

bool streams(rw::layout_kind layout, const rw::tensor& q, const rw::tensor& out, const rw::Encoding& e,
             rw::cpu::options options = {}) {
    options.tuning = rw::cpu::find_profile("zen4");  // 17 MiB are beyond its caches
    return rw::cpu::make_plan(layout, q, test::none(), out, test::none(), e, rw::offset{0}, options)
               .params.loop.order == rw::cpu::traversal::streaming;
}

/// Rotates 17 MiB in place, into memory at the start of a cache line and into memory 16 bytes after one.
void check(test::random& numbers, rw::element_type type, rw::layout_kind layout, const rw::Geometry& g,
           bool heads_first) {
    const rw::Encoding e = rw::make_encoding(g);
    const auto size = static_cast<std::int64_t>(rw::size_of(type));
    const std::int64_t heads = 10, tokens = (std::int64_t{17} << 20) / (heads * g.head_dim * size);
    const auto bytes = static_cast<std::size_t>(tokens * heads * g.head_dim * size);
    guarded_bytes in(bytes), out(bytes), shifted(bytes, 16);
    std::uint64_t state = numbers.bits();
    for (std::size_t i = 0; i < bytes; ++i) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        // Exponents in the middle of the range: every element is finite and normal in each type.
        in.data()[i] = static_cast<unsigned char>(i % 2 == 1 ? 0x38U | (state >> 63 << 7) : state >> 56);
    }
    const auto view = [&](guarded_bytes& memory) { return over(memory, type, tokens, heads, g.head_dim, heads_first); };
    REQUIRE(streams(layout, view(in), view(out), e));
    REQUIRE_FALSE(streams(layout, view(in), view(shifted), e));
    REQUIRE_FALSE(streams(layout, view(in), view(in), e));
    REQUIRE_FALSE(streams(layout, view(in), view(out), e, {.fresh_output = true}));
    const rw::cpu::options options = test::zen4_options();
    dispatch::rotate(layout, view(in), test::none(), view(out), test::none(), e, rw::offset{5}, options);
    dispatch::rotate(layout, view(in), test::none(), view(shifted), test::none(), e, rw::offset{5}, options);
    dispatch::rotate(layout, view(in), test::none(), view(in), test::none(), e, rw::offset{5}, options);
    CHECK(std::memcmp(in.data(), out.data(), bytes) == 0);
    CHECK(std::memcmp(in.data(), shifted.data(), bytes) == 0);
    CHECK((in.guards_intact() && out.guards_intact() && shifted.guards_intact()));
}

}  // namespace

TEST_CASE("streaming stores give the results of ordinary stores", "[streams]") {
    SEEDED(numbers);
    const rw::Geometry whole{.head_dim = 128}, part{.head_dim = 128, .rotary_dim = 90, .rotary_offset = 6};
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            INFO(rw::to_string(type) << ' ' << rw::to_string(layout));
            check(numbers, type, layout, part, true);
            if (test::divisor != 1) continue;
            check(numbers, type, layout, part, false);
            check(numbers, type, layout, whole, false);
            check(numbers, type, layout, whole, true);
        }
    }
}

TEST_CASE("heads that are not whole cache lines, or too long, use ordinary stores", "[streams]") {
    // Only the plan is made; no address is read.
    const auto plan = [](std::int64_t dim, std::int64_t stride_token) {
        rw::tensor in = rw::thd(static_cast<float*>(nullptr), 1 << 16, 2, dim);
        in.stride_token = stride_token;
        rw::tensor out = in;
        in.data = reinterpret_cast<void*>(std::uintptr_t{1} << 40);
        out.data = reinterpret_cast<void*>(std::uintptr_t{1} << 41);
        return streams(rw::layout_kind::half_split, in, out, rw::make_encoding({.head_dim = dim}));
    };
    CHECK(plan(128, 256));
    CHECK(plan(512, 1024));
    CHECK_FALSE(plan(128, 257));
    CHECK_FALSE(plan(120, 240));
    CHECK_FALSE(plan(2048, 4096));
}

TEST_CASE("a request for huge pages changes no byte", "[streams]") {
    dispatch::prefer_huge_pages(nullptr, std::size_t{1} << 30);
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{4096}, std::size_t{9} << 20}) {
        guarded_bytes memory(bytes, 1);
        std::memset(memory.data(), 7, bytes);
        dispatch::prefer_huge_pages(memory.data(), bytes);
        bool same = true;
        for (std::size_t i = 0; i < bytes; ++i) same = same && memory.data()[i] == 7;
        CHECK((same && memory.guards_intact()));
    }
}

#if defined(__linux__)
TEST_CASE("has_pages() distinguishes pages that were written from untouched ones", "[streams]") {
    constexpr std::size_t bytes = std::size_t{9} << 20;
    // No page of a new mapping exists before it is touched.
    auto* const data =
        static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(static_cast<void*>(data) != MAP_FAILED);
    (void)madvise(data, bytes, MADV_NOHUGEPAGE);
    CHECK_FALSE(dispatch::has_pages(data, bytes));
    std::memset(data, 1, bytes - 1);
    CHECK(dispatch::has_pages(data, bytes));
    CHECK(dispatch::has_pages(data + 5, 1));
    REQUIRE(madvise(data + bytes / 2, std::size_t{1} << 16, MADV_DONTNEED) == 0);
    CHECK_FALSE(dispatch::has_pages(data, bytes));
    CHECK(dispatch::has_pages(data, bytes / 2));
    REQUIRE(munmap(data, bytes) == 0);
    CHECK_FALSE(dispatch::has_pages(data, bytes));
}
#endif
