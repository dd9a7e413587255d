/// @file  Caches in guarded memory and slots beside them, and what a fused call must make of them, in float64.
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "device_array.hpp"

namespace test {

/// The number that a byte of float8 e4m3 (OCP, no infinities) stands for.
inline double decode_e4m3(unsigned byte) {
    const unsigned exponent = byte >> 3 & 15, fraction = byte & 7;
    if (exponent == 15 && fraction == 7) return std::numeric_limits<double>::quiet_NaN();
    const double size =
        exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, static_cast<int>(exponent) - 10);
    return (byte & 128) != 0 ? -size : size;
}

/// A page and a place there.
struct slot {
    std::int64_t page = 0, place = 0;
};

/// Keys or values of a cache, on the device with guards around them.
class cache_memory {
public:
    static constexpr std::size_t guard = 256;

    cache_memory(ropewalk::gpu::cache_type type, bool hnd, std::int64_t pages, std::int64_t page_size,
                 std::int64_t heads, std::int64_t head_dim)
        : hnd_(hnd),
          bytes_(2 * guard + static_cast<std::size_t>(pages * page_size * heads * head_dim * size_of(type)),
                 array::pattern),
          scales_(2 * guard + static_cast<std::size_t>(pages * page_size * heads) * 4, array::pattern),
          there_(bytes_.data(), bytes_.size()),
          scales_there_(scales_.data(), scales_.size()) {
        auto* const scales = type == ropewalk::gpu::cache_type::i8
                                 ? reinterpret_cast<float*>(static_cast<char*>(scales_there_.data()) + guard)
                                 : nullptr;
        auto* const at = reinterpret_cast<std::int8_t*>(static_cast<char*>(there_.data()) + guard);
        cache_ = hnd ? ropewalk::gpu::hnd_cache(at, pages, heads, page_size, head_dim, scales)
                     : ropewalk::gpu::nhd_cache(at, pages, page_size, heads, head_dim, scales);
        cache_.type = type;
        if (type == ropewalk::gpu::cache_type::f8e4m3) cache_.scale = 0.037F;
    }
    [[nodiscard]] const ropewalk::gpu::cache_tensor& get() const { return cache_; }

    void fetch() {
        device::copy(bytes_.data(), there_.data(), bytes_.size());
        device::copy(scales_.data(), scales_there_.data(), scales_.size());
    }

    /// What is wrong with a head in a slot which should hold `exact`, or "". Marks its bytes as seen.
    std::string problem(const slot& at, std::int64_t head, std::span<const double> exact, double room) {
        const std::int64_t row = hnd_ ? (at.page * cache_.heads + head) * cache_.page_size + at.place
                                      : (at.page * cache_.page_size + at.place) * cache_.heads + head;
        const auto size = static_cast<std::size_t>(size_of(cache_.type));
        unsigned char* const first = bytes_.data() + guard + static_cast<std::size_t>(row * cache_.head_dim) * size;
        float scale = 0;
        if (cache_.scales != nullptr) {
            unsigned char* const stored = scales_.data() + guard + static_cast<std::size_t>(row) * 4;
            std::memcpy(&scale, stored, 4);
            std::memset(stored, array::pattern, 4);
        }
        double largest = 0;
        for (const double x : exact) largest = std::max(largest, std::fabs(x));
        std::string wrong;
        if (cache_.scales != nullptr && std::fabs(scale - largest / 127) > room / 100)
            wrong = "scale " + std::to_string(scale) + ", exact is " + std::to_string(largest / 127);
        for (std::size_t i = 0; i < exact.size() && wrong.empty(); ++i) {
            if (!holds(first + i * size, exact[i], room, scale))
                wrong = "element " + std::to_string(i) + " of head " + std::to_string(head) + " in page " +
                        std::to_string(at.page) + ", place " + std::to_string(at.place) + " should hold " +
                        std::to_string(exact[i]);
        }
        std::memset(first, array::pattern, exact.size() * size);
        return wrong;
    }
    /// Whether nothing was written beside what has been seen.
    [[nodiscard]] bool rest_intact() const {
        const auto intact = [](unsigned char byte) { return byte == array::pattern; };
        return std::all_of(bytes_.begin(), bytes_.end(), intact) && std::all_of(scales_.begin(), scales_.end(), intact);
    }

private:
    [[nodiscard]] bool holds(const unsigned char* at, double exact, double room, double scale) const {
        using ropewalk::gpu::cache_type;
        if (cache_.type == cache_type::i8) {
            if (scale == 0) return *at == 0;
            return std::fabs(static_cast<double>(static_cast<signed char>(*at)) - exact / scale) <= 0.5 + room / scale;
        }
        if (cache_.type == cache_type::f8e4m3) {
            const double x = std::clamp(exact / double{cache_.scale}, -448.0, 448.0), got = decode_e4m3(*at);
            // Half a step of the binade of x.
            const double half = std::ldexp(1.0, std::max(std::ilogb(std::max(std::fabs(x), 1e-9)), -6) - 4);
            return std::fabs(got - x) <= half + room / double{cache_.scale} + 1e-6 * std::fabs(x);
        }
        const oracle::format& f = cache_.type == cache_type::f32   ? oracle::f32
                                  : cache_.type == cache_type::f16 ? oracle::f16
                                                                   : oracle::bf16;
        std::uint32_t bits = 0;
        std::memcpy(&bits, at, static_cast<std::size_t>(f.bytes));
        return within(oracle::decode(bits, f), exact, room, f);
    }

    bool hnd_;
    std::vector<unsigned char> bytes_, scales_;
    device::memory there_, scales_there_;
    ropewalk::gpu::cache_tensor cache_;
};

/// Slots of a call on the device, and on the host where each token must go.
struct slot_choice {
    ropewalk::gpu::cache_slots slots;
    std::vector<std::optional<slot>> of_token;  ///< batch row by batch row
    std::int64_t pages = 0, page_size = 0;
    std::vector<std::int64_t> starts;  ///< of ragged sequences
    std::optional<device_positions> entries;
    device::memory numbers;
};

namespace detail {

inline std::vector<std::int32_t> shuffled(random& numbers, std::int64_t count) {
    std::vector<std::int32_t> result;
    for (std::int64_t i = 0; i < count; ++i) {
        result.push_back(static_cast<std::int32_t>(i));
        std::swap(result.back(), result[static_cast<std::size_t>(numbers.integer(0, i))]);
    }
    return result;
}

inline void choose_mapping(random& numbers, slot_choice& made, std::int64_t tokens) {
    made.page_size = numbers.one_of<std::int64_t>({1, 4, 16});
    made.pages = tokens / made.page_size + 3;
    const bool narrow = numbers.coin();
    const auto places = shuffled(numbers, made.pages * made.page_size);
    std::vector<std::int32_t> few;
    std::vector<std::int64_t> many;
    for (std::int64_t token = 0; token < tokens; ++token) {
        const std::int32_t number = places[static_cast<std::size_t>(token)];
        const std::int64_t outside = numbers.coin() ? -1 : made.pages * made.page_size + number;
        const std::int64_t at = numbers.integer(0, 5) == 0 ? outside : number;
        few.push_back(static_cast<std::int32_t>(at)), many.push_back(at);
        if (at == number) {
            made.of_token.push_back(slot{number / made.page_size, number % made.page_size});
        } else {
            made.of_token.push_back(std::nullopt);
        }
    }
    made.numbers = narrow ? device::memory(few.data(), few.size() * 4) : device::memory(many.data(), many.size() * 8);
    const auto count = static_cast<std::size_t>(tokens);
    made.slots =
        narrow ? ropewalk::gpu::by_mapping(std::span(static_cast<const std::int32_t*>(made.numbers.data()), count))
               : ropewalk::gpu::by_mapping(std::span(static_cast<const std::int64_t*>(made.numbers.data()), count));
}

/// Entry numbers of each token and its sequence, from an offset or ragged.
inline std::vector<slot> choose_entries(random& numbers, slot_choice& made, std::int64_t batch, std::int64_t tokens) {
    const std::int64_t first = numbers.integer(0, 9);
    std::vector<slot> at;  // page: the sequence
    if (batch == 1 && numbers.coin()) {
        made.starts = {0};
        while (made.starts.back() < tokens)
            made.starts.push_back(std::min(tokens, made.starts.back() + numbers.integer(0, 7)));
        for (std::size_t s = 0; s + 1 < made.starts.size(); ++s)
            for (std::int64_t t = made.starts[s]; t < made.starts[s + 1]; ++t)
                at.push_back({static_cast<std::int64_t>(s), first + t - made.starts[s]});
        made.entries.emplace(ropewalk::cu_seqlens(std::span<const std::int64_t>(made.starts), first));
    } else {
        for (std::int64_t row = 0; row < batch; ++row)
            for (std::int64_t t = 0; t < tokens; ++t) at.push_back({row, first + t});
        made.entries.emplace(ropewalk::offset{first});
    }
    return at;
}

}  // namespace detail

/// Slots by sequence, by a table of pages or by a mapping; some tokens have none.
inline slot_choice choose_slots(random& numbers, std::int64_t batch, std::int64_t tokens) {
    slot_choice made;
    if (numbers.integer(0, 2) == 0) {
        detail::choose_mapping(numbers, made, batch * tokens);
        return made;
    }
    const std::vector<slot> entries = detail::choose_entries(numbers, made, batch, tokens);
    const std::int64_t sequences = made.starts.empty() ? batch : static_cast<std::int64_t>(made.starts.size()) - 1;
    if (numbers.coin()) {
        made.pages = sequences, made.page_size = tokens + (made.starts.empty() ? 9 : 1);
        made.slots = ropewalk::gpu::by_sequence(made.entries->get());
        for (const slot& at : entries)
            made.of_token.push_back(at.place < made.page_size ? std::optional(at) : std::nullopt);
        return made;
    }
    made.page_size = numbers.one_of<std::int64_t>({1, 4, 16});
    // The host would know that an offset goes beyond the table.
    const std::int64_t beyond = made.starts.empty() ? 0 : numbers.integer(0, 1);
    const std::int64_t a_row = std::max<std::int64_t>(1, (tokens + 9) / made.page_size + 1 - beyond);
    made.pages = sequences * a_row + 2;
    std::vector<std::int32_t> table = detail::shuffled(numbers, made.pages);
    table.resize(static_cast<std::size_t>(sequences * a_row));
    table[static_cast<std::size_t>(numbers.integer(0, sequences * a_row - 1))] = numbers.coin() ? -1 : 1 << 30;
    made.numbers = device::memory(table.data(), table.size() * 4);
    made.slots = ropewalk::gpu::by_page_table(
        std::span(static_cast<const std::int32_t*>(made.numbers.data()), table.size()), sequences, made.entries->get());
    for (const slot& at : entries) {
        const std::int64_t nth = at.place / made.page_size;
        const std::int64_t page = nth < a_row ? table[static_cast<std::size_t>(at.page * a_row + nth)] : -1;
        if (page >= 0 && page < made.pages) {
            made.of_token.push_back(slot{page, at.place % made.page_size});
        } else {
            made.of_token.push_back(std::nullopt);
        }
    }
    return made;
}

/// Weights of a norm over head_dim, on both sides.
struct norm_choice {
    std::vector<double> weight;
    ropewalk::gpu::head_norm norm;
    device::memory there;

    norm_choice(random& numbers, std::int64_t head_dim) {
        norm.type = random_type(numbers), norm.one_plus = numbers.coin();
        norm.epsilon = numbers.coin() ? 1e-6 : 1e-5;
        array weights(norm.type, {1, 1, 1, head_dim}, numbers);
        weight = weights.values();
        there = device::memory(weights.tensor().data, weight.size() * ropewalk::size_of(norm.type));
        norm.weight = there.data();
    }
    /// x / √(mean(x²) + epsilon) · weight (arXiv 1910.07467).
    void apply(std::span<double> head) const {
        double squares = 0;
        for (const double x : head) squares += x * x;
        const double by = 1 / std::sqrt(squares / static_cast<double>(head.size()) + norm.epsilon);
        for (std::size_t i = 0; i < head.size(); ++i) head[i] *= by * (weight[i] + (norm.one_plus ? 1 : 0));
    }
};

}  // namespace test
