// A conversation outgrows linear:4, so the cached keys are taken to linear:8 in one pass, without the raw keys.
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
    const auto before = rw::make_encoding(geometry, rw::Linear{.factor = 4});
    const auto after = rw::make_encoding(geometry, rw::Linear{.factor = 8});

    std::vector<float> cache(tokens * heads * head_dim);
    for (std::size_t i = 0; i < cache.size(); ++i) cache[i] = std::sin(static_cast<float>(i));
    std::vector<float> afresh = cache;

    const auto keys = rw::thd(cache.data(), tokens, heads, head_dim);
    rw::cpu::rotate<rw::half_split>(keys, before, rw::offset{0});  // what the cache holds
    rw::cpu::rerotate<rw::half_split>(keys, before, rw::offset{0}, after, rw::offset{0});

    rw::cpu::rotate<rw::half_split>(rw::thd(afresh.data(), tokens, heads, head_dim), after, rw::offset{0});
    float worst = 0;
    for (std::size_t i = 0; i < cache.size(); ++i) worst = std::max(worst, std::abs(cache[i] - afresh[i]));
    std::cout << before.expression << " -> " << after.expression << ": at most " << worst << " from encoding afresh\n";
    return worst < 1e-6F ? EXIT_SUCCESS : EXIT_FAILURE;
}
