// What a kernel takes: plain data by value, the steps themselves included, so that a call uploads nothing.
#pragma once

#include <cstdint>

#include "ropewalk/rotation/params.hpp"

namespace ropewalk::gpu {

/// One term of a rotation without its steps.
struct term_source {
    position_reader positions;
    std::int64_t centre = 0;
};

/// What makes the cosines and sines of a token.
struct turn_source {
    term_source target, source;  ///< `source` where `has_source`
    cos_sin_table table;         ///< in place of both where it exists
    std::int64_t pairs = 0;
    float factor = 1;
    bool negate_angle = false;
    bool has_source = false;  ///< a re-rotation: keys have another encoding
    bool invert_magnitude = false;
};

/// The steps of an encoding by value. A pair follows one position of its token, number axis[pair].
template <int Capacity>
struct steps_by_value {
    std::uint64_t step[Capacity];
    std::uint8_t axis[Capacity];
};

/// A plain rotation.
template <int Capacity>
struct plain_rates {
    static constexpr int capacity = Capacity;
    static constexpr bool full = false;
    steps_by_value<Capacity> target;
};

/// A rotation which may stretch, and keys which may leave another encoding.
template <int Capacity>
struct full_rates {
    static constexpr int capacity = Capacity;
    static constexpr bool full = true;
    steps_by_value<Capacity> target, source;
    std::uint64_t magnitude_rates[Capacity], source_magnitude_rates[Capacity];
};

/// Pairs whose steps the kernel parameters of a plain rotation hold, and of any other call. Fused kernels, which hold a
/// whole head in registers, have one for heads of few pairs.
inline constexpr int plain_pairs = 256, most_pairs = 512, few_pairs = 128;

/// The heads of queries or of keys.
struct heads_source {
    const void* in = nullptr;
    void* out = nullptr;
    std::int64_t in_batch = 0, in_token = 0, in_head = 0;  ///< elements
    std::int64_t out_batch = 0, out_token = 0, out_head = 0;
    std::int32_t heads = 0;
    std::int32_t heads_a_thread = 1;
};

/// The plan of a rotation. Thread number i of `threads` turns (or copies) its slot of its heads of its token: slots are
/// the innermost, then groups of heads, those of q before those of k, then tokens.
struct rotate_frame {
    heads_source side[2];  ///< q, k
    turn_source source;
    std::int64_t threads = 0;
    std::int64_t tokens = 0;  ///< of a batch row
    std::int64_t rotary_offset = 0;
    std::int32_t turning = 0;   ///< slots of a head that turn
    std::int32_t slots = 0;     ///< and those behind them which copy what does not
    std::int32_t q_groups = 0;  ///< groups of heads of q
    std::int32_t groups = 0;    ///< and those of k behind them
};

/// A kernel's parameter.
template <class Rates>
struct rotate_job : rotate_frame {
    Rates rates;
};

}  // namespace ropewalk::gpu
