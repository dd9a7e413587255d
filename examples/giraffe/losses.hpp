// Losses of a text: mean, perplexity, and means by position.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <span>
#include <vector>

namespace giraffe {

/// Mean loss, in nats, of the positions [start, stop). The loss of position i is that of token i + 1.
struct loss_bucket {
    std::int64_t start = 0, stop = 0;
    double loss = 0;
};

inline double mean(std::span<const double> losses) {
    return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
}

/// Buckets that end at powers of two: [0, 256), [256, 512), [512, 1024), … The last one ends with the losses.
inline std::vector<loss_bucket> buckets_of(std::span<const double> losses) {
    constexpr std::int64_t first = 256;
    std::vector<loss_bucket> buckets;
    for (std::int64_t start = 0, stop = first; start < std::ssize(losses); start = stop, stop *= 2) {
        const std::int64_t end = std::min(stop, std::ssize(losses));
        const auto part = losses.subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(end - start));
        buckets.push_back({start, end, mean(part)});
    }
    return buckets;
}

inline void print_losses(std::span<const double> losses) {
    std::printf("perplexity %.4f, loss %.5f nats, of %zu tokens\n", std::exp(mean(losses)), mean(losses),
                losses.size());
    for (const loss_bucket& b : buckets_of(losses))
        std::printf("positions %7lld to %7lld: loss %.5f\n", static_cast<long long>(b.start),
                    static_cast<long long>(b.stop - 1), b.loss);
}

}  // namespace giraffe
