// Re-rotation of cached keys: from linear:4 to linear:8 in one pass, without the original keys.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <vector>

#include <ropewalk/ropewalk.hpp>
namespace rw = ropewalk;

int main() {
    const std::int64_t tokens = 2048, heads = 8, head_dim = 128;
    const rw::Geometry geometry{.head_dim = head_dim};
    const auto source = rw::make_encoding(geometry, rw::Linear{.factor = 4});
    const auto target = rw::make_encoding(geometry, rw::Linear{.factor = 8});

    std::vector<float> cache(tokens * heads * head_dim);
    for (std::size_t i = 0; i < cache.size(); ++i) cache[i] = std::sin(static_cast<float>(i));
    std::vector<float> expected = cache;

    const auto keys = rw::thd(cache.data(), tokens, heads, head_dim);
    rw::cpu::rotate<rw::half_split>(keys, source, rw::offset{0});  // the cached keys
    rw::cpu::rerotate<rw::half_split>(keys, source, rw::offset{0}, target, rw::offset{0});

    rw::cpu::rotate<rw::half_split>(rw::thd(expected.data(), tokens, heads, head_dim), target, rw::offset{0});
    float difference = 0;
    for (std::size_t i = 0; i < cache.size(); ++i) difference = std::max(difference, std::abs(cache[i] - expected[i]));
    std::cout << source.expression << " -> " << target.expression << ": differs by at most " << difference
              << " from a rotation by the target\n";
    return difference < 1e-6F ? EXIT_SUCCESS : EXIT_FAILURE;
}
