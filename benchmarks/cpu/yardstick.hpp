// Plain loops over the bytes of a rotation, which bound its time: an in-place float32 scale, and for 16-bit elements a
// scale that also converts.
#pragma once

#include <string>

#include <ropewalk/dispatch.hpp>

#include "bandwidth/loops.hpp"
#include "comparison.hpp"
#include "parallel.hpp"
#include "workload.hpp"

namespace bench {

class yardstick {
public:
    /// `in` and `out` hold the elements of the rotation, which neither scale changes. In other memory a scale would
    /// find less of its data in the caches than a rotation that has just passed over its own: with 84 MB and a cache of
    /// 32 MB it took 1.15 of the time.
    yardstick(const shape& size, void* in, void* out)
        : loops_(loops_for(rw::dispatch::instruction_set(
              size.type, rw::cpu::footprint_of(size.bytes(), rw::dispatch::tuning_profile())))),
          size_(size),
          in_(in),
          out_(out) {}

    void add_candidates(comparison& times) const {
        times.add("scale on one thread", [this](int) { scale(1); });
        if (size_.threads > 1) times.add("scale", [this](int) { scale(size_.threads); });
        if (rw::size_of(size_.type) != 2) return;
        times.add("convert on one thread", [this](int) { convert(1); });
        if (size_.threads > 1) times.add("convert", [this](int) { convert(size_.threads); });
    }

    [[nodiscard]] double scale_seconds(const comparison& times) const {
        return times.bound(size_.threads, "scale", "scale on one thread");
    }
    /// For 16-bit elements only.
    [[nodiscard]] double convert_seconds(const comparison& times) const {
        return times.bound(size_.threads, "convert", "convert on one thread");
    }

    [[nodiscard]] const bandwidth_loops& loops() const { return loops_; }

    void scale(int threads) const {
        auto *const in = static_cast<float*>(in_), *const out = static_cast<float*>(out_);
        for_each_part(threads, size_.bytes() / 4, [&](std::int64_t begin, std::int64_t count) {
            if (in == out) return loops_.scale(in + begin, count, one_);
            loops_.scale_into(in + begin, out + begin, count, one_);
        });
    }

    void convert(int threads) const {
        for_each_part(threads, size_.elements(), [&](std::int64_t begin, std::int64_t count) {
            if (size_.type == rw::element_type::f16) {
                loops_.convert_f16(static_cast<rw::f16*>(in_) + begin, count, one_);
            } else {
                loops_.convert_bf16(static_cast<rw::bf16*>(in_) + begin, count, one_);
            }
        });
    }

private:
    const bandwidth_loops& loops_;
    shape size_;
    void *in_, *out_;
    float one_ = 1;  ///< a variable, so that the compiler keeps the product
};

}  // namespace bench
