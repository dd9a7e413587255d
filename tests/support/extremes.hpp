/// @file  Random rotations with extents and strides near the ends of 64 bits, for the checks of a plan. Their memory
/// does not exist and is never read.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <vector>

#include <ropewalk/rotation/args.hpp>

#include "support/random.hpp"

namespace test {

/// A small number, a number near a power of two, near an end of 64 bits, or any.
inline std::int64_t extreme(random& numbers) {
    constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min(),
                           most = std::numeric_limits<std::int64_t>::max();
    const std::int64_t small = numbers.integer(0, 3);
    switch (numbers.integer(0, 4)) {
        case 0:
            return numbers.coin() ? small : -small;
        case 1:
            return numbers.coin() ? most - small : least + small;
        case 2: {
            const std::int64_t power = std::int64_t{1} << numbers.integer(2, 62);
            const std::int64_t near = power + numbers.integer(-1, 1);
            return numbers.coin() ? near : -near;
        }
        default:
            return static_cast<std::int64_t>(numbers.bits());
    }
}

/// A valid rotation of q [2, 3, 4, 64] and k [2, 3, 2, 64], in place or not, of whose numbers up to three are extreme.
struct extreme_call {
    ropewalk::rotate_args args;
    std::vector<std::int64_t> ids = std::vector<std::int64_t>(18);

    extreme_call(random& numbers, const ropewalk::Encoding& encoding) {
        const bool in_place = numbers.coin();
        args.q_in = tensor(1, 4), args.k_in = tensor(2, 2);
        args.q_out = in_place ? args.q_in : tensor(3, 4), args.k_out = in_place ? args.k_in : tensor(4, 2);
        if (numbers.coin()) args.k_in = args.k_out = {};
        args.target = &encoding;
        args.target_positions = positions(numbers);
        for (std::int64_t count = numbers.integer(1, 3); count > 0; --count) spoil(numbers, in_place);
        if (numbers.integer(0, 3) == 0) set_table(numbers);
    }

private:
    static ropewalk::tensor tensor(std::uintptr_t region, std::int64_t heads) {
        return {.data = reinterpret_cast<void*>(region << 44),
                .batch = 2,
                .tokens = 3,
                .heads = heads,
                .head_dim = 64,
                .stride_batch = 3 * heads * 64,
                .stride_token = heads * 64,
                .stride_head = 64};
    }

    ropewalk::positions positions(random& numbers) {
        if (numbers.coin()) return ropewalk::offset{extreme(numbers)};
        ropewalk::positions result = ropewalk::ids(std::span<const std::int64_t>(ids).first(6), 2);
        if (numbers.coin()) result.stride_row = numbers.one_of<std::int64_t>({3, 0, std::int64_t{1} << 62});
        return result;
    }

    /// Replaces one number of the queries or the keys, on both sides where that keeps the shapes equal.
    void spoil(random& numbers, bool in_place) {
        using ropewalk::tensor;
        constexpr std::array extents{&tensor::batch, &tensor::tokens, &tensor::heads};
        constexpr std::array strides{&tensor::stride_batch, &tensor::stride_token, &tensor::stride_head};
        const auto axis = static_cast<std::size_t>(numbers.integer(0, 2));
        const std::int64_t value = extreme(numbers);
        const std::array both{&args.q_in, &args.q_out}, keys{&args.k_in, &args.k_out};
        const bool q = numbers.coin() || !args.k_in.exists();
        if (numbers.coin()) {
            for (tensor* const t : q ? both : keys) t->*extents[axis] = value;
            if (axis < 2 && args.k_in.exists())
                for (tensor* const t : q ? keys : both) t->*extents[axis] = value;
            return;
        }
        (q ? args.q_out : args.k_out).*strides[axis] = value;
        if (in_place) (q ? args.q_in : args.k_in).*strides[axis] = value;
        if (numbers.integer(0, 3) == 0)  // a stride of an axis with one entry
            for (tensor* const t : {&args.q_in, &args.q_out, &args.k_in, &args.k_out})
                if (t->exists()) t->*extents[axis] = axis == 2 ? t->*extents[axis] : 1;
    }

    void set_table(random& numbers) {
        args.table = {.cos = reinterpret_cast<const void*>(std::uintptr_t{5} << 44),
                      .sin = reinterpret_cast<const void*>(std::uintptr_t{6} << 44),
                      .rows = extreme(numbers),
                      .columns = 32,
                      .stride_row = numbers.coin() ? 32 : extreme(numbers),
                      .order = numbers.coin() ? ropewalk::cos_sin_table::rows_are::by_token
                                              : ropewalk::cos_sin_table::rows_are::by_index,
                      .batch = numbers.coin() ? 1 : 2,
                      .stride_batch = extreme(numbers)};
    }
};

/// The offsets of all heads in bytes from address 0, of a tensor with at most 10,000 of them.
inline std::vector<double> heads_of(const ropewalk::tensor& t) {
    const auto size = static_cast<double>(ropewalk::size_of(t.type));
    std::vector<double> heads;
    if (!t.exists() || t.elements() == 0 || t.elements() > 640000) return heads;
    for (std::int64_t b = 0; b < t.batch; ++b)
        for (std::int64_t s = 0; s < t.tokens; ++s)
            for (std::int64_t h = 0; h < t.heads; ++h)
                heads.push_back(static_cast<double>(reinterpret_cast<std::uintptr_t>(t.data)) +
                                size * (static_cast<double>(b) * static_cast<double>(t.stride_batch) +
                                        static_cast<double>(s) * static_cast<double>(t.stride_token) +
                                        static_cast<double>(h) * static_cast<double>(t.stride_head)));
    return heads;
}

/// Returns what is wrong with a call that a backend accepts, or "". Addresses are doubles, which are exact up to 2^53.
inline std::string problem_of_accepted(const ropewalk::rotate_args& args) {
    const auto of = [](const ropewalk::tensor& t) {
        std::vector<double> heads = heads_of(t);
        std::sort(heads.begin(), heads.end());
        return heads;
    };
    const std::array written{of(args.q_out), of(args.k_out)}, read{of(args.q_in), of(args.k_in)};
    for (const auto& heads : written) {
        if (heads.empty()) continue;
        if (heads.front() < 0 || heads.back() > 0x1p64) return "a head outside of the address space";
        for (std::size_t i = 1; i < heads.size(); ++i)
            if (heads[i] - heads[i - 1] < 64 * 4) return "heads that share memory";
    }
    for (std::size_t i = 0; i < 2; ++i) {
        for (const auto* const others : {&written[1 - i], &read[1 - i]})
            for (const double head : written[i]) {
                const auto next = std::lower_bound(others->begin(), others->end(), head - 64 * 4 + 1);
                if (next != others->end() && *next < head + 64 * 4) return "queries and keys that share memory";
            }
    }
    return {};
}

}  // namespace test
