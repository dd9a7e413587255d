// Decode step of a batch of sequences with a paged cache: one call norms and rotates queries and keys, and stores keys
// and values in the slots of their sequences.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <span>
#include <vector>

#include <ropewalk/dispatch.hpp>
namespace rw = ropewalk;

namespace {

constexpr int sequences = 4, heads = 8, kv_heads = 2, head_dim = 64, page_tokens = 16, max_pages = 4, pages = 16;
constexpr int width = (heads + 2 * kv_heads) * head_dim;  // of a packed projection

/// The packed projection of the next token of every sequence, [sequences, width].
std::vector<float> project(int step) {
    std::vector<float> packed(sequences * width);
    for (std::size_t i = 0; i < packed.size(); ++i)
        packed[i] = static_cast<float>((37 * i + 11 * static_cast<std::size_t>(step)) % 101) / 50 - 1;
    return packed;
}

}  // namespace

int main() {
    const auto encoding = rw::dispatch::make_encoding({.head_dim = head_dim, .base = 500000.0}, "default");
    const std::vector<float> norm_weights(head_dim, 1.0F);
    std::vector<float> keys(pages * page_tokens * kv_heads * head_dim), values(keys.size());
    // Sequence s has the pages s, s + 4, …
    std::vector<std::int32_t> page_table;
    for (int s = 0; s < sequences; ++s)
        for (int page = 0; page < max_pages; ++page) page_table.push_back(page * sequences + s);
    std::vector<std::int64_t> lengths{0, 5, 16, 31};  // tokens of each sequence in the cache

    rw::fusion fusion;
    fusion.q_norm = fusion.k_norm = rw::head_norm(norm_weights.data(), 1e-6);
    fusion.cache.k = rw::nhd_cache(keys.data(), pages, page_tokens, kv_heads, head_dim);
    fusion.cache.v = rw::nhd_cache(values.data(), pages, page_tokens, kv_heads, head_dim);

    // The same call for the layers of a model: prepared once, then run at the addresses of each layer.
    std::vector<float> layer(sequences * width), layer_keys(keys.size()), layer_values(values.size());
    const auto token_of = [](rw::view<float> x) {
        return rw::view<float>(static_cast<float*>(x.data), sequences, 1, x.heads, x.head_dim, x.stride_token,
                               x.stride_token, x.stride_head);
    };
    const auto split = [&](std::vector<float>& packed) {
        const auto [q, k, v] = rw::split_qkv(packed.data(), sequences, width, heads, kv_heads, head_dim);
        return rw::qkv<float>{token_of(q), token_of(k), token_of(v)};
    };
    const rw::qkv<float> parts = split(layer);
    auto prepared = rw::dispatch::prepare_fused<rw::half_split, float>(parts, {parts.q, {}, {}}, fusion, encoding);

    float largest = 0;
    for (int step = 0; step < 20; ++step) {
        std::vector<float> packed = project(step);
        // A batch of sequences with one token each. The length of a sequence is the position of its next token.
        const rw::qkv<float> heads_of_step = split(packed);
        const auto next = rw::ids(std::span<const std::int64_t>(lengths), sequences);
        fusion.slots = rw::by_page_table(page_table, sequences, next);
        rw::dispatch::fused<rw::half_split, float>(heads_of_step, {heads_of_step.q, {}, {}}, fusion, encoding, next);

        std::ranges::copy(project(step), layer.begin());
        std::vector<std::int64_t> slots;  // page * page_size + entry, one per sequence
        for (std::size_t s = 0; s < sequences; ++s)
            slots.push_back(page_table[s * max_pages + static_cast<std::size_t>(lengths[s] / page_tokens)] *
                                page_tokens +
                            lengths[s] % page_tokens);
        const bool accepted =
            prepared.run({.q = {.in = parts.q.data, .norm = norm_weights.data()},
                          .k = {.in = parts.k.data, .cache = layer_keys.data(), .norm = norm_weights.data()},
                          .v = {.in = parts.v.data, .cache = layer_values.data()}},
                         lengths, slots);
        if (!accepted || layer != packed || layer_keys != keys || layer_values != values) return EXIT_FAILURE;

        // The values of the first sequence are in its slot, unchanged.
        const std::vector<float> expected = project(step);
        for (int i = 0; i < kv_heads * head_dim; ++i)
            largest =
                std::max(largest, std::abs(values[static_cast<std::size_t>(slots[0] * kv_heads * head_dim + i)] -
                                           expected[static_cast<std::size_t>((heads + kv_heads) * head_dim + i)]));
        for (std::int64_t& length : lengths) ++length;
    }
    std::cout << "cached values differ by at most " << largest << " from those of the projection\n";
    return largest == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
