/// @file  Attention's kernels executed on the host, every warp of a launch one after the other, with each access
/// recorded.
#pragma once

#include <ropewalk/llama/gpu/attend_plan.hpp>

#include "gpu/host.hpp"

namespace test {

/// Executes a job's launch.
template <class Job>
void run_on_host(const Job& job, memory_log& log) {
    recorded_access::log = &log;
    with_body(job, [&](auto body) {
        for (std::int64_t index = 0; index < job.threads; index += ropewalk::gpu::warp_lanes)
            body.template run<ropewalk::llama::gpu::host_lanes, recorded_access>(job, index);
    });
}

/// Rows of an array of one token a row and one head, which may have a stride.
inline ropewalk::llama::gpu::matrix_view matrix_of(array& memory) {
    const ropewalk::tensor t = memory.tensor();
    return {t.data, t.type, t.tokens, t.head_dim, t.stride_token};
}

/// The first element of which `got` is not the rounding of a number within `room` of the exact one, or "".
inline std::string first_wrong(const std::vector<double>& got, const std::vector<double>& exact,
                               const std::vector<double>& room, const oracle::format& f) {
    for (std::size_t i = 0; i < exact.size(); ++i) {
        const double low = exact[i] - room[i], high = exact[i] + room[i];
        const bool right = f.bytes == 4 ? low <= got[i] && got[i] <= high
                                        : oracle::rounded(low, f) <= got[i] && got[i] <= oracle::rounded(high, f);
        if (!right)
            return "element " + std::to_string(i) + " is " + std::to_string(got[i]) + ", exact " +
                   std::to_string(exact[i]) + " within " + std::to_string(room[i]);
    }
    return {};
}

/// Whether all elements of an array, and nothing beside them, were written once.
inline std::string writes_problem(const memory_log& log, array& memory) {
    const ropewalk::tensor t = memory.tensor();
    const auto size = static_cast<std::int64_t>(ropewalk::size_of(t.type));
    const std::vector<std::uint8_t>& writes = log.writes(memory);
    std::vector<std::uint8_t> expected(writes.size(), 0);
    const std::int64_t base = static_cast<const unsigned char*>(t.data) - memory.bytes().data();
    for (std::int64_t row = 0; row < t.batch * t.tokens * t.heads; ++row) {
        const std::int64_t head = row % t.heads, token = row / t.heads % t.tokens, batch = row / t.heads / t.tokens;
        const std::int64_t start = batch * t.stride_batch + token * t.stride_token + head * t.stride_head;
        for (std::int64_t i = 0; i < t.head_dim * size; ++i)
            expected[static_cast<std::size_t>(base + start * size + i)] = 1;
    }
    if (writes != expected) return "not every element was written once, or something beside them";
    return memory.guards_intact() ? "" : "bytes around the tensor changed";
}

}  // namespace test
