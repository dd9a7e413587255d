/// @file  Copies of the tests' arrays, positions and tables in device memory.
#pragma once

#include <vector>

#include "calls.hpp"
#include "device.hpp"
#include "support/compare.hpp"

namespace test {

/// A copy of an array in device memory, guards included.
class device_array {
public:
    explicit device_array(array& host) : host_(host), memory_(host.bytes().data(), host.bytes().size()) {}
    [[nodiscard]] ropewalk::tensor tensor() const {
        ropewalk::tensor result = host_.tensor();
        if (!host_.bytes().empty()) result.data = static_cast<unsigned char*>(memory_.data()) + offset();
        return result;
    }
    /// Copies all bytes back into the array.
    void fetch() {
        if (host_.bytes().empty()) return;
        auto* const begin = static_cast<unsigned char*>(host_.tensor().data) - offset();
        device::copy(begin, memory_.data(), host_.bytes().size());
    }

private:
    [[nodiscard]] std::ptrdiff_t offset() const {
        return static_cast<const unsigned char*>(host_.tensor().data) - host_.bytes().data();
    }
    array& host_;
    device::memory memory_;
};

/// Positions whose numbers are in device memory of exactly their size.
class device_positions {
public:
    explicit device_positions(const ropewalk::positions& host) : positions_(host) {
        using kind = ropewalk::positions::kind;
        if (host.source == kind::offset || host.source == kind::shift) return;
        const bool narrow = host.source == kind::ids32 || host.source == kind::cu_seqlens32;
        const std::int64_t count = (host.axes - 1) * host.stride_axis + (host.rows - 1) * host.stride_row + host.count;
        memory_ = device::memory(host.data, static_cast<std::size_t>(count) * (narrow ? 4 : 8));
        positions_.data = memory_.data();
    }
    [[nodiscard]] const ropewalk::positions& get() const { return positions_; }
    [[nodiscard]] const device::memory& memory() const { return memory_; }

private:
    ropewalk::positions positions_;
    device::memory memory_;
};

class device_table {
public:
    explicit device_table(const ropewalk::cos_sin_table& host) : table_(host) {
        if (!host.exists()) return;
        std::int64_t elements = (host.rows - 1) * host.stride_row + host.columns;
        if (host.batch > 1) elements += (host.batch - 1) * host.stride_batch;
        const std::size_t bytes = static_cast<std::size_t>(elements) * ropewalk::size_of(host.type);
        cos_ = device::memory(host.cos, bytes), sin_ = device::memory(host.sin, bytes);
        table_.cos = cos_.data(), table_.sin = sin_.data();
    }
    [[nodiscard]] const ropewalk::cos_sin_table& get() const { return table_; }

private:
    ropewalk::cos_sin_table table_;
    device::memory cos_, sin_;
};

}  // namespace test
