// What the device stack wants of a device: memory, copies, the kernels, and steps that are recorded once. The CUDA
// machine is in cuda_machine.cuh; tests have one that is the host.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "ropewalk/llama/gpu/llama.hpp"

namespace ropewalk::llama {

/// Seconds of each part of what a machine ran, by llama_part.
using part_seconds = std::array<double, 6>;

/// Everything happens in the order of the calls. All but download() and seconds() may return before it has happened;
/// host memory may be written again when upload() returns. Errors are ropewalk::error.
template <class M>
concept Machine =
    std::movable<typename M::recording> && requires(M& machine, void* device, const void* from, void* to,
                                                    std::int64_t bytes, typename M::recording& step, void (*work)()) {
        { machine.allocate(bytes) } -> std::same_as<void*>;  // aligned to 256 bytes
        { machine.release(device, bytes) } noexcept;
        machine.upload(device, from, bytes);
        machine.download(to, from, bytes);
        machine.copy(device, from, bytes);  // within the device
        { machine.shape() } -> std::same_as<ropewalk::gpu::device_shape>;
        // The kernels: see gpu/attention. run() takes any of the jobs, append() any element type.
        machine.run(std::declval<const gpu::silu_job&>());
        machine.multiply(std::declval<const gpu::product&>());
        machine.append(layout_kind{}, view<float>{}, view<float>{}, view<float>{}, ropewalk::gpu::kv_cache{},
                       ropewalk::gpu::cache_slots{}, std::declval<const Encoding&>(), positions{});
        machine.rerotate(layout_kind{}, view<float>{}, std::declval<const Encoding&>(), positions{},
                         std::declval<const Encoding&>(), positions{});
        // What a machine is told while record(work) runs work does not happen then, but whenever the step is replayed.
        { machine.record(work) } -> std::same_as<typename M::recording>;
        machine.replay(step);
        // Time that passes on the device from here on is that of a part, until seconds() is asked, which waits.
        machine.enter(gpu::llama_part{});
        { machine.seconds() } -> std::same_as<part_seconds>;
    };

/// Memory of a machine, which outlives it.
template <class M>
class device_memory {
public:
    explicit device_memory(M& machine) : machine_(&machine) {}
    device_memory(M& machine, std::int64_t bytes) : machine_(&machine), data_(machine.allocate(bytes)), bytes_(bytes) {}
    device_memory(device_memory&& other) noexcept { swap(other); }
    device_memory& operator=(device_memory&& other) noexcept {
        swap(other);
        return *this;
    }
    ~device_memory() {
        if (data_ != nullptr) machine_->release(data_, bytes_);
    }

    [[nodiscard]] void* data() const { return data_; }
    [[nodiscard]] std::int64_t bytes() const { return bytes_; }

    /// At least so many bytes, elsewhere and with nothing of what they held where they were too few.
    void* room(std::int64_t bytes) {
        if (bytes > bytes_) {
            *this = device_memory(*machine_);  // first, so that there is room
            *this = device_memory(*machine_, bytes);
        }
        return data_;
    }

private:
    void swap(device_memory& other) noexcept {
        std::swap(machine_, other.machine_);
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
    }

    M* machine_ = nullptr;
    void* data_ = nullptr;
    std::int64_t bytes_ = 0;
};

/// What llama_forward() takes for a device: a machine, and the type and layout of a model.
template <class M, Element T>
struct typed_machine {
    using element = T;

    M& machine;
    layout_kind layout;
    bool measures = false;

    template <class Job>
    void run(const Job& job) const {
        machine.run(job);
    }
    void multiply(const gpu::product& p) const { machine.multiply(p); }
    void append(const view<T>& q, const view<T>& k, const view<T>& v, const ropewalk::gpu::kv_cache& cache,
                const ropewalk::gpu::cache_slots& slots, const Encoding& encoding, const positions& where) const {
        machine.append(layout, q, k, v, cache, slots, encoding, where);
    }
    void enter(gpu::llama_part part) const {
        if (measures) machine.enter(part);
    }
};

}  // namespace ropewalk::llama
