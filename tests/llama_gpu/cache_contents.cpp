#include "cache_contents.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "support/fp8.hpp"
#include "support/oracle.hpp"

namespace rw = ropewalk;
using rw::cache_type;

namespace test {

namespace {

const oracle::format& format_of_cache(cache_type type) {
    return type == cache_type::f32 ? oracle::f32 : type == cache_type::f16 ? oracle::f16 : oracle::bf16;
}

}  // namespace

cache_contents::cache_contents(cache_type type, const extents& size, cache_axes axes, random& numbers) {
    const auto [pages, page_size, heads, head_dim] = size;
    shape_ = axes == cache_axes::hnd
                 ? rw::gpu::hnd_cache(static_cast<float*>(nullptr), pages, heads, page_size, head_dim)
                 : rw::gpu::nhd_cache(static_cast<float*>(nullptr), pages, page_size, heads, head_dim);
    shape_.type = type, shape_.scale = type == cache_type::f8e4m3 ? 0.037F : 1.0F;
    if (axes == cache_axes::padded) {
        shape_.stride_head = head_dim + 3, shape_.stride_token = heads * shape_.stride_head + 5;
        shape_.stride_page = page_size * shape_.stride_token + 7;
        shape_.scale_stride_head = 2, shape_.scale_stride_token = 2 * heads + 1;
        shape_.scale_stride_page = page_size * shape_.scale_stride_token + 3;
    }
    const auto elements = static_cast<std::size_t>(pages * shape_.stride_page);
    const auto bytes = static_cast<std::size_t>(rw::size_of(type));
    bytes_.resize(elements * bytes);
    for (std::size_t i = 0; i < elements; ++i) {
        std::uint32_t bits = 0;
        if (type == cache_type::i8) {
            bits = static_cast<std::uint32_t>(numbers.integer(-127, 127)) & 0xffU;
        } else if (type == cache_type::f8e4m3) {
            bits = oracle::fp8_code(oracle::e4m3, numbers.normal() / static_cast<double>(shape_.scale));
        } else {
            bits = oracle::encode(oracle::rounded(numbers.normal(), format_of_cache(type)), format_of_cache(type));
        }
        std::memcpy(bytes_.data() + i * bytes, &bits, bytes);
    }
    if (type != cache_type::i8) return;
    scales_.resize(static_cast<std::size_t>(pages * shape_.scale_stride_page));
    for (float& scale : scales_) scale = static_cast<float>(numbers.uniform(0.5, 3) / 127);
}

rw::gpu::cache_tensor cache_contents::tensor() {
    rw::gpu::cache_tensor result = shape_;
    result.data = bytes_.data();
    if (!scales_.empty()) result.scales = scales_.data();
    return result;
}

std::int64_t cache_contents::element_of(std::int64_t page, std::int64_t token, std::int64_t head) const {
    return page * shape_.stride_page + token * shape_.stride_token + head * shape_.stride_head;
}

std::size_t cache_contents::scale_of(std::int64_t page, std::int64_t token, std::int64_t head) const {
    return static_cast<std::size_t>(page * shape_.scale_stride_page + token * shape_.scale_stride_token +
                                    head * shape_.scale_stride_head);
}

double cache_contents::at(std::int64_t page, std::int64_t token, std::int64_t head, std::int64_t element) const {
    const auto size = static_cast<std::size_t>(rw::size_of(shape_.type));
    std::uint32_t bits = 0;
    std::memcpy(&bits, bytes_.data() + static_cast<std::size_t>(element_of(page, token, head) + element) * size, size);
    if (shape_.type == cache_type::i8) {
        const int value = bits < 128 ? static_cast<int>(bits) : static_cast<int>(bits) - 256;
        return value * static_cast<double>(scales_[scale_of(page, token, head)]);
    }
    if (shape_.type == cache_type::f8e4m3) {
        const double magnitude = (bits & 0x7fU) == 0x7fU
                                     ? std::numeric_limits<double>::quiet_NaN()
                                     : oracle::fp8_number(oracle::e4m3, static_cast<int>(bits & 0x7fU));
        return (bits & 0x80U ? -magnitude : magnitude) * static_cast<double>(shape_.scale);
    }
    return oracle::decode(bits, format_of_cache(shape_.type));
}

void cache_contents::poison(std::int64_t page, std::int64_t token) {
    const auto size = static_cast<std::size_t>(rw::size_of(shape_.type));
    for (std::int64_t head = 0; head < shape_.heads; ++head) {
        std::memset(bytes_.data() + static_cast<std::size_t>(element_of(page, token, head)) * size, 0xff,
                    static_cast<std::size_t>(shape_.head_dim) * size);
        if (scales_.empty()) continue;
        scales_[scale_of(page, token, head)] = std::numeric_limits<float>::quiet_NaN();
    }
}

std::int64_t batch_case::page_of(std::int64_t sequence, std::int64_t entry, std::int64_t page_size,
                                 std::int64_t pages) const {
    if (table.empty()) return entry < page_size ? sequence : -1;
    if (entry / page_size >= most_pages) return -1;
    const std::int64_t page = table[static_cast<std::size_t>(sequence * most_pages + entry / page_size)];
    return page >= 0 && page < pages ? page : -1;
}

batch_case random_batch(std::int64_t sequences, std::int64_t most_tokens, std::int64_t page_size, std::int64_t pages,
                        bool table, random& numbers) {
    batch_case batch;
    batch.count = sequences, batch.most_tokens = most_tokens;
    const std::int64_t capacity = table ? page_size * pages : page_size;
    const bool decode = most_tokens == 1 && numbers.coin();
    if (!decode) batch.starts.push_back(0);
    for (std::int64_t s = 0; s < sequences; ++s) {
        // Some sequences are empty.
        const std::int64_t tokens = decode ? 1 : numbers.integer(0, std::min(most_tokens, capacity));
        batch.tokens += tokens;
        if (!decode) batch.starts.push_back(static_cast<std::int32_t>(batch.tokens));
        batch.past.push_back(
            static_cast<std::int32_t>(numbers.integer(0, capacity - std::max<std::int64_t>(tokens, 1))));
    }
    if (!table) return batch;
    batch.most_pages = pages;
    batch.table.resize(static_cast<std::size_t>(sequences * pages));
    std::iota(batch.table.begin(), batch.table.end(), 0);
    for (std::size_t i = batch.table.size(); i > 1; --i)
        std::swap(batch.table[i - 1],
                  batch.table[static_cast<std::size_t>(numbers.integer(0, static_cast<std::int64_t>(i) - 1))]);
    return batch;
}

exact_attention attention_of(const std::vector<double>& q, std::int64_t heads, cache_contents& k, cache_contents& v,
                             const batch_case& batch, double scale) {
    const rw::gpu::cache_tensor shape = k.tensor();
    const std::int64_t dim = shape.head_dim;
    exact_attention result{q, std::vector<double>(q.size(), 0)};
    for (std::int64_t s = 0; s < batch.count; ++s) {
        for (std::int64_t row = 0; row < batch.tokens_of(s) * heads; ++row) {
            const std::int64_t token = row / heads, head = row % heads, shared = head / (heads / shape.heads);
            const auto first = static_cast<std::size_t>(((batch.start_of(s) + token) * heads + head) * dim);
            std::vector<double> scores, sums(static_cast<std::size_t>(dim), 0.0);
            const std::int64_t keys = batch.past_of(s) + token + 1;
            const auto page = [&](std::int64_t key) { return batch.page_of(s, key, shape.page_size, shape.pages); };
            for (std::int64_t key = 0; key < keys; ++key) {
                double product = 0;
                for (std::int64_t i = 0; i < dim && page(key) >= 0; ++i)
                    product +=
                        q[first + static_cast<std::size_t>(i)] * k.at(page(key), key % shape.page_size, shared, i);
                scores.push_back(page(key) < 0 ? -HUGE_VAL : product * scale);
            }
            const double highest = *std::max_element(scores.begin(), scores.end());
            double total = 0, largest = 0;
            for (std::int64_t key = 0; key < keys; ++key) {
                if (page(key) < 0) continue;
                const double weight = std::exp(scores[static_cast<std::size_t>(key)] - highest);
                total += weight;
                for (std::int64_t i = 0; i < dim; ++i) {
                    const double value = v.at(page(key), key % shape.page_size, shared, i);
                    sums[static_cast<std::size_t>(i)] += weight * value;
                    largest = std::max(largest, std::fabs(value));
                }
            }
            for (std::size_t i = 0; i < sums.size(); ++i) {
                result.rows[first + i] = total == 0 ? 0 : sums[i] / total;
                result.largest[first + i] = largest;
            }
        }
    }
    return result;
}

}  // namespace test
