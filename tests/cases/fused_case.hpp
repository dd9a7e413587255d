/// @file  One fused call (norm, rotation, cache) as every backend executes it, and the matcher of its result.
#pragma once

#include <array>
#include <functional>
#include <optional>

#include <ropewalk/rotation/cache.hpp>
#include <ropewalk/rotation/fused_args.hpp>

#include "cases/rotation_case.hpp"

namespace test {

/// Order of the axes of a cache. `interleaved` has a gap as wide as a page after each page, as where keys and values
/// share one buffer; `padded` has odd gaps on every axis.
enum class cache_order { nhd, hnd, interleaved, padded };

inline constexpr ropewalk::cache_type all_cache_types[] = {ropewalk::cache_type::f32,    ropewalk::cache_type::f16,
                                                           ropewalk::cache_type::bf16,   ropewalk::cache_type::f8e4m3,
                                                           ropewalk::cache_type::f8e5m2, ropewalk::cache_type::i8};

/// A slot of a cache.
struct cache_slot {
    std::int64_t page = 0, token = 0;
};

/// Keys or values in guarded memory. A test compares every head that must have been written; the other bytes must keep
/// their pattern.
class cache_memory {
public:
    struct extents {
        std::int64_t pages = 1, page_size = 1, heads = 1, head_dim = 2;
    };
    static constexpr std::int64_t guard = 64;  ///< elements on either side
    static constexpr unsigned char pattern = array::pattern;

    cache_memory(ropewalk::cache_type type, const extents& size, cache_order axes, float scale = 1,
                 std::int64_t misalignment = 0, bool scale_in_memory = false);

    [[nodiscard]] ropewalk::cache_tensor tensor() { return tensor_over(bytes.data(), scales.data(), divisor.data()); }
    /// The cache over copies of `bytes`, `scales` and `divisor`.
    [[nodiscard]] ropewalk::cache_tensor tensor_over(void* data, void* scale_data, const void* divisor_data) const;

    /// Compares one head with exact values that may be off by `room`. Returns the first problem, or "".
    std::string check(const cache_slot& slot, std::int64_t head, std::span<const double> exact, double room);
    /// Checks that the bytes of heads which no call to check() named hold the pattern.
    [[nodiscard]] std::string check_rest() const;
    /// The number of times that check() named each byte of `bytes` and of `scales`.
    [[nodiscard]] const std::vector<std::uint8_t>& named() const { return named_; }
    [[nodiscard]] const std::vector<std::uint8_t>& named_scales() const { return named_scales_; }

    std::vector<unsigned char> bytes, scales;
    std::vector<float> divisor;  ///< of an f8 cache whose divisor is in memory; otherwise empty

private:
    [[nodiscard]] bool holds(const unsigned char* element, double exact, double room, double largest) const;

    ropewalk::cache_tensor shape_;
    std::int64_t first_ = 0;  ///< byte of the first element
    std::vector<std::uint8_t> named_, named_scales_;
};

enum class slot_kind {
    by_sequence_offset,
    by_sequence_ids,
    by_sequence_ragged,
    table_offset,
    table_ids,
    table_ragged,
    list_offset,
    list_ids,
    list_ragged,
    list_last,  ///< ragged, with last_page_len
    mapping32,
    mapping64
};
inline constexpr slot_kind all_slot_kinds[] = {
    slot_kind::by_sequence_offset, slot_kind::by_sequence_ids, slot_kind::by_sequence_ragged, slot_kind::table_offset,
    slot_kind::table_ids,          slot_kind::table_ragged,    slot_kind::list_offset,        slot_kind::list_ids,
    slot_kind::list_ragged,        slot_kind::list_last,       slot_kind::mapping32,          slot_kind::mapping64};
inline bool is_ragged(slot_kind kind) {
    return kind == slot_kind::by_sequence_ragged || kind == slot_kind::table_ragged || kind == slot_kind::list_ragged ||
           kind == slot_kind::list_last;
}
inline bool is_list(slot_kind kind) {
    return kind == slot_kind::list_offset || kind == slot_kind::list_ids || kind == slot_kind::list_ragged ||
           kind == slot_kind::list_last;
}

/// The slots of the tokens of a call, and the memory that holds them.
struct slot_case {
    ropewalk::cache_slots slots;
    std::vector<std::int64_t> ids, starts;
    std::vector<std::int32_t> table, indptr, last_page_len;
    std::int64_t first = 0;
    std::vector<std::optional<cache_slot>> of_token;  ///< batch row by batch row; nothing: no slot in the cache
};

/// Different slots for all tokens, in random order, some outside the cache. A ragged kind needs a batch of 1. Checked:
/// slots outside the cache are negative, because the backend refuses the others.
slot_case random_slots(slot_kind kind, std::int64_t batch, std::int64_t tokens, const cache_memory::extents& cache,
                       random& numbers, bool checked = false);

/// One fused call. Tensors without heads are absent.
struct fused_case {
    ropewalk::element_type type = ropewalk::element_type::f32;
    ropewalk::layout_kind layout = ropewalk::layout_kind::half_split;
    std::vector<double> elements{};  ///< of all heads, repeated; empty: random
    twin encoding = plain_twin({.head_dim = 64});
    extents q{2, 3, 4, 64};
    std::int64_t kv_heads = 2, v_dim = 64;
    bool packed = false;  ///< q, k and v are slices of one tensor, and so are the outputs
    order axes = order::bshd;
    bool in_place = true;                    ///< of q, and of k if it has an output
    bool k_output = false, v_output = true;  ///< in addition to a cache
    bool q_norm = false, k_norm = false, one_plus = false;
    ropewalk::element_type weight_type = ropewalk::element_type::f32;
    std::optional<ropewalk::cache_type> k_cache{}, v_cache{};
    /// Types of the outputs of q, k and v, in place of the ordinary outputs.
    std::array<std::optional<ropewalk::cache_type>, 3> quantised{};
    bool scale_in_memory = false;  ///< of f8 caches and outputs
    cache_order cache_axes = cache_order::nhd;
    std::int64_t page_size = 16;
    slot_kind slots = slot_kind::mapping64;
    std::int64_t misalignment = 0;  ///< of the caches, in elements
    std::int64_t first = 0;         ///< position of the first token
    bool checked_slots = false;     ///< see random_slots()
};

/// A random case of any type and layout, with caches, norms or both.
fused_case random_fused_case(random& numbers, const ropewalk::Geometry& head);

/// Heads of real models, and heads whose parts no access width divides.
inline constexpr ropewalk::Geometry fused_heads[] = {{.head_dim = 128},
                                                     {.head_dim = 64},
                                                     {.head_dim = 80},
                                                     {.head_dim = 256, .rotary_dim = 64},
                                                     {.head_dim = 192, .rotary_dim = 64, .rotary_offset = 128},
                                                     {.head_dim = 100, .rotary_dim = 94, .rotary_offset = 4},
                                                     {.head_dim = 99, .rotary_dim = 36, .rotary_offset = 7},
                                                     {.head_dim = 44, .rotary_dim = 28, .rotary_offset = 16},
                                                     {.head_dim = 512}};

/// The tensors of a fused call, absent where data is null.
struct fused_tensors {
    ropewalk::tensor q, k, v;
};

/// The operands of a fused case, and after a call of a backend its results.
struct fused_call {
    /// An array of one of q, k and v, or of all three if they are packed.
    struct memory {
        array before, in, out;
    };
    /// The heads of q, k or v in a memory.
    struct part {
        std::size_t memory = 0;
        std::int64_t first_head = 0, heads = 0;
        bool in_place = true, has_output = true;
    };

    fused_call(const fused_case& c, random& numbers);

    /// The heads of part number i as a tensor over an array of its memory, or an absent tensor.
    [[nodiscard]] ropewalk::tensor heads_of(const ropewalk::tensor& array, std::size_t i) const;
    /// The norms, caches and quantised outputs of the call, in host memory.
    [[nodiscard]] ropewalk::fusion fusion();
    /// The arguments of the call, in the memory of this object.
    [[nodiscard]] ropewalk::fused_args args();
    /// Every cache and quantised output that exists.
    [[nodiscard]] std::vector<cache_memory*> written();
    /// The exact heads of part number i in the order of its memory: [batch, tokens, heads of the memory, head_dim].
    [[nodiscard]] std::vector<double> exact(std::size_t i) const;
    /// Compares outputs and caches with the heads [batch, tokens, heads of the memory, head_dim] of each part.
    std::string compare(const std::array<std::vector<double>, 3>& heads, bool is_exact);

    fused_case setup;
    std::vector<memory> memories;
    std::array<part, 3> parts;
    std::array<array, 2> weights;                       ///< of the norms of q and k
    std::array<std::optional<cache_memory>, 2> caches;  ///< of k and v
    std::array<std::optional<cache_memory>, 3> quantised;
    slot_case slots;
    token_positions positions;
    std::string problem{};  ///< found by the backend
    int access_bytes = 0;   ///< 0: not known to the backend
};

/// Calls run() with the arguments that norm heads in place, over all tokens: a fused call at position 0.
void norm_alone(ropewalk::layout_kind layout, const ropewalk::tensor& x, const ropewalk::head_norm& norm,
                const ropewalk::Encoding& encoding, const std::function<void(const ropewalk::fused_args&)>& run);

/// The heads of part i after norm and rotation as calls of their own, in float32. fused(args) and rotate(q, k), in
/// place, are the calls of a backend.
std::vector<double> composed(fused_call& call, std::size_t i,
                             const std::function<void(const ropewalk::fused_args&)>& fused,
                             const std::function<void(const ropewalk::tensor& q, const ropewalk::tensor& k)>& rotate);

std::string describe(const fused_case& c);

/// Executes a fused case on random elements. Every test program with fused cases defines it by its own backend.
fused_call run(const fused_case& c, random& numbers);

/// Matches a fused call whose outputs and caches hold the exact values, and whose other memory is unchanged.
class matches_fused_case : public matcher_base<fused_call> {
public:
    bool match(const fused_call& call) const override {
        text_ = test::describe(call.setup);
        problem_ = call.problem;
        fused_call copy = call;  // comparing marks bytes of the caches
        if (problem_.empty()) problem_ = copy.compare({call.exact(0), call.exact(1), call.exact(2)}, false);
        return problem_.empty();
    }
    [[nodiscard]] std::string describe() const override { return "is " + text_ + ": " + problem_; }

private:
    mutable std::string text_, problem_;
};
inline matches_fused_case matches_oracle() { return {}; }

}  // namespace test
