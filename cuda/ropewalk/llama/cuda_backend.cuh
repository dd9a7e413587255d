// CUDA backend of the device stack: memory, copies, kernels, cuBLAS, and steps recorded as CUDA graphs.
#pragma once

#include <algorithm>
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

/// The device that is current during construction, with a stream of its own. Not thread-safe.
class RW_HIDDEN cuda_backend {
    /// The event at which a part of a step begins.
    struct mark {
        gpu::step_part part = nullptr;
        cudaEvent_t event = nullptr;
    };

public:
    /// A step as a graph, with the events that each replay records.
    class recording {
        friend cuda_backend;
        detail::owned<cudaGraphExec_t> graph_;
        std::vector<detail::owned<cudaEvent_t>> events_;
        std::vector<mark> marks_;
    };

    /// Throws ropewalk::error if there is no device, or no memory for the workspace of cuBLAS.
    cuda_backend() : device_(ropewalk::gpu::detail::current_device()) {
        cudaStream_t stream = nullptr;
        check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream cannot be created");
        stream_.reset(stream);
        options_.stream = stream, options_.check_pointers = false;
        space_ = device_memory<cuda_backend>(*this, gpu::cublas_workspace_bytes);
        products_ = std::make_unique<gpu::cublas>(space_.data(), space_.bytes());
    }
    cuda_backend(const cuda_backend&) = delete;
    cuda_backend& operator=(const cuda_backend&) = delete;
    ~cuda_backend() { (void)cudaStreamSynchronize(stream_.get()); }

    void* allocate(std::int64_t bytes) {
        void* data = nullptr;
        check(cudaMalloc(&data, static_cast<std::size_t>(bytes)),
              ropewalk::detail::format("{} bytes of device memory in addition to {}", bytes, held_));
        held_ += bytes;
        peak_ = std::max(peak_, held_);
        return data;
    }
    /// Waits for the device.
    void release(void* data, std::int64_t bytes) noexcept {
        (void)cudaFree(data);
        held_ -= bytes;
    }

    void upload(void* to, const void* from, std::int64_t bytes) {
        if (bytes == 0) return;
        copy(to, from, bytes, cudaMemcpyHostToDevice);
        wait();  // A copy from pinned memory is asynchronous, as is any copy if the device reads host memory directly.
    }
    void download(void* to, const void* from, std::int64_t bytes) {
        if (bytes > 0) copy(to, from, bytes, cudaMemcpyDeviceToHost);
        wait();
    }
    void copy(void* to, const void* from, std::int64_t bytes) {
        if (bytes > 0) copy(to, from, bytes, cudaMemcpyDeviceToDevice);
    }

    [[nodiscard]] ropewalk::gpu::device_shape shape() const { return ropewalk::gpu::detail::shape_of_device(device_); }

    template <class Params>
    void run(const Params& params) {
        gpu::detail::run(params, options_);
    }
    void multiply(const gpu::product& p) { products_->multiply(p, options_.stream); }
    template <Element T>
    void append(layout_kind layout, const ropewalk::gpu::qkv<T>& heads, const ropewalk::gpu::kv_cache& cache,
                const ropewalk::gpu::cache_slots& slots, const Encoding& encoding, const positions& positions) {
        const auto run = [&]<class L>(L /*layout*/) {
            ropewalk::gpu::append<L, T>(heads.q, heads.k, heads.v, cache, slots, encoding, positions, options_);
        };
        layout == layout_kind::half_split ? run(half_split{}) : run(interleaved{});
    }
    void rerotate(layout_kind layout, const view<float>& k, const Encoding& source, const positions& source_positions,
                  const Encoding& target, const positions& target_positions) {
        const auto run = [&]<class L>(L /*layout*/) {
            ropewalk::gpu::rerotate<L>(k, source, source_positions, target, target_positions, options_);
        };
        layout == layout_kind::half_split ? run(half_split{}) : run(interleaved{});
    }

    template <class F>
    recording record(const F& f) {
        recording step;
        recording_ = &step;
        check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "a recording cannot begin");
        cudaGraph_t captured = nullptr;
        try {
            f();
        } catch (...) {
            recording_ = nullptr;
            (void)cudaStreamEndCapture(stream_.get(), &captured);
            (void)cudaGetLastError();
            if (captured != nullptr) (void)cudaGraphDestroy(captured);
            throw;
        }
        recording_ = nullptr;
        check(cudaStreamEndCapture(stream_.get(), &captured), "a recording cannot end");
        const detail::owned<cudaGraph_t> graph(captured);
        cudaGraphExec_t executable = nullptr;
        check(cudaGraphInstantiate(&executable, captured, 0), "a recorded step cannot be instantiated");
        step.graph_.reset(executable);
        return step;
    }
    void replay(const recording& step) {
        check(cudaGraphLaunch(step.graph_.get(), stream_.get()), "a recorded step");
        marks_.insert(marks_.end(), step.marks_.begin(), step.marks_.end());
    }

    void enter(gpu::step_part part) {
        if (recording_ != nullptr) {
            recording_->events_.push_back(make_event());
            recording_->marks_.push_back({part, recording_->events_.back().get()});
            // External: recorded anew by every replay, and not an edge of the graph.
            check(cudaEventRecordWithFlags(recording_->marks_.back().event, stream_.get(), cudaEventRecordExternal),
                  "a time mark");
            return;
        }
        if (used_events_ == events_.size()) events_.push_back(make_event());
        marks_.push_back({part, events_[used_events_++].get()});
        check(cudaEventRecord(marks_.back().event, stream_.get()), "a time mark");
    }
    /// Adds the times of the parts that have ended. The last mark of a step belongs to none of them.
    void add_seconds(stack_seconds& total) {
        wait();
        for (std::size_t i = 0; i + 1 < marks_.size(); ++i) {
            float milliseconds = 0;
            check(cudaEventElapsedTime(&milliseconds, marks_[i].event, marks_[i + 1].event), "the time between marks");
            if (marks_[i].part != nullptr) total.*marks_[i].part += static_cast<double>(milliseconds) / 1000;
        }
        marks_.clear(), used_events_ = 0;
    }

    [[nodiscard]] std::int64_t bytes_held() const { return held_; }
    [[nodiscard]] std::int64_t most_bytes_held() const { return peak_; }
    [[nodiscard]] std::string name() const {
        cudaDeviceProp properties{};
        check(cudaGetDeviceProperties(&properties, device_), "the properties of the device");
        return properties.name;
    }

private:
    static void check(cudaError_t status, std::string_view what) {
        ropewalk::gpu::detail::expect_success(status, what);
    }
    void wait() { check(cudaStreamSynchronize(stream_.get()), "work on the device"); }
    void copy(void* to, const void* from, std::int64_t bytes, cudaMemcpyKind kind) {
        check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), kind, stream_.get()), "a copy");
    }
    static detail::owned<cudaEvent_t> make_event() {
        cudaEvent_t event = nullptr;
        check(cudaEventCreate(&event), "an event cannot be created");
        return detail::owned<cudaEvent_t>(event);
    }

    int device_;
    std::int64_t held_ = 0, peak_ = 0;
    detail::owned<cudaStream_t> stream_;
    ropewalk::gpu::options options_;
    device_memory<cuda_backend> space_{*this};
    std::unique_ptr<gpu::cublas> products_;
    recording* recording_ = nullptr;
    std::vector<detail::owned<cudaEvent_t>> events_;
    std::size_t used_events_ = 0;
    std::vector<mark> marks_;
};

static_assert(DeviceBackend<cuda_backend>);

}  // namespace ropewalk::llama
