/// @file  Caller-supplied tables of cosines and sines.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include <ropewalk/core/table.hpp>

#include "support/tensors.hpp"

namespace test {

/// A table of random numbers in place of cosines and sines, rounded to its type.
struct random_table {
    ropewalk::element_type type;
    std::int64_t rows, pairs, stride;
    bool doubled;
    ropewalk::layout_kind layout;
    std::vector<double> cos, sin;  ///< [rows, pairs]
    std::vector<unsigned char> cos_bytes, sin_bytes;

    random_table(random& numbers, ropewalk::element_type type_, ropewalk::layout_kind layout_, std::int64_t rows_,
                 std::int64_t pairs_, bool doubled_)
        : type(type_),
          rows(rows_),
          pairs(pairs_),
          stride((doubled_ ? 2 : 1) * pairs_ + 3),
          doubled(doubled_),
          layout(layout_) {
        const oracle::format& f = format_of(type);
        const auto bytes = static_cast<std::size_t>(rows * stride * f.bytes);
        cos_bytes.resize(bytes), sin_bytes.resize(bytes);
        for (std::int64_t i = 0; i < rows * pairs; ++i) {
            cos.push_back(oracle::rounded(numbers.uniform(-1, 1), f));
            sin.push_back(oracle::rounded(numbers.uniform(-1, 1), f));
            put(cos_bytes, i, cos.back());
            put(sin_bytes, i, sin.back());
        }
    }

    void put(std::vector<unsigned char>& bytes, std::int64_t i, double value) const {
        const std::int64_t row = i / pairs, pair = i % pairs;
        const oracle::shape s{1, 1, 1, 2 * pairs, 0, 2 * pairs, layout == ropewalk::layout_kind::interleaved};
        const auto size = static_cast<std::int64_t>(ropewalk::size_of(type));
        for (const std::int64_t column : {doubled ? s.first(pair) : pair, doubled ? s.second(pair) : pair}) {
            oracle::store(value, format_of(type), bytes.data() + (row * stride + column) * size);
        }
    }

    [[nodiscard]] ropewalk::cos_sin_table table(ropewalk::cos_sin_table::rows_are order) const {
        ropewalk::cos_sin_table t;
        t.cos = cos_bytes.data(), t.sin = sin_bytes.data(), t.type = type, t.rows = rows;
        t.columns = (doubled ? 2 : 1) * pairs, t.stride_row = stride, t.order = order;
        return t;
    }
};

}  // namespace test
