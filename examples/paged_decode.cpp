// Decode loop of two sequences with a paged key cache. Prepared rotations write rotated keys into their slots, and all
// layers share the cosines and sines of a token.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <vector>

#include <ropewalk/dispatch.hpp>
namespace rw = ropewalk;

namespace {

constexpr int layers = 32, heads = 32, kv_heads = 8, head_dim = 128;
constexpr int q_size = heads * head_dim, k_size = kv_heads * head_dim;
constexpr int sequences = 2, tokens = 100, page_tokens = 16, pages = 14;

/// Keys of one layer, [pages, page_tokens, kv_heads, head_dim].
using key_pages = std::vector<float>;

struct sequence_state {
    int number;
    std::vector<int> block_table;  ///< page i has positions [i, i + 1) · page_tokens, in every layer
    rw::cpu::prepared<float> rotation;

    /// Returns the slot of a position in a layer.
    [[nodiscard]] float* slot(key_pages& keys, int position) const {
        const int page = block_table[static_cast<std::size_t>(position / page_tokens)];
        return keys.data() + (page * page_tokens + position % page_tokens) * k_size;
    }
};

/// Writes the query and the key of a token, [heads + kv_heads, head_dim]. Stands for the projections of a layer.
void project(int sequence, int layer, int position, float* qk) {
    for (int i = 0; i < q_size + k_size; ++i)
        qk[i] = static_cast<float>((37 * i + 7 * position + 13 * layer + 51 * sequence) % 101) / 50 - 1;
}

/// Largest difference between the cached keys of a layer and one rotation of contiguous keys.
float difference(const sequence_state& sequence, int layer, key_pages& keys, const rw::Encoding& encoding) {
    std::vector<float> qk(q_size + k_size), expected;
    for (int position = 0; position < tokens; ++position) {
        project(sequence.number, layer, position, qk.data());
        expected.insert(expected.end(), qk.begin() + q_size, qk.end());
    }
    rw::dispatch::rotate<rw::half_split>(rw::thd(expected, tokens, kv_heads, head_dim), encoding, rw::offset{0});
    float largest = 0;
    for (int position = 0; position < tokens; ++position) {
        const float* const cached = sequence.slot(keys, position);
        const float* const key = expected.data() + position * k_size;
        for (int i = 0; i < k_size; ++i) largest = std::max(largest, std::abs(cached[i] - key[i]));
    }
    return largest;
}

}  // namespace

int main() {
    const auto encoding = rw::dispatch::make_encoding({.head_dim = head_dim, .base = 500000.0}, "default");
    std::vector<key_pages> cache(layers, key_pages(pages * page_tokens * k_size));
    std::vector<float> qk(layers * (q_size + k_size));  // of the current token, per layer

    // Once: validates the shapes of one token. The addresses are only examples. Each sequence has its own position.
    const auto q_view = rw::thd(qk.data(), 1, heads, head_dim),
               k_view = rw::thd(qk.data() + q_size, 1, kv_heads, head_dim);
    std::vector<sequence_state> batch;
    for (int number = 0; number < sequences; ++number)
        batch.push_back({number, {}, rw::dispatch::prepare<rw::half_split>(q_view, k_view, encoding)});

    int free_pages = pages;
    std::chrono::duration<double, std::micro> time{};
    for (int position = 0; position < tokens; ++position) {
        for (sequence_state& sequence : batch) {
            if (position % page_tokens == 0) sequence.block_table.push_back(--free_pages);
            for (int layer = 0; layer < layers; ++layer)
                project(sequence.number, layer, position, qk.data() + layer * (q_size + k_size));

            const auto start = std::chrono::steady_clock::now();
            float* q = qk.data();
            for (key_pages& keys : cache) {
                // The query in place, the key into its slot. The first layer computes the cosines and sines.
                if (!sequence.rotation.run(q, q + q_size, q, sequence.slot(keys, position), position))
                    return EXIT_FAILURE;
                q += q_size + k_size;
            }
            time += std::chrono::steady_clock::now() - start;
        }
    }

    float largest = 0;
    for (const sequence_state& sequence : batch)
        for (int layer = 0; layer < layers; ++layer)
            largest = std::max(largest, difference(sequence, layer, cache[static_cast<std::size_t>(layer)], encoding));
    std::cout << layers << " layers of " << heads << " + " << kv_heads
              << " heads: " << time.count() / (sequences * tokens) << " us per token; cached keys differ by at most "
              << largest << " from one rotation of all keys\n";
    return largest < 1e-6F ? EXIT_SUCCESS : EXIT_FAILURE;
}
