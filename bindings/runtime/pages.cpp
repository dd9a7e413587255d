#include "pages.hpp"

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ropewalk::runtime {

void prefer_huge_pages(void* data, std::size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr std::size_t huge = std::size_t{2} << 20;  // what a whole huge page may lie in
    if (data == nullptr || bytes < huge) return;
    static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    // Outwards: an allocator's own words in front would cut the first huge page off.
    const std::size_t before = reinterpret_cast<std::uintptr_t>(data) % page;
    const std::size_t length = (before + bytes + page - 1) / page * page;
    // Without such pages the advice is refused, and the memory is as it was.
    (void)madvise(static_cast<char*>(data) - before, length, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}

}  // namespace ropewalk::runtime
