/// @file  One re-encoding of cached keys as every backend executes it, and the matcher of its result.
#pragma once

#include <ropewalk/rotation/rerotate_cache_args.hpp>

#include "cases/fused_case.hpp"

namespace test {

/// One re-encoding of cached keys.
struct rerotate_cache_case {
    ropewalk::cache_type type = ropewalk::cache_type::f32;
    ropewalk::layout_kind layout = ropewalk::layout_kind::half_split;
    twin source = plain_twin({.head_dim = 64}), target = source;
    std::int64_t batch = 1, tokens = 5, heads = 2;
    cache_order axes = cache_order::nhd;
    std::int64_t page_size = 4;
    slot_kind slots = slot_kind::mapping64;
    std::int64_t misalignment = 0;  ///< in elements
    bool scale_in_memory = false;   ///< of f8
    std::int64_t first = 0;         ///< the smallest position
    bool checked_slots = true;      ///< see random_slots()
};

/// A random case of a type, order and layout.
rerotate_cache_case random_rerotate_cache_case(random& numbers, const ropewalk::Geometry& head,
                                               ropewalk::cache_type type);

/// The memory of a case, and after a call of a backend its results.
struct rerotate_cache_call {
    rerotate_cache_call(const rerotate_cache_case& c, random& numbers);

    /// The arguments over the memory of this object.
    [[nodiscard]] ropewalk::rerotate_cache_args args() const;
    /// The exact keys of every token, [tokens, heads, head_dim].
    [[nodiscard]] std::vector<double> exact() const;
    /// Compares the cache with exact keys. Returns the first problem, or "".
    [[nodiscard]] std::string compare() const;
    /// The number of times that a call must write each byte of the cache.
    [[nodiscard]] std::vector<std::uint8_t> written() const;
    /// The first byte of a head.
    [[nodiscard]] std::size_t byte_of(const cache_slot& slot, std::int64_t head) const;

    rerotate_cache_case setup;
    cache_memory::extents size;
    float scale = 1;
    cache_memory cache;
    std::vector<unsigned char> before;
    slot_case slots;
    token_positions source, target;
    std::vector<double> keys;  ///< [tokens, heads, head_dim], as stored before the call
    std::string problem{};     ///< found by the backend
};

std::string describe(const rerotate_cache_case& c);

/// Executes a case on random keys. Every test program defines it by its own backend.
rerotate_cache_call run(const rerotate_cache_case& c, random& numbers);

/// Returns whether a backend refuses slots outside the cache.
bool checks_slots();

/// Matches a call that left exact keys in the slots, and all other memory unchanged.
class matches_rerotated_cache : public matcher_base<rerotate_cache_call> {
public:
    bool match(const rerotate_cache_call& call) const override {
        text_ = test::describe(call.setup);
        problem_ = call.problem.empty() ? call.compare() : call.problem;
        return problem_.empty();
    }
    [[nodiscard]] std::string describe() const override { return "is " + text_ + ": " + problem_; }

private:
    mutable std::string text_, problem_;
};

}  // namespace test
