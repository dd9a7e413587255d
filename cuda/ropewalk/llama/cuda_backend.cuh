// A GPU as the device stack wants it: memory, copies, kernels, cuBLAS, and steps recorded as CUDA graphs.
#pragma once

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ropewalk/gpu/fused.cuh"
#include "ropewalk/gpu/rotate.cuh"
#include "ropewalk/llama/device_backend.hpp"
#include "ropewalk/llama/gpu/cublas.cuh"
#include "ropewalk/llama/gpu/device.cuh"

namespace ropewalk::llama {

namespace detail {

struct destroy_cuda {
    void operator()(cudaStream_t stream) const { (void)cudaStreamDestroy(stream); }
    void operator()(cudaEvent_t event) const { (void)cudaEventDestroy(event); }
    void operator()(cudaGraph_t graph) const { (void)cudaGraphDestroy(graph); }
    void operator()(cudaGraphExec_t graph) const { (void)cudaGraphExecDestroy(graph); }
};
template <class Handle>
using owned = std::unique_ptr<std::remove_pointer_t<Handle>, destroy_cuda>;

}  // namespace detail

/// The device that is current when it is made, with a stream of its own. One thread at a time may use it.
class RW_HIDDEN cuda_machine {
    using part = gpu::llama_part;

    /// The moment from which on time belongs to a part.
    struct mark {
        part begins = part::other;
        cudaEvent_t event = nullptr;
    };

public:
    /// A step as a graph, with the events that it records whenever it is replayed.
    class recording {
        friend cuda_machine;
        detail::owned<cudaGraphExec_t> graph_;
        std::vector<detail::owned<cudaEvent_t>> events_;
        std::vector<mark> marks_;
    };

    /// Throws ropewalk::error where there is no device, or no memory for what cuBLAS wants for itself.
    cuda_machine() : device_(ropewalk::gpu::detail::current_device()) {
        cudaStream_t stream = nullptr;
        check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "no stream");
        stream_.reset(stream);
        chosen_.stream = stream, chosen_.check_pointers = false;
        room_ = device_memory<cuda_machine>(*this, gpu::cublas_workspace_bytes);
        products_ = std::make_unique<gpu::cublas>(room_.data(), room_.bytes());
    }
    cuda_machine(const cuda_machine&) = delete;
    cuda_machine& operator=(const cuda_machine&) = delete;
    ~cuda_machine() { (void)cudaStreamSynchronize(stream_.get()); }

    void* allocate(std::int64_t bytes) {
        void* data = nullptr;
        check(cudaMalloc(&data, static_cast<std::size_t>(bytes)),
              ropewalk::detail::format("{} bytes of device memory beside {}", bytes, held_));
        held_ += bytes;
        peak_ = held_ > peak_ ? held_ : peak_;
        return data;
    }
    /// Waits for the device.
    void release(void* data, std::int64_t bytes) noexcept {
        (void)cudaFree(data);
        held_ -= bytes;
    }

    void upload(void* to, const void* from, std::int64_t bytes) {
        if (bytes == 0) return;
        put(to, from, bytes, cudaMemcpyHostToDevice);
        wait();  // Pinned memory is read later, and so may be any other where a device reads that itself.
    }
    void download(void* to, const void* from, std::int64_t bytes) {
        if (bytes > 0) put(to, from, bytes, cudaMemcpyDeviceToHost);
        wait();
    }
    void copy(void* to, const void* from, std::int64_t bytes) {
        if (bytes > 0) put(to, from, bytes, cudaMemcpyDeviceToDevice);
    }

    [[nodiscard]] ropewalk::gpu::device_shape shape() const { return ropewalk::gpu::detail::shape_of_device(device_); }

    template <class Job>
    void run(const Job& job) {
        gpu::detail::run(job, chosen_);
    }
    void multiply(const gpu::product& p) { products_->multiply(p, chosen_.stream); }
    template <Element T>
    void append(layout_kind layout, const view<T>& q, const view<T>& k, const view<T>& v,
                const ropewalk::gpu::kv_cache& cache, const ropewalk::gpu::cache_slots& slots, const Encoding& encoding,
                const positions& where) {
        if (layout == layout_kind::half_split)
            ropewalk::gpu::append<half_split, T>(q, k, v, cache, slots, encoding, where, chosen_);
        else
            ropewalk::gpu::append<interleaved, T>(q, k, v, cache, slots, encoding, where, chosen_);
    }
    void rerotate(layout_kind layout, const view<float>& k, const Encoding& from, const positions& from_where,
                  const Encoding& to, const positions& to_where) {
        if (layout == layout_kind::half_split)
            ropewalk::gpu::rerotate<half_split>(k, from, from_where, to, to_where, chosen_);
        else
            ropewalk::gpu::rerotate<interleaved>(k, from, from_where, to, to_where, chosen_);
    }

    template <class F>
    recording record(const F& f) {
        recording made;
        recording_ = &made;
        check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "a recording");
        try {
            f();
        } catch (...) {
            recording_ = nullptr;
            cudaGraph_t unfinished = nullptr;
            (void)cudaStreamEndCapture(stream_.get(), &unfinished);
            (void)cudaGetLastError();
            if (unfinished != nullptr) (void)cudaGraphDestroy(unfinished);
            throw;
        }
        recording_ = nullptr;
        cudaGraph_t captured = nullptr;
        check(cudaStreamEndCapture(stream_.get(), &captured), "the end of a recording");
        const detail::owned<cudaGraph_t> graph(captured);
        cudaGraphExec_t runnable = nullptr;
        check(cudaGraphInstantiate(&runnable, captured, 0), "a graph of what was recorded");
        made.graph_.reset(runnable);
        return made;
    }
    void replay(const recording& step) {
        check(cudaGraphLaunch(step.graph_.get(), stream_.get()), "a recorded step");
        marks_.insert(marks_.end(), step.marks_.begin(), step.marks_.end());
    }

    void enter(part begins) {
        if (recording_ != nullptr) {
            recording_->events_.push_back(make_event());
            recording_->marks_.push_back({begins, recording_->events_.back().get()});
            // External: an event of its own whenever the graph runs, and not an edge of it.
            check(cudaEventRecordWithFlags(recording_->marks_.back().event, stream_.get(), cudaEventRecordExternal),
                  "a mark of time");
            return;
        }
        if (used_events_ == events_.size()) events_.push_back(make_event());
        marks_.push_back({begins, events_[used_events_++].get()});
        check(cudaEventRecord(marks_.back().event, stream_.get()), "a mark of time");
    }
    /// Of the parts that have ended: a step ends with one that is none of them.
    part_seconds seconds() {
        wait();
        part_seconds spent{};
        for (std::size_t i = 0; i + 1 < marks_.size(); ++i) {
            float milliseconds = 0;
            check(cudaEventElapsedTime(&milliseconds, marks_[i].event, marks_[i + 1].event), "time between two marks");
            spent[static_cast<std::size_t>(marks_[i].begins)] += static_cast<double>(milliseconds) / 1000;
        }
        marks_.clear(), used_events_ = 0;
        return spent;
    }

    [[nodiscard]] std::int64_t bytes_held() const { return held_; }
    [[nodiscard]] std::int64_t most_bytes_held() const { return peak_; }
    [[nodiscard]] std::string name() const {
        cudaDeviceProp properties{};
        check(cudaGetDeviceProperties(&properties, device_), "a device would not say what it is");
        return properties.name;
    }

private:
    static void check(cudaError_t status, std::string_view what) {
        ropewalk::gpu::detail::expect_success(status, what);
    }
    void wait() { check(cudaStreamSynchronize(stream_.get()), "what the device was told"); }
    void put(void* to, const void* from, std::int64_t bytes, cudaMemcpyKind kind) {
        check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), kind, stream_.get()), "a copy");
    }
    static detail::owned<cudaEvent_t> make_event() {
        cudaEvent_t made = nullptr;
        check(cudaEventCreate(&made), "no event");
        return detail::owned<cudaEvent_t>(made);
    }

    int device_;
    std::int64_t held_ = 0, peak_ = 0;
    detail::owned<cudaStream_t> stream_;
    ropewalk::gpu::options chosen_;
    device_memory<cuda_machine> room_{*this};
    std::unique_ptr<gpu::cublas> products_;
    recording* recording_ = nullptr;
    std::vector<detail::owned<cudaEvent_t>> events_;
    std::size_t used_events_ = 0;
    std::vector<mark> marks_;
};

static_assert(Machine<cuda_machine>);

}  // namespace ropewalk::llama
