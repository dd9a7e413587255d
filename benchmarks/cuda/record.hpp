/// @file  What a benchmark of the device has measured: a table on the terminal and rows of JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

/// One candidate at one size. Bytes are those that must move: every element read once and written once.
struct row {
    std::string candidate;
    std::string type, layout;
    std::int64_t q_heads = 0, kv_heads = 0, tokens = 0;
    double microseconds = 0;
    double bytes = 0;
    double copy_microseconds = 0;  ///< of a device-to-device copy over the same bytes in the same run
    double error = 0;              ///< against float64, of the norm of a pair
    bool in_place = true;

    [[nodiscard]] double terabytes_per_second() const { return bytes / microseconds * 1e-6; }
    [[nodiscard]] double ratio_to_copy() const { return copy_microseconds / microseconds; }
};

void print_head();
void print(const row& one);
/// {"context": {...}, "rows": [...]}; a path that cannot be written throws.
void write(const std::string& path, const std::vector<row>& rows);

double median(std::vector<double> values);

}  // namespace bench
