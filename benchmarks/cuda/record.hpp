// Results of a device benchmark: a table on the terminal and rows of JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

/// One candidate at one size. `bytes` counts every element read once and written once.
struct row {
    std::string candidate;
    std::string type, layout;
    std::int64_t q_heads = 0, kv_heads = 0, tokens = 0;
    double microseconds = 0;
    double bytes = 0;
    double copy_microseconds = 0;  ///< of a device-to-device copy of the same bytes in the same run
    double error = 0;              ///< relative to the norm of a pair, compared with float64
    bool in_place = true;

    [[nodiscard]] double terabytes_per_second() const { return bytes / microseconds * 1e-6; }
    [[nodiscard]] double ratio_to_copy() const { return copy_microseconds / microseconds; }
};

void print_head();
void print(const row& result);
/// Writes {"context": {...}, "rows": [...]}. Throws if the file cannot be written.
void write(const std::string& path, const std::vector<row>& rows);

}  // namespace bench
