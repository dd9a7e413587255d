// ropewalk in a custom transformer: an attention layer that calls it in three lines. The results of one prefill and of
// decoding token by token must agree. The policy of the encoding selects a longer context.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include <ropewalk/ropewalk.hpp>

namespace {

namespace rw = ropewalk;
using rows = std::vector<float>;

constexpr std::int64_t heads = 8, kv_heads = 2, head_dim = 64, hidden = heads * head_dim;

/// y[t, r] = Σ_c x[t, c] · w[r, c]
rows multiply(const rows& x, const rows& w, std::int64_t width) {
    const auto inputs = static_cast<std::int64_t>(w.size()) / width;
    const auto tokens = static_cast<std::int64_t>(x.size()) / inputs;
    rows y(static_cast<std::size_t>(tokens * width));
    for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t r = 0; r < width; ++r) {
            float sum = 0;
            for (std::int64_t c = 0; c < inputs; ++c)
                sum += x[static_cast<std::size_t>(t * inputs + c)] * w[static_cast<std::size_t>(r * inputs + c)];
            y[static_cast<std::size_t>(t * width + r)] = sum;
        }
    }
    return y;
}

struct attention_layer {
    rows q, k, v, o;
    rw::Encoding encoding;        // (1) created once from policies and the shape of a head
    rows past_keys, past_values;  // [tokens, kv_heads, head_dim]

    rows forward(const rows& x) {
        const auto tokens = static_cast<std::int64_t>(x.size()) / hidden;
        const auto past = static_cast<std::int64_t>(past_keys.size()) / (kv_heads * head_dim);
        rows queries = multiply(x, q, hidden), keys = multiply(x, k, kv_heads * head_dim);
        const rows values = multiply(x, v, kv_heads * head_dim);

        // (2) Views of the caller's memory; queries may have more heads than keys. (3) The rotation, in place. The
        // layout depends on the weights: half_split for weights from Hugging Face, interleaved for the original
        // release.
        rw::cpu::rotate<rw::half_split>(rw::thd(queries.data(), tokens, heads, head_dim),
                                        rw::thd(keys.data(), tokens, kv_heads, head_dim), encoding, rw::offset{past});

        past_keys.insert(past_keys.end(), keys.begin(), keys.end());
        past_values.insert(past_values.end(), values.begin(), values.end());
        rows attended(queries.size());
        for (std::int64_t t = 0; t < tokens; ++t)
            for (std::int64_t h = 0; h < heads; ++h)
                attend(&queries[index(t, heads, h)], past + t + 1, h, &attended[index(t, heads, h)]);
        return multiply(attended, o, hidden);
    }

private:
    static std::size_t index(std::int64_t token, std::int64_t width, std::int64_t head) {
        return static_cast<std::size_t>((token * width + head) * head_dim);
    }

    void attend(const float* query, std::int64_t seen, std::int64_t head, float* out) const {
        rows weights(static_cast<std::size_t>(seen));
        for (std::int64_t s = 0; s < seen; ++s) {
            const float* const key = &past_keys[index(s, kv_heads, head / (heads / kv_heads))];
            float score = 0;
            for (std::int64_t i = 0; i < head_dim; ++i) score += query[i] * key[i];
            weights[static_cast<std::size_t>(s)] = score / std::sqrt(static_cast<float>(head_dim));
        }
        const float maximum = *std::max_element(weights.begin(), weights.end());
        float sum = 0;
        for (float& weight : weights) sum += weight = std::exp(weight - maximum);
        for (std::int64_t s = 0; s < seen; ++s) {
            const float* const value = &past_values[index(s, kv_heads, head / (heads / kv_heads))];
            for (std::int64_t i = 0; i < head_dim; ++i) out[i] += weights[static_cast<std::size_t>(s)] / sum * value[i];
        }
    }
};

rows random_rows(std::int64_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(hidden)));
    rows values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
}

}  // namespace

int main() {
    const rw::Geometry head{.head_dim = head_dim, .base = 10000.0, .layout = rw::layout_kind::half_split};
    const attention_layer layer{.q = random_rows(hidden * hidden, 1),
                                .k = random_rows(kv_heads * head_dim * hidden, 2),
                                .v = random_rows(kv_heads * head_dim * hidden, 3),
                                .o = random_rows(hidden * hidden, 4),
                                .encoding = rw::make_encoding(head, rw::Linear{.factor = 8}),
                                .past_keys = {},
                                .past_values = {}};
    constexpr std::int64_t tokens = 24;
    const rows x = random_rows(tokens * hidden, 5);

    attention_layer prefill = layer, decode = layer;
    const rows expected = prefill.forward(x);
    float largest = 0, difference = 0;
    for (std::int64_t t = 0; t < tokens; ++t) {
        const rows out = decode.forward({x.begin() + t * hidden, x.begin() + (t + 1) * hidden});
        for (std::size_t i = 0; i < out.size(); ++i) {
            const float reference = expected[static_cast<std::size_t>(t * hidden) + i];
            largest = std::max(largest, std::abs(reference));
            difference = std::max(difference, std::abs(out[i] - reference));
        }
    }
    std::printf("%lld tokens, prefill and decode differ by at most %.1e, the largest value is %.1e\n",
                static_cast<long long>(tokens), static_cast<double>(difference), static_cast<double>(largest));
    return difference <= 1e-5F * largest ? 0 : 1;
}
