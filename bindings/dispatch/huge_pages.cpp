#include "huge_pages.hpp"

#include <algorithm>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ropewalk::dispatch {

#if defined(__linux__)

namespace {

std::size_t page_bytes() {
    static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return bytes;
}

/// The whole pages that contain a range of memory.
struct page_range {
    char* start;
    std::size_t bytes;

    page_range(const void* data, std::size_t length) {
        const std::size_t page = page_bytes(), before = reinterpret_cast<std::uintptr_t>(data) % page;
        start = const_cast<char*>(static_cast<const char*>(data)) - before;
        bytes = (before + length + page - 1) / page * page;
    }
};

}  // namespace

#endif

void prefer_huge_pages(void* data, std::size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (data == nullptr || bytes < huge_page_bytes) return;
    // Rounds outwards, because the allocator's header would cut off the first huge page. A system without huge pages
    // rejects the advice, which changes nothing.
    const page_range pages(data, bytes);
    (void)madvise(pages.start, pages.bytes, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}

bool has_pages(const void* data, std::size_t bytes) noexcept {
#if defined(__linux__)
    const page_range pages(data, bytes);
    unsigned char present[1024];  // one per page
    const std::size_t limit = sizeof present * page_bytes();
    for (std::size_t at = 0; at < pages.bytes; at += limit) {
        const std::size_t length = std::min(limit, pages.bytes - at);
        if (mincore(pages.start + at, length, present) != 0) return false;
        const auto missing = [](unsigned char page) { return (page & 1U) == 0; };
        if (std::any_of(present, present + length / page_bytes(), missing)) return false;
    }
    return true;
#else
    (void)data, (void)bytes;
    return false;
#endif
}

}  // namespace ropewalk::dispatch
