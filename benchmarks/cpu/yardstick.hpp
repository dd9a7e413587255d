// Plain loops over the bytes of a rotation, which bound its time: an in-place float32 scale, and for 16-bit elements a
// scale that also converts.
#pragma once

#include <string>

#include "bandwidth/loops.hpp"
#include "comparison.hpp"
#include "parallel.hpp"
#include "workload.hpp"

namespace bench {

class yardstick {
public:
    /// `converted` holds the elements of the rotation, which the converting scale leaves at their magnitude. The other
    /// scale has memory of its own, and out of place also a target.
    yardstick(const bandwidth_loops& loops, const shape& size, void* converted, bool out_of_place = false)
        : loops_(loops), size_(size), converted_(converted), out_of_place_(out_of_place) {}

    /// Sets the values of its own memory.
    void fill() const {
        shape floats{.q_heads = size_.q_heads, .k_heads = size_.k_heads, .tokens = size_.tokens};
        if (rw::size_of(size_.type) == 2) floats.q_heads /= 2, floats.k_heads /= 2;
        for (const int buffer : {2, 3}) {
            if (buffer == 2 || out_of_place_) workload(floats, order::thd, memory(buffer, floats.bytes())).fill();
        }
    }

    void add_candidates(comparison& times) const {
        times.add("scale on one thread", [this](int pass) { scale(1, pass); });
        if (size_.threads > 1) times.add("scale", [this](int pass) { scale(size_.threads, pass); });
        if (rw::size_of(size_.type) != 2) return;
        times.add("convert on one thread", [this](int pass) { convert(1, pass); });
        if (size_.threads > 1) times.add("convert", [this](int pass) { convert(size_.threads, pass); });
    }

    [[nodiscard]] double scale_seconds(const comparison& times) const {
        return times.bound(size_.threads, "scale", "scale on one thread");
    }
    /// Of 16-bit elements.
    [[nodiscard]] double convert_seconds(const comparison& times) const {
        return times.bound(size_.threads, "convert", "convert on one thread");
    }

private:
    /// Alternates between a power of two and its inverse: both are exact, so values do not drift over thousands of
    /// passes.
    static float factor(int pass) { return pass % 2 == 0 ? 2.0F : 0.5F; }

    void scale(int threads, int pass) const {
        const std::int64_t floats = size_.bytes() / 4;
        auto* const data = static_cast<float*>(memory(2, size_.bytes()));
        auto* const target = out_of_place_ ? static_cast<float*>(memory(3, size_.bytes())) : data;
        for_each_part(threads, floats, [&](std::int64_t begin, std::int64_t count) {
            if (target == data) return loops_.scale(data + begin, count, factor(pass));
            loops_.scale_into(data + begin, target + begin, count, factor(pass));
        });
    }

    void convert(int threads, int pass) const {
        for_each_part(threads, size_.elements(), [&](std::int64_t begin, std::int64_t count) {
            if (size_.type == rw::element_type::f16) {
                loops_.convert_f16(static_cast<rw::f16*>(converted_) + begin, count, factor(pass));
            } else {
                loops_.convert_bf16(static_cast<rw::bf16*>(converted_) + begin, count, factor(pass));
            }
        });
    }

    const bandwidth_loops& loops_;
    shape size_;
    void* converted_;
    bool out_of_place_;
};

}  // namespace bench
