// Change of the scaling method in a running generation: when the context passes the trained length, the cached keys are
// re-encoded from `default` to `yarn`.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <vector>

#include <ropewalk/dispatch.hpp>
namespace rw = ropewalk;

namespace {

constexpr int layers = 4, heads = 8, kv_heads = 2, head_dim = 128;
constexpr int q_size = heads * head_dim, k_size = kv_heads * head_dim;
constexpr int trained_length = 512, prompt = 500, tokens = 600;

/// Keys of one layer, [tokens, kv_heads, head_dim].
using layer_keys = std::vector<float>;

/// Writes the key of a token. Stands for the projection of a layer.
void project(int layer, int position, layer_keys& keys) {
    float* const key = keys.data() + position * k_size;
    for (int i = 0; i < k_size; ++i) key[i] = std::sin(static_cast<float>(i + 7 * position + 131 * layer));
}

/// Largest difference between cached keys and the keys of all tokens, encoded from scratch.
float difference(const layer_keys& cached, int layer, const rw::Encoding& encoding) {
    layer_keys expected(cached.size());
    for (int position = 0; position < tokens; ++position) project(layer, position, expected);
    rw::dispatch::rotate<rw::half_split>(rw::thd(expected, tokens, kv_heads, head_dim), encoding, rw::offset{0});
    float largest = 0;
    for (std::size_t i = 0; i < cached.size(); ++i) largest = std::max(largest, std::abs(cached[i] - expected[i]));
    return largest;
}

}  // namespace

int main() {
    const rw::Geometry geometry{.head_dim = head_dim, .original_length = trained_length};
    rw::Encoding encoding = rw::dispatch::make_encoding(geometry, "default");

    // The prompt, in one call per layer.
    std::vector<layer_keys> cache(layers, layer_keys(tokens * k_size));
    for (int layer = 0; layer < layers; ++layer) {
        layer_keys& keys = cache[static_cast<std::size_t>(layer)];
        for (int position = 0; position < prompt; ++position) project(layer, position, keys);
        rw::dispatch::rotate<rw::half_split>(rw::thd(keys, prompt, kv_heads, head_dim), encoding, rw::offset{0});
    }

    // Decoding, by a rotation that is prepared for one token.
    std::vector<float> q(q_size, 1.0F);
    const auto prepare = [&] {
        return rw::dispatch::prepare<rw::half_split>(rw::thd(q, 1, heads, head_dim),
                                                     rw::thd(cache[0], 1, kv_heads, head_dim), encoding);
    };
    auto rotation = prepare();
    for (int position = prompt; position < tokens; ++position) {
        if (position == trained_length) {
            const auto target = rw::dispatch::make_encoding(geometry, "yarn:4");
            for (layer_keys& keys : cache) {
                const auto cached = rw::thd(keys, position, kv_heads, head_dim);
                rw::dispatch::rerotate<rw::half_split>(cached, encoding, rw::offset{0}, target, rw::offset{0});
            }
            encoding = target;
            rotation = prepare();  // it has the frequencies and the attention factor of the old encoding
        }
        for (int layer = 0; layer < layers; ++layer) {
            layer_keys& keys = cache[static_cast<std::size_t>(layer)];
            project(layer, position, keys);
            if (!rotation.run(q.data(), keys.data() + position * k_size, position)) return EXIT_FAILURE;
        }
    }

    float largest = 0;
    for (int layer = 0; layer < layers; ++layer)
        largest = std::max(largest, difference(cache[static_cast<std::size_t>(layer)], layer, encoding));
    std::cout << "default -> " << encoding.expression << " at token " << trained_length << ": keys differ by at most "
              << largest << " from those that are encoded from scratch\n";
    return largest < 2e-6F ? EXIT_SUCCESS : EXIT_FAILURE;
}
