/// @file  Device simulated by the host: memory that knows its owner, kernels run by host_backend, and recorded steps.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ropewalk/llama/device_backend.hpp>

#include "host_backend.hpp"

namespace test {

class simulated_device {
public:
    using recording = std::vector<std::function<void()>>;

    /// Returns memory filled with NaNs of any type, between guard bytes that must not change.
    void* allocate(std::int64_t bytes) {
        RW_EXPECTS(allocations_left != 0, "no device memory for {} bytes", bytes);
        --allocations_left;
        expect(bytes > 0, "an allocation of no bytes");
        const auto size = static_cast<std::size_t>(bytes);
        std::vector<unsigned char> block(size + 3 * guard, filling);
        auto first = (reinterpret_cast<std::uintptr_t>(block.data()) + 2 * guard - 1) / guard * guard;
        auto* const data = reinterpret_cast<unsigned char*>(first);
        held_ += bytes;
        blocks_.emplace(data, held{std::move(block), size});
        return data;
    }
    void release(void* data, std::int64_t bytes) noexcept {
        const auto found = blocks_.find(static_cast<unsigned char*>(data));
        if (found == blocks_.end() || static_cast<std::int64_t>(found->second.size) != bytes) std::abort();
        if (!intact(found->first, found->second)) problem_ = "bytes next to an allocation changed";
        held_ -= bytes;
        blocks_.erase(found);
    }

    void upload(void* to, const void* from, std::int64_t bytes) {
        expect(bytes == 0 || (owns(to, bytes) && !owns(from, 1)), "upload() copies from the device or to the host");
        move(to, from, bytes);
    }
    void download(void* to, const void* from, std::int64_t bytes) {
        expect(bytes == 0 || (owns(from, bytes) && !owns(to, 1)), "download() copies to the device or from the host");
        move(to, from, bytes);
    }
    void copy(void* to, const void* from, std::int64_t bytes) {
        expect(owns(to, bytes) && owns(from, bytes), "copy() leaves device memory");
        move(to, from, bytes);
    }

    /// Small, so that few keys have several splits.
    [[nodiscard]] static ropewalk::gpu::device_shape shape() { return {16, 2048}; }

    template <class Params>
    void run(const Params& p) {
        if constexpr (requires { p.batch.starts; }) expect_device({p.batch.starts, p.batch.past, p.batch.slots.table});
        if constexpr (requires { p.positions; }) expect_device({p.positions});
        if constexpr (requires { p.slots; }) expect_device({p.slots});
        if constexpr (requires { p.drawn; }) expect_device({p.drawn, p.numbers});
        if constexpr (requires { p.indices; }) expect_device({p.indices});
        if constexpr (requires { p.in.data; }) expect_device({p.in.data, p.out.data});
        if constexpr (requires { p.weight; }) expect_device({p.weight.data});
        if constexpr (requires { p.gate; }) expect_device({p.gate.data, p.up.data, p.out.data});
        if constexpr (requires { p.k.data; }) expect_device({p.k.data, p.v.data, p.q.data, p.out.data, p.sums});
        if constexpr (requires { p.from.data; }) expect_device({p.from.data, p.from.scales, p.out});
        if constexpr (requires { p.buffers; }) expect_device({p.buffers.scores, p.buffers.sums});
        submit([this, p] { kernels_.run(p); });
    }
    void multiply(const ropewalk::llama::gpu::product& p) {
        expect_device({p.a.data, p.b.data, p.c.data});
        submit([this, p] { kernels_.multiply(p); });
    }
    template <class T>
    void append(ropewalk::layout_kind layout, const ropewalk::gpu::qkv<T>& heads, const ropewalk::gpu::kv_cache& cache,
                const ropewalk::gpu::cache_slots& slots, const ropewalk::Encoding& encoding,
                const ropewalk::positions& where) {
        expect_device({heads.q.data, heads.k.data, heads.v.data, cache.k.data, cache.v.data, cache.k.scales,
                       cache.v.scales, slots.mapping, slots.table, where.data});
        submit([=, this] { kernels_.append(layout, heads, cache, slots, encoding, where); });
    }
    void rerotate(ropewalk::layout_kind layout, const ropewalk::view<float>& k, const ropewalk::Encoding& source,
                  const ropewalk::positions& source_positions, const ropewalk::Encoding& target,
                  const ropewalk::positions& target_positions) {
        expect_device({k.data, source_positions.data, target_positions.data});
        submit([=, this] { kernels_.rerotate(layout, k, source, source_positions, target, target_positions); });
        ++rerotations;
    }

    template <class F>
    recording record(const F& f) {
        recording step;
        recording_ = &step;
        try {
            f();
        } catch (...) {
            recording_ = nullptr;
            throw;
        }
        recording_ = nullptr;
        ++records;
        return step;
    }
    void replay(const recording& step) {
        for (const auto& work : step) work();
        ++replays;
    }

    /// One second per beginning of a part.
    void enter(ropewalk::llama::gpu::step_part part) {
        if (part != nullptr) submit([this, part] { seconds_.*part += 1; });
    }
    void add_seconds(ropewalk::llama::stack_seconds& total) {
        for (const auto part : {&ropewalk::llama::stack_seconds::projections, &ropewalk::llama::stack_seconds::rope,
                                &ropewalk::llama::stack_seconds::attention, &ropewalk::llama::stack_seconds::mlp,
                                &ropewalk::llama::stack_seconds::norm})
            total.*part += std::exchange(seconds_.*part, 0);
    }

    [[nodiscard]] std::int64_t bytes_held() const { return held_; }
    /// Returns the first access that would fault on a device, or "".
    [[nodiscard]] std::string problem() const {
        for (const auto& [data, block] : blocks_)
            if (!intact(data, block)) return "bytes next to memory that is held changed";
        return problem_;
    }

    int records = 0, replays = 0, rerotations = 0;
    std::int64_t allocations_left = -1;  ///< before memory runs out; −1: never

private:
    static constexpr std::size_t guard = 256;
    static constexpr unsigned char filling = 0xff;

    struct held {
        std::vector<unsigned char> memory;
        std::size_t size = 0;
    };

    static void expect(bool condition, const char* problem) {
        if (!condition) throw std::logic_error(problem);
    }
    static bool intact(const unsigned char* data, const held& block) {
        const unsigned char *at = block.memory.data(), *const end = at + block.memory.size();
        for (; at < data; ++at)
            if (*at != filling) return false;
        for (at = data + block.size; at < end; ++at)
            if (*at != filling) return false;
        return true;
    }
    [[nodiscard]] bool owns(const void* address, std::int64_t bytes) const {
        auto found = blocks_.upper_bound(const_cast<unsigned char*>(static_cast<const unsigned char*>(address)));
        if (found == blocks_.begin()) return false;
        --found;
        return static_cast<const unsigned char*>(address) + bytes <= found->first + found->second.size;
    }
    void expect_device(std::initializer_list<const void*> addresses) const {
        for (const void* const address : addresses)
            expect(address == nullptr || owns(address, 1), "a kernel got host memory");
    }
    void move(void* to, const void* from, std::int64_t bytes) {
        expect(recording_ == nullptr, "a recorded step copies memory");
        if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
    }
    template <class F>
    void submit(const F& f) {
        if (recording_ != nullptr) {
            recording_->push_back(f);
        } else {
            f();
        }
    }

    memory_log no_log_;  // watches nothing: this class checks the memory
    host_backend kernels_{no_log_};
    std::map<unsigned char*, held> blocks_;
    std::int64_t held_ = 0;
    std::string problem_;
    recording* recording_ = nullptr;
    ropewalk::llama::stack_seconds seconds_{};
};

static_assert(ropewalk::llama::DeviceBackend<simulated_device>);

}  // namespace test
