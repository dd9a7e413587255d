// Quick start: the C++ lines of the README, and a check of the result.
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <vector>

#include <ropewalk/ropewalk.hpp>
namespace rw = ropewalk;

int main() {
    const std::int64_t tokens = 16, heads = 32, kv_heads = 8, head_dim = 128;
    std::vector<float> queries(tokens * heads * head_dim, 1.0F), keys(tokens * kv_heads * head_dim, 1.0F);

    auto encoding = rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = 10000.0}, rw::Linear{.factor = 8});
    auto q = rw::thd(queries.data(), tokens, heads, head_dim);  // views of existing memory, [tokens, heads, head_dim]
    auto k = rw::thd(keys.data(), tokens, kv_heads, head_dim);
    rw::cpu::rotate<rw::half_split>(q, k, encoding, rw::offset{4096});  // in place, the first token at position 4096

    // Pair 0 of the first token: (1, 1) rotated by 4096/8 radians.
    const double angle = 4096.0 / 8;
    const double first = std::cos(angle) - std::sin(angle), second = std::sin(angle) + std::cos(angle);
    std::cout << encoding.expression << ": (1, 1) became (" << queries[0] << ", " << queries[head_dim / 2]
              << "), exactly (" << first << ", " << second << ")\n";
    const bool correct = std::abs(queries[0] - first) < 1e-6 && std::abs(queries[head_dim / 2] - second) < 1e-6;
    return correct ? EXIT_SUCCESS : EXIT_FAILURE;
}
