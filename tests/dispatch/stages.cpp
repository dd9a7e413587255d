// Sequences that grow past a stage of a length-dependent schedule, with re-rotated keys.
#include <cmath>

#include "calls.hpp"

namespace rw = ropewalk;

namespace stages_tests {
namespace {

constexpr std::int64_t width = 128, keys_per_stage = 24;

/// Keys at some positions of a growing sequence: unrotated, in a cache that is re-rotated at every stage, and in a
/// stale cache that is not.
class growing_cache {
public:
    growing_cache(test::random& numbers, rw::element_type type, rw::layout_kind layout)
        : numbers_(numbers), type_(type), layout_(layout) {}

    /// Grows the sequence to `length`: re-rotates the old keys to `encoding` and adds keys of the new part.
    void grow(std::int64_t length, const rw::Encoding& encoding) {
        if (!ids_.empty()) {
            test::array moved = loaded(cached_);
            test::rerotate(layout_, moved, last_, rw::ids(ids_), encoding, rw::ids(ids_));
            cached_ = moved.values();
        }
        std::vector<std::int64_t> added;
        for (std::int64_t i = 0; i < keys_per_stage; ++i) added.push_back(numbers_.integer(length_, length - 1));
        added.back() = length - 1;
        test::array fresh(type_, {1, keys_per_stage, 1, width}, numbers_);
        append(raw_, fresh.values());
        test::rotate_k(layout_, fresh, encoding, rw::ids(added));
        append(cached_, fresh.values());
        append(stale_, fresh.values());
        ids_.insert(ids_.end(), added.begin(), added.end());
        length_ = length, last_ = encoding;
    }

    struct errors {
        double moved = 0, stale = 0;  ///< of a score, over the norms of the query and the key
    };
    /// Compares scores with those of a freshly encoded cache, for queries at the end that resemble each key in turn.
    [[nodiscard]] errors compare() const {
        const std::vector<double> fresh = fresh_keys().values();
        errors worst;
        for (std::size_t row = 0; row < ids_.size(); ++row) {
            const std::vector<double> query = query_like(row);
            for (std::size_t other = 0; other < ids_.size(); ++other) {
                const double exact = score(query, fresh, other);
                const double norms = std::sqrt(score(query, query, 0) * score(row_of(fresh, other), fresh, other));
                worst.moved = std::max(worst.moved, std::fabs(score(query, cached_, other) - exact) / norms);
                worst.stale = std::max(worst.stale, std::fabs(score(query, stale_, other) - exact) / norms);
            }
        }
        return worst;
    }

    /// Checks re-rotated keys against fresh ones, within the roundings of their moves.
    void check_keys(int moves) const {
        const test::array fresh = fresh_keys();
        const double rounding = std::ldexp(1.0, -fresh.format().digits);
        const auto shape = test::shape_of(fresh.size(), {.head_dim = width}, layout_);
        CHECK_THAT(loaded(cached_), test::matches(fresh.values(), shape, (1 + moves) * (rounding + 3e-7)));
    }

private:
    static void append(std::vector<double>& to, const std::vector<double>& more) {
        to.insert(to.end(), more.begin(), more.end());
    }
    static std::vector<double> row_of(const std::vector<double>& all, std::size_t row) {
        const auto begin = all.begin() + static_cast<std::ptrdiff_t>(row * width);
        return {begin, begin + width};
    }
    static double score(const std::vector<double>& query, const std::vector<double>& keys, std::size_t row) {
        double sum = 0;
        for (std::size_t i = 0; i < width; ++i) sum += query[i] * keys[row * width + i];
        return sum;
    }
    [[nodiscard]] test::array loaded(const std::vector<double>& values) const {
        test::array result(type_, {1, std::ssize(values) / width, 1, width});
        result.set(values);
        return result;
    }
    [[nodiscard]] test::array fresh_keys() const {
        test::array fresh = loaded(raw_);
        test::rotate_k(layout_, fresh, last_, rw::ids(ids_));
        return fresh;
    }
    [[nodiscard]] std::vector<double> query_like(std::size_t row) const {
        test::array query = loaded(row_of(raw_, row));
        test::rotate_q(layout_, query, last_, rw::offset{length_ - 1});
        return query.values();
    }

    test::random& numbers_;
    rw::element_type type_;
    rw::layout_kind layout_;
    std::vector<double> raw_, cached_, stale_;
    std::vector<std::int64_t> ids_;
    std::int64_t length_ = 0;
    rw::Encoding last_;
};

rw::Encoding encoding_at(std::int64_t length, const auto& policy) {
    return rw::make_encoding({.head_dim = width, .sequence_length = length}, policy);
}

/// Grows a cache through lengths of one stage each, and compares after each.
void check_growth(const auto& policy, const std::vector<std::int64_t>& lengths) {
    SEEDED(numbers);
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            growing_cache cache(numbers, type, layout);
            const double rounding = std::ldexp(1.0, 1 - test::format_of(type).digits) + 3e-7;
            std::uint64_t last_stage = 0;
            for (std::size_t i = 0; i < lengths.size(); ++i) {
                const rw::Encoding encoding = encoding_at(lengths[i], policy);
                INFO(encoding.expression << " at " << lengths[i] << ", " << rw::to_string(type) << ' '
                                         << rw::to_string(layout));
                if (i > 0) CHECK(encoding.stage != last_stage);
                last_stage = encoding.stage;
                cache.grow(lengths[i], encoding);
                const auto [moved, stale] = cache.compare();
                INFO("error of a score over the norms: moved " << moved << ", stale " << stale);
                CHECK(moved <= rounding);
                cache.check_keys(static_cast<int>(i));
                if (i > 0) CHECK(stale > 20 * rounding);
            }
        }
    }
}

rw::LongRope phi() {
    rw::LongRope policy{.factor = 32, .original_length = 4096};
    for (std::int64_t j = 0; j < width / 2; ++j) {
        policy.short_factor.push_back(1 + static_cast<double>(j) / 64);
        policy.long_factor.push_back(1 + static_cast<double>(j * j) / 64);
    }
    return policy;
}

}  // namespace

TEST_CASE("dynamic NTK: scores stay those of a fresh encoding through three stages of growth", "[stages]") {
    check_growth(rw::DynamicNtk{.factor = 4, .original_length = 4096}, {4096, 6000, 12000, 40000});
    check_growth(rw::DynamicNtk{.factor = 2, .original_length = 2048}, {2048, 4096, 8192, 16384});
}

TEST_CASE("LongRoPE: scores stay those of a fresh encoding across the switch", "[stages]") {
    check_growth(phi(), {4096, 4097});
    check_growth(phi(), {1000, 100000});
}

TEST_CASE("the LongRoPE switch lies between L and L + 1, and keeps the attention factor", "[stages]") {
    const auto at = [](std::int64_t length) { return encoding_at(length, phi()); };
    CHECK(at(4095).stage == at(4096).stage);
    CHECK(at(4096).stage != at(4097).stage);
    CHECK(at(4097).stage == at(131072).stage);
    CHECK(at(4096).steps == at(1).steps);
    CHECK(at(4096).steps != at(4097).steps);
    CHECK(at(4096).attention_factor == Approx(std::sqrt(1 + 5.0 / 12)).epsilon(1e-15));
    CHECK(at(4096).attention_factor == at(4097).attention_factor);
}

TEST_CASE("a sequence that grows within one stage needs no re-rotation", "[stages]") {
    SEEDED(numbers);
    const rw::DynamicNtk policy{.factor = 4, .original_length = 4096};
    const rw::Encoding early = encoding_at(10, policy), late = encoding_at(4096, policy);
    CHECK(early.stage == late.stage);
    test::array k(rw::element_type::bf16, {1, 10, 2, width}, numbers);
    const test::array before = k;
    test::rerotate(rw::layout_kind::half_split, k, early, rw::offset{0}, late, rw::offset{0});
    CHECK(k == before);
}

}  // namespace stages_tests
