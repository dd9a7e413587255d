// A small attention engine with a key-value cache, before and after its rotation is replaced by
// ropewalk.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <vector>

// [include]
#include <ropewalk/ropewalk.hpp>
namespace rw = ropewalk;
// [include end]

// [engine]
constexpr std::int64_t heads = 8, kv_heads = 2, head_dim = 64;
using rows = std::vector<float>;  // [tokens, heads, head_dim]

/// Rotates q and k in place; the first token is at `position`.
using rotation = std::function<void(rows& q, rows& k, std::int64_t position)>;

struct engine {
    rotation rotate;
    std::int64_t first = 0;   // position of the first token of the sequence
    rows cached_k, cached_v;  // [tokens, kv_heads, head_dim]

    /// Appends tokens to the cache, and returns their attention [tokens, heads, head_dim].
    rows forward(rows q, rows k, const rows& v) {
        const auto past = static_cast<std::int64_t>(cached_k.size()) / (kv_heads * head_dim);
        rotate(q, k, first + past);
        cached_k.insert(cached_k.end(), k.begin(), k.end());
        cached_v.insert(cached_v.end(), v.begin(), v.end());
        rows out(q.size());
        const auto tokens = static_cast<std::int64_t>(q.size()) / (heads * head_dim);
        for (std::int64_t t = 0; t < tokens; ++t)
            for (std::int64_t h = 0; h < heads; ++h) {
                const std::int64_t at = (t * heads + h) * head_dim;
                attend(&q[static_cast<std::size_t>(at)], h, past + t + 1,
                       &out[static_cast<std::size_t>(at)]);
            }
        return out;
    }

private:
    void attend(const float* query, std::int64_t head, std::int64_t tokens, float* out) const {
        const auto element = [&](std::int64_t t) {
            return static_cast<std::size_t>((t * kv_heads + head / (heads / kv_heads)) *
                                            head_dim);
        };
        rows weight(static_cast<std::size_t>(tokens));
        for (std::int64_t t = 0; t < tokens; ++t) {
            float score = 0;
            for (std::size_t i = 0; i < head_dim; ++i)
                score += query[i] * cached_k[element(t) + i];
            weight[static_cast<std::size_t>(t)] = score / std::sqrt(static_cast<float>(head_dim));
        }
        const float largest = *std::max_element(weight.begin(), weight.end());
        float sum = 0;
        for (float& w : weight) sum += w = std::exp(w - largest);
        for (std::int64_t t = 0; t < tokens; ++t)
            for (std::size_t i = 0; i < head_dim; ++i)
                out[i] += weight[static_cast<std::size_t>(t)] / sum * cached_v[element(t) + i];
    }
};
// [engine end]

// [hand-written]
/// The usual loop: the angle is a float32 product of position and frequency.
void rotate_by_hand(rows& x, std::int64_t position, std::int64_t head_count) {
    const auto tokens = static_cast<std::int64_t>(x.size()) / (head_count * head_dim);
    for (std::int64_t t = 0; t < tokens; ++t)
        for (std::int64_t j = 0; j < head_dim / 2; ++j) {
            const float inv_freq = std::pow(10000.0F, -2.0F * static_cast<float>(j) / head_dim);
            const float angle = static_cast<float>(position + t) * inv_freq;
            const float c = std::cos(angle), s = std::sin(angle);
            for (std::int64_t h = 0; h < head_count; ++h) {
                float* const head = &x[static_cast<std::size_t>((t * head_count + h) * head_dim)];
                const float a = head[j], b = head[j + head_dim / 2];
                head[j] = a * c - b * s;
                head[j + head_dim / 2] = b * c + a * s;
            }
        }
}

const rotation by_hand = [](rows& q, rows& k, std::int64_t position) {
    rotate_by_hand(q, position, heads);
    rotate_by_hand(k, position, kv_heads);
};
// [hand-written end]

// [ropewalk]
rotation by_ropewalk(const char* policy) {
    const auto encoding =
        rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = 10000.0}, policy);
    return [encoding](rows& q, rows& k, std::int64_t position) {
        const auto tokens = static_cast<std::int64_t>(q.size()) / (heads * head_dim);
        rw::cpu::rotate<rw::half_split>(rw::thd(q.data(), tokens, heads, head_dim),
                                        rw::thd(k.data(), tokens, kv_heads, head_dim), encoding,
                                        rw::offset{position});
    };
}
// [ropewalk end]

rows random_rows(std::int64_t count, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    rows values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(generator);
    return values;
}

// [compare]
/// The attention of the last of `tokens` decode steps, for a sequence that starts at position
/// `first`.
rows decode(const rotation& rotate, std::int64_t tokens, std::int64_t first) {
    engine running{.rotate = rotate, .first = first, .cached_k = {}, .cached_v = {}};
    rows out;
    for (std::int64_t t = 0; t < tokens; ++t) {
        const auto seed = static_cast<unsigned>(t);
        const rows kv = random_rows(kv_heads * head_dim, 1000 + seed);
        out = running.forward(random_rows(heads * head_dim, seed), kv, kv);
    }
    return out;
}

double largest_difference(const rows& a, const rows& b) {
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        largest = std::max(largest, static_cast<double>(std::abs(a[i] - b[i])));
    return largest;
}

int main() {
    const rotation exact = by_ropewalk("default");

    // 1. Both rotations agree at small positions.
    const double agreement = largest_difference(decode(by_hand, 64, 0), decode(exact, 64, 0));
    std::printf("64 tokens from position 0:  largest difference %.0e\n", agreement);

    // 2. Attention depends on distances only: the same tokens at other positions give the same
    // result.
    const std::int64_t far = 1'000'000;
    const double hand = largest_difference(decode(by_hand, 64, 0), decode(by_hand, 64, far));
    const double ropewalk = largest_difference(decode(exact, 64, 0), decode(exact, 64, far));
    std::printf("shifted by 1,000,000:       by hand %.0e, ropewalk %.0e\n", hand, ropewalk);

    // 3. A longer context is one word.
    const rotation linear = by_ropewalk("linear:8");
    const double stretched = largest_difference(decode(exact, 64, 0), decode(linear, 64, 0));
    std::printf("linear:8 instead:           attention changes by up to %.2f\n", stretched);

    return agreement < 1e-4 && ropewalk < 1e-5 && hand > 10 * ropewalk ? 0 : 1;
}
// [compare end]
