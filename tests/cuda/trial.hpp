/// @file  One rotation on the device, held against the float64 oracle, with everything it touches in guarded memory.
#pragma once

#include <string>
#include <vector>

#include "calls.hpp"
#include "device.hpp"
#include "support/rotation_trial.hpp"

namespace test {

/// An array's memory on the device, guards and all; `shift` elements further from the alignment of the allocation.
class device_array {
public:
    explicit device_array(array& host, std::int64_t shift = 0)
        : host_(host), shift_(static_cast<std::size_t>(shift) * ropewalk::size_of(host.type())) {
        std::vector<unsigned char> bytes(shift_, array::pattern);
        bytes.insert(bytes.end(), host.bytes().begin(), host.bytes().end());
        memory_ = device::memory(bytes.data(), bytes.size());
    }
    [[nodiscard]] ropewalk::tensor tensor() const {
        ropewalk::tensor result = host_.tensor();
        result.data = static_cast<unsigned char*>(memory_.data()) + shift_ + offset();
        return result;
    }
    /// Brings everything back into the array.
    void fetch() {
        auto* const begin = static_cast<unsigned char*>(host_.tensor().data) - offset();
        device::copy(begin, static_cast<const unsigned char*>(memory_.data()) + shift_, host_.bytes().size());
    }

private:
    [[nodiscard]] std::ptrdiff_t offset() const {
        return static_cast<const unsigned char*>(host_.tensor().data) - host_.bytes().data();
    }
    array& host_;
    std::size_t shift_;
    device::memory memory_;
};

/// Positions whose numbers lie in device memory of exactly their size.
class device_positions {
public:
    explicit device_positions(const ropewalk::positions& host) : where_(host) {
        using kind = ropewalk::positions::kind;
        if (host.source == kind::offset) return;
        const bool narrow = host.source == kind::ids32 || host.source == kind::cu_seqlens32;
        const std::int64_t count = (host.axes - 1) * host.stride_axis + (host.rows - 1) * host.stride_row + host.count;
        memory_ = device::memory(host.data, static_cast<std::size_t>(count) * (narrow ? 4 : 8));
        where_.data = memory_.data();
    }
    [[nodiscard]] const ropewalk::positions& get() const { return where_; }
    [[nodiscard]] const device::memory& memory() const { return memory_; }

private:
    ropewalk::positions where_;
    device::memory memory_;
};

class device_table {
public:
    explicit device_table(const ropewalk::cos_sin_table& host) : table_(host) {
        if (!host.exists()) return;
        const std::int64_t elements =
            (host.batch - 1) * host.stride_batch + (host.rows - 1) * host.stride_row + host.columns;
        const std::size_t bytes = static_cast<std::size_t>(elements) * ropewalk::size_of(host.type);
        cos_ = device::memory(host.cos, bytes), sin_ = device::memory(host.sin, bytes);
        table_.cos = cos_.data(), table_.sin = sin_.data();
    }
    [[nodiscard]] const ropewalk::cos_sin_table& get() const { return table_; }

private:
    ropewalk::cos_sin_table table_;
    device::memory cos_, sin_;
};

/// A call with all that it is compared to.
struct trial : rotation_trial {
    bool has_q = true;
    std::int64_t shift = 0;  ///< elements from the alignment
};

/// q or k of a trial.
class trial_side {
public:
    trial_side(const trial& one, std::int64_t heads, random& numbers)
        : one_(one),
          in_(one.type, {one.q.batch, one.q.tokens, heads, one.q.head_dim}, numbers, one.where_in_memory),
          out_(one.type, in_.size(), one.where_in_memory),
          before_(in_),
          on_device_(in_, one.shift),
          out_on_device_(out_, one.shift) {}

    [[nodiscard]] ropewalk::tensor in() const { return on_device_.tensor(); }
    [[nodiscard]] ropewalk::tensor out() const { return one_.in_place ? in() : out_on_device_.tensor(); }

    /// What is wrong with the result, or "".
    std::string problem(oracle::role who) {
        on_device_.fetch(), out_on_device_.fetch();
        array& result = one_.in_place ? in_ : out_;
        const auto exact = exact_result(one_, in_.size(), before_.values(), who);
        if (!result.guards_intact()) return "bytes around the tensor changed";
        if (!one_.in_place && in_ != before_) return "the input changed";
        return compare(result, exact, shape_of(in_.size(), one_.by.ours.geometry, one_.layout)).first_problem;
    }

private:
    const trial& one_;
    array in_, out_, before_;
    device_array on_device_, out_on_device_;
};

/// The first thing that is wrong with a trial, or "".
inline std::string problem_of(const trial& one, random& numbers) {
    trial_side q(one, one.has_q ? one.q.heads : 0, numbers), k(one, one.k_heads, numbers);
    const device_positions where(one.where);
    const device_table table(one.options.table);
    ropewalk::gpu::options options = one.options;
    options.table = table.get();
    device::tensors in, out;
    if (one.has_q) in.q = q.in(), out.q = q.out();
    if (one.k_heads > 0) in.k = k.in(), out.k = k.out();
    device::with_calls(one.type, one.layout,
                       [&](auto calls) { calls.rotate(in, out, one.by.ours, where.get(), options); });
    device::finish();
    std::string problem = one.has_q ? q.problem(oracle::role::query) : "";
    if (problem.empty() && one.k_heads > 0) {
        problem = k.problem(oracle::role::key);
        if (!problem.empty()) problem = "k: " + problem;
    }
    if (problem.empty()) return problem;
    return describe(one) + (one.has_q ? "" : " without q") + ", shift " + std::to_string(one.shift) + ": " + problem;
}

}  // namespace test
