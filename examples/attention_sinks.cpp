// Sliding window with attention sinks (StreamingLLM, Xiao et al., 2023). The cache holds rotated keys. When the window
// moves, one call shifts their positions back, in place.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <vector>

#include <ropewalk/dispatch.hpp>
namespace rw = ropewalk;

namespace {

constexpr int heads = 4, head_dim = 64, size = heads * head_dim;
constexpr int sinks = 4, window = 256, step = 64, tokens = 1500;  // the window moves by `step` tokens

/// Cached keys, [sinks + window, heads, head_dim]. The window is a ring: its keys never move in memory.
struct key_cache {
    std::vector<float> keys = std::vector<float>((sinks + window) * size);
    int dropped = 0;  ///< tokens that left the window

    /// Returns the slot of a token of the text.
    [[nodiscard]] float* slot(int token) {
        return keys.data() + (token < sinks ? token : sinks + (token - sinks) % window) * size;
    }
    /// Drops the oldest `step` tokens of the window. Their slots are shifted, too, until the next tokens replace them.
    void move_window(const rw::Encoding& encoding) {
        const auto slots = rw::thd(keys.data() + sinks * size, window, heads, head_dim);
        rw::dispatch::rotate<rw::half_split>(slots, encoding, rw::shift{-step});
        dropped += step;
    }
};

/// Writes a rotated vector of a token. Stands for the projections of a model: `seed` tells queries from keys.
void encode(int token, int seed, int position, const rw::Encoding& encoding, float* out) {
    for (int i = 0; i < size; ++i) out[i] = std::sin(static_cast<float>(3 * i + 17 * token + seed));
    rw::dispatch::rotate<rw::half_split>(rw::thd(out, 1, heads, head_dim), encoding, rw::offset{position});
}

/// Attention score of a head before the softmax.
float score(const float* q, const float* k) {
    float sum = 0;
    for (int i = 0; i < head_dim; ++i) sum += q[i] * k[i];
    return sum / std::sqrt(static_cast<float>(head_dim));
}

/// Largest difference between scores by cached keys and by keys that are encoded at their present positions.
float difference(const float* q, key_cache& cache, int last_position, const rw::Encoding& encoding) {
    float largest = 0;
    std::vector<float> fresh(size);
    for (int position = 0; position <= last_position; ++position) {
        const int token = position < sinks ? position : position + cache.dropped;
        encode(token, 1, position, encoding, fresh.data());
        for (int i = 0; i < size; i += head_dim) {
            const float cached_score = score(q + i, cache.slot(token) + i);
            largest = std::max(largest, std::abs(cached_score - score(q + i, fresh.data() + i)));
        }
    }
    return largest;
}

}  // namespace

int main() {
    const auto encoding = rw::dispatch::make_encoding({.head_dim = head_dim}, "default");
    key_cache cache;
    std::vector<float> q(size);
    float largest = 0;
    for (int token = 0; token < tokens; ++token) {
        const bool full = token - cache.dropped == sinks + window;
        if (full) cache.move_window(encoding);
        // Positions count the tokens in the cache, not those of the text, so they stay below sinks + window.
        const int position = token - cache.dropped;
        encode(token, 0, position, encoding, q.data());
        encode(token, 1, position, encoding, cache.slot(token));
        if (full || token == tokens - 1) largest = std::max(largest, difference(q.data(), cache, position, encoding));
    }
    std::cout << tokens << " tokens in a cache of " << sinks << " + " << window << ", window moved "
              << cache.dropped / step << " times: scores differ by at most " << largest
              << " from those of newly encoded keys\n";
    return cache.dropped > 0 && largest < 1e-5F ? EXIT_SUCCESS : EXIT_FAILURE;
}
