/// @file  GPU kernels executed on the host, one thread after the other, with a record of every access.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ropewalk/gpu/access.hpp>
#include <ropewalk/gpu/fused_plan.hpp>
#include <ropewalk/gpu/plan.hpp>
#include <ropewalk/gpu/rerotate_cache_plan.hpp>

#include "support/tensors.hpp"

namespace test {

/// Counts of the reads and writes of each byte of some memory, and accesses that a device would reject.
class memory_log {
public:
    /// Records accesses to this memory.
    void watch(const array& memory) { watch(memory.bytes().data(), memory.bytes().size()); }
    void watch(const void* first, std::size_t bytes);
    void record(const void* address, int bytes, bool writes);

    /// The number of reads or writes of each byte of watched memory.
    [[nodiscard]] const std::vector<std::uint8_t>& reads(const void* first) const { return of(first).reads; }
    [[nodiscard]] const std::vector<std::uint8_t>& writes(const void* first) const { return of(first).writes; }
    [[nodiscard]] const std::vector<std::uint8_t>& reads(const array& memory) const {
        return reads(memory.bytes().data());
    }
    [[nodiscard]] const std::vector<std::uint8_t>& writes(const array& memory) const {
        return writes(memory.bytes().data());
    }
    /// The first access that is misaligned or outside the watched memory, or "".
    [[nodiscard]] const std::string& problem() const { return problem_; }

private:
    struct range {
        const unsigned char* first = nullptr;
        std::vector<std::uint8_t> reads, writes;
    };
    [[nodiscard]] const range& of(const void* first) const;

    std::vector<range> ranges_;
    std::string problem_;
};

/// The access policy of a body in tests: plain_access, recorded in a log.
struct recorded_access {
    static thread_local memory_log* log;

    template <int Bytes>
    static ropewalk::gpu::vec_bits<Bytes> load(const void* from) {
        log->record(from, Bytes, false);
        return ropewalk::gpu::plain_access::load<Bytes>(from);
    }
    template <int Bytes>
    static void store(void* to, const ropewalk::gpu::vec_bits<Bytes>& value) {
        log->record(to, Bytes, true);
        ropewalk::gpu::plain_access::store<Bytes>(to, value);
    }
};

/// Calls body(index) for every thread of a launch.
template <class Body>
void for_each_thread(const ropewalk::gpu::launch_shape& shape, const Body& body) {
    for (std::int64_t block = 0; block < shape.grid; ++block) {
        for (int thread = 0; thread < shape.block; ++thread) {
            const std::int64_t index = block * shape.block + thread;
            if (index < shape.threads) body(index);
        }
    }
}

/// Executes the launch of a rotation, a fused call or a re-rotation of a cache.
void run_on_host(ropewalk::layout_kind layout, const ropewalk::gpu::launch_plan& plan, memory_log& log);
void run_on_host(ropewalk::layout_kind layout, const ropewalk::gpu::fused_plan& plan, memory_log& log);
void run_on_host(ropewalk::layout_kind layout, const ropewalk::gpu::rerotate_cache_plan& plan, memory_log& log);

/// The same call by the CPU's kernels, compiled with the same flags.
void rotate_on_cpu(ropewalk::layout_kind layout, const ropewalk::tensor& q, const ropewalk::tensor& k,
                   const ropewalk::tensor& q_out, const ropewalk::tensor& k_out, const ropewalk::Encoding& encoding,
                   const ropewalk::positions& where, ropewalk::direction direction,
                   const ropewalk::cos_sin_table& table);
void rerotate_on_cpu(ropewalk::layout_kind layout, const ropewalk::tensor& k, const ropewalk::tensor& k_out,
                     const ropewalk::Encoding& from, const ropewalk::positions& from_where,
                     const ropewalk::Encoding& to, const ropewalk::positions& to_where);

}  // namespace test
