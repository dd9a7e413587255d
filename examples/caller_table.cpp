// Caller-supplied cos and sin table in the order of Hugging Face, for results with exactly the rounding of another
// library.
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <vector>

#include <ropewalk/ropewalk.hpp>
namespace rw = ropewalk;

int main() {
    const std::int64_t tokens = 100, heads = 4, head_dim = 64, pairs = head_dim / 2;
    // Computed like in Transformers: the angle is a float32 product, and each value is stored twice, cat(freqs, freqs).
    std::vector<float> cos(tokens * head_dim), sin(cos.size());
    for (std::int64_t token = 0; token < tokens; ++token) {
        for (std::int64_t column = 0; column < head_dim; ++column) {
            const float inv_freq =
                1 / std::pow(10000.0F, static_cast<float>(column % pairs) / static_cast<float>(pairs));
            const float angle = static_cast<float>(token) * inv_freq;
            cos[static_cast<std::size_t>(token * head_dim + column)] = std::cos(angle);
            sin[static_cast<std::size_t>(token * head_dim + column)] = std::sin(angle);
        }
    }

    rw::cpu::options options;
    options.table = {.cos = cos.data(),
                     .sin = sin.data(),
                     .type = rw::element_type::f32,
                     .rows = tokens,
                     .columns = head_dim,
                     .stride_row = head_dim};
    std::vector<float> q(tokens * heads * head_dim, 1.0F);
    const auto encoding = rw::make_encoding(rw::Geometry{.head_dim = head_dim}, "default");  // defines the rotary part
    rw::cpu::rotate<rw::half_split>(rw::thd(q.data(), tokens, heads, head_dim), encoding, rw::offset{0}, options);

    // The pair (1, 1) becomes (cos − sin, sin + cos), with exactly the values of the table.
    bool same = true;
    for (std::int64_t token = 0; token < tokens; ++token) {
        for (std::int64_t pair = 0; pair < pairs; ++pair) {
            const auto entry = static_cast<std::size_t>(token * head_dim + pair);
            const auto first = static_cast<std::size_t>(token * heads * head_dim + pair);
            const std::size_t second = first + static_cast<std::size_t>(pairs);
            same = same && q[first] == cos[entry] - sin[entry] && q[second] == cos[entry] + sin[entry];
        }
    }
    std::cout << "the rotation " << (same ? "uses" : "does NOT use") << " exactly the values of the table\n";
    return same ? EXIT_SUCCESS : EXIT_FAILURE;
}
