/// @file  The host as a machine for the device stack: memory that knows whether it is the device's, kernels warp by
/// warp, and steps that are recorded as what they would do.
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

namespace test {

class stack_machine {
public:
    using recording = std::vector<std::function<void()>>;

    /// Filled with what is a NaN of any type, between bytes that nobody may write.
    void* allocate(std::int64_t bytes) {
        RW_EXPECTS(allocations_left != 0, "no device memory for {} bytes", bytes);
        --allocations_left;
        expect(bytes > 0, "memory of no size");
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
        if (!intact(found->first, found->second)) problem_ = "bytes beside an allocation changed";
        held_ -= bytes;
        blocks_.erase(found);
    }

    void upload(void* to, const void* from, std::int64_t bytes) {
        expect(bytes == 0 || (owns(to, bytes) && !owns(from, 1)), "an upload from the device, or to the host");
        move(to, from, bytes);
    }
    void download(void* to, const void* from, std::int64_t bytes) {
        expect(bytes == 0 || (owns(from, bytes) && !owns(to, 1)), "a download to the device, or from the host");
        move(to, from, bytes);
    }
    void copy(void* to, const void* from, std::int64_t bytes) {
        expect(owns(to, bytes) && owns(from, bytes), "a copy beside device memory");
        move(to, from, bytes);
    }

    /// Small, so that few keys already come in several splits.
    [[nodiscard]] static ropewalk::gpu::device_shape shape() { return {16, 2048}; }

    template <class Job>
    void run(const Job& job) {
        if constexpr (requires { job.batch.starts; }) expect_all({job.batch.starts, job.batch.past});
        if constexpr (requires { job.pages.table; }) expect_all({job.pages.table});
        if constexpr (requires { job.positions; }) expect_all({job.positions});
        if constexpr (requires { job.slots; }) expect_all({job.slots});
        if constexpr (requires { job.drawn; }) expect_all({job.drawn, job.numbers});
        if constexpr (requires { job.which; }) expect_all({job.which});
        if constexpr (requires { job.in.data; }) expect_all({job.in.data, job.out.data});
        if constexpr (requires { job.weight; }) expect_all({job.weight});
        if constexpr (requires { job.k.data; }) expect_all({job.k.data, job.v.data, job.q, job.out, job.sums});
        if constexpr (requires { job.from.data; }) expect_all({job.from.data, job.from.scales, job.out});
        submit([job] { execute(job); });
    }
    void multiply(const ropewalk::llama::gpu::product& p) {
        expect_all({p.a.data, p.b.data, p.c.data});
        submit([p] { execute(p); });
    }
    template <class T>
    void append(ropewalk::layout_kind layout, const ropewalk::view<T>& q, const ropewalk::view<T>& k,
                const ropewalk::view<T>& v, const ropewalk::gpu::kv_cache& cache,
                const ropewalk::gpu::cache_slots& slots, const ropewalk::Encoding& encoding,
                const ropewalk::positions& where) {
        expect_all({q.data, k.data, v.data, cache.k.data, cache.v.data, cache.k.scales, cache.v.scales});
        expect_all({slots.mapping, slots.table, where.data});
        submit([=] { append_on_host<T>(layout, {q, k, v}, cache, slots, encoding, where); });
    }
    void rerotate(ropewalk::layout_kind layout, const ropewalk::view<float>& k, const ropewalk::Encoding& from,
                  const ropewalk::positions& from_where, const ropewalk::Encoding& to,
                  const ropewalk::positions& to_where) {
        expect_all({k.data, from_where.data, to_where.data});
        submit([=] { rerotate_on_host(layout, k, from, from_where, to, to_where); });
        ++rerotations;
    }

    template <class F>
    recording record(const F& f) {
        recording made;
        recording_ = &made;
        try {
            f();
        } catch (...) {
            recording_ = nullptr;
            throw;
        }
        recording_ = nullptr;
        ++records;
        return made;
    }
    void replay(const recording& step) {
        for (const auto& one : step) one();
        ++replays;
    }

    /// A second for every time that a part began.
    void enter(ropewalk::llama::gpu::llama_part part) {
        submit([this, part] { ++seconds_[static_cast<std::size_t>(part)]; });
    }
    ropewalk::llama::part_seconds seconds() { return std::exchange(seconds_, {}); }

    [[nodiscard]] std::int64_t bytes_held() const { return held_; }
    /// What somebody did that a device would not have survived.
    [[nodiscard]] std::string problem() const {
        for (const auto& [data, block] : blocks_)
            if (!intact(data, block)) return "bytes beside memory that is held changed";
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

    // Kernels take long to compile, and are so once: in stack_machine.cpp.
    template <class Job>
    static void execute(const Job& job);
    template <class T>
    static void append_on_host(ropewalk::layout_kind layout, const ropewalk::gpu::qkv<T>& heads,
                               const ropewalk::gpu::kv_cache& cache, const ropewalk::gpu::cache_slots& slots,
                               const ropewalk::Encoding& encoding, const ropewalk::positions& where);
    static void rerotate_on_host(ropewalk::layout_kind layout, const ropewalk::view<float>& k,
                                 const ropewalk::Encoding& from, const ropewalk::positions& from_where,
                                 const ropewalk::Encoding& to, const ropewalk::positions& to_where);

    static void expect(bool right, const char* what) {
        if (!right) throw std::logic_error(what);
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
    void expect_all(std::initializer_list<const void*> addresses) const {
        for (const void* const one : addresses) expect(one == nullptr || owns(one, 1), "a kernel got host memory");
    }
    void move(void* to, const void* from, std::int64_t bytes) {
        expect(recording_ == nullptr, "a copy in a step that is recorded");
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

    std::map<unsigned char*, held> blocks_;
    std::int64_t held_ = 0;
    std::string problem_;
    recording* recording_ = nullptr;
    ropewalk::llama::part_seconds seconds_{};
};

static_assert(ropewalk::llama::Machine<stack_machine>);

}  // namespace test
