// Results of a device benchmark: a table on the terminal and rows of JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

/// Microseconds of device-to-device copies of the bytes of a row in the same run; 0: not measured.
struct copy_times {
    double graph = 0;   ///< a memcpy node of a graph
    double stream = 0;  ///< cudaMemcpyAsync, call by call
    double kernel = 0;  ///< copy_by_kernel()
};

/// One candidate at one size. `bytes` counts every element read once and written once.
struct row {
    std::string candidate;
    std::string type, layout;
    std::int64_t q_heads = 0, kv_heads = 0, tokens = 0;
    double microseconds = 0;  ///< 0: launched only
    double bytes = 0;
    copy_times copies{};
    double error = 0;  ///< relative to the norm of a pair, compared with float64
    bool in_place = true;
    int heads_per_thread = 0;  ///< 0: chosen by the launch plan

    [[nodiscard]] double terabytes_per_second() const { return bytes / microseconds * 1e-6; }
    [[nodiscard]] double ratio_to_copy() const { return copies.graph / microseconds; }
};

void print_head();
void print(const row& result);
/// Writes {"context": {...}, "rows": [...]}. Rows that were launched only have no times. Throws if the file cannot be
/// written.
void write(const std::string& path, const std::vector<row>& rows);

}  // namespace bench
