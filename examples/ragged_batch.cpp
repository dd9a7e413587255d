// Ragged batch: three sequences of different lengths, packed without padding. Each starts at position 0.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <span>
#include <vector>

#include <ropewalk/ropewalk.hpp>
namespace rw = ropewalk;

int main() {
    const std::array<std::int32_t, 4> starts{0, 5, 6, 20};
    const std::int64_t tokens = starts.back(), heads = 4, head_dim = 64, token_size = heads * head_dim;
    const auto encoding = rw::make_encoding(rw::Geometry{.head_dim = head_dim}, "default");

    std::vector<float> packed(static_cast<std::size_t>(tokens * token_size));
    for (std::size_t i = 0; i < packed.size(); ++i) packed[i] = std::cos(static_cast<float>(i));
    std::vector<float> separate = packed;

    rw::cpu::rotate<rw::half_split>(rw::thd(packed.data(), tokens, heads, head_dim), encoding,
                                    rw::cu_seqlens(std::span<const std::int32_t>(starts)));

    // The same rotation, one call per sequence.
    for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
        float* const begin = separate.data() + starts[i] * token_size;
        rw::cpu::rotate<rw::half_split>(rw::thd(begin, starts[i + 1] - starts[i], heads, head_dim), encoding,
                                        rw::offset{0});
    }
    const bool same = packed == separate;
    std::cout << starts.size() - 1 << " sequences in one call: " << (same ? "the same bits as" : "DIFFERENT from")
              << " one call per sequence\n";
    return same ? EXIT_SUCCESS : EXIT_FAILURE;
}
