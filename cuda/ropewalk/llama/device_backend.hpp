// Interface between the device stack and a device: memory, copies, kernels, and recorded steps.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include "ropewalk/llama/gpu/forward.hpp"

namespace ropewalk::llama {

/// A device. All calls take effect in order, and only download() and add_seconds() wait. upload() returns when host
/// memory may be overwritten. Errors are ropewalk::error. cuda_backend implements it; tests have a backend that runs on
/// the host.
template <class B>
concept DeviceBackend = std::movable<typename B::recording> &&
                        requires(B& backend, void* device, const void* from, void* to, std::int64_t bytes,
                                 typename B::recording& step, void (*work)(), stack_seconds& total) {
                            { backend.allocate(bytes) } -> std::same_as<void*>;  // aligned to 256 bytes
                            { backend.release(device, bytes) } noexcept;
                            backend.upload(device, from, bytes);
                            backend.download(to, from, bytes);
                            backend.copy(device, from, bytes);  // within the device
                            { backend.shape() } -> std::same_as<ropewalk::gpu::device_shape>;
                            // run() takes the parameters of any kernel of llama/gpu; append() takes any element type.
                            backend.run(std::declval<const gpu::silu_params&>());
                            backend.multiply(std::declval<const gpu::product&>());
                            backend.append(layout_kind{}, ropewalk::gpu::qkv<float>{}, ropewalk::gpu::kv_cache{},
                                           ropewalk::gpu::cache_slots{}, std::declval<const Encoding&>(), positions{});
                            backend.rerotate(layout_kind{}, view<float>{}, std::declval<const Encoding&>(), positions{},
                                             std::declval<const Encoding&>(), positions{});
                            // Work that record() runs takes effect when the step is replayed, not at once.
                            { backend.record(work) } -> std::same_as<typename B::recording>;
                            backend.replay(step);
                            // Marks the beginning of a part of the step. add_seconds() adds the time of each part since
                            // its last call.
                            backend.enter(gpu::step_part{});
                            backend.add_seconds(total);
                        };

/// Device memory. The backend must outlive it.
template <class B>
class device_memory {
public:
    explicit device_memory(B& backend) : backend_(&backend) {}
    device_memory(B& backend, std::int64_t bytes) : backend_(&backend), data_(backend.allocate(bytes)), bytes_(bytes) {}
    device_memory(device_memory&& other) noexcept { swap(other); }
    device_memory& operator=(device_memory&& other) noexcept {
        swap(other);
        return *this;
    }
    ~device_memory() {
        if (data_ != nullptr) backend_->release(data_, bytes_);
    }

    [[nodiscard]] void* data() const { return data_; }
    [[nodiscard]] std::int64_t bytes() const { return bytes_; }

    /// Returns at least `bytes` bytes. If the memory grows, it moves and loses its contents.
    void* reserve(std::int64_t bytes) {
        if (bytes > bytes_) {
            *this = device_memory(*backend_);  // released first, so that there is room
            *this = device_memory(*backend_, bytes);
        }
        return data_;
    }

private:
    void swap(device_memory& other) noexcept {
        std::swap(backend_, other.backend_);
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
    }

    B* backend_ = nullptr;
    void* data_ = nullptr;
    std::int64_t bytes_ = 0;
};

/// Copies the weights of a host to a device. The result owns the device memory; the backend must outlive it. Throws
/// ropewalk::error if weights and configuration differ, or if the matrices have different types.
template <DeviceBackend B>
model_weights upload_weights(B& backend, const model_config& config, const model_weights& weights) {
    check_weights(config, weights);
    model_weights result = weights;
    result.owners.clear();
    const element_type type = weights.layers.front().q.type;
    for_each_weight(config, result, [&](matrix& w, const std::string& name, std::int64_t, std::int64_t) {
        RW_EXPECTS(w.type == type || is_norm(name), "{} is {}, but a device needs one type and earlier matrices are {}",
                   name, to_string(w.type), to_string(type));
        if (&w == &result.head && weights.head.data == weights.embedding.data) {
            w = result.embedding;
            return;
        }
        auto memory = std::make_shared<device_memory<B>>(backend, w.bytes());
        backend.upload(memory->data(), w.data, w.bytes());
        w.data = memory->data();
        result.owners.push_back(std::move(memory));
    });
    return result;
}

}  // namespace ropewalk::llama
