// Prepared fused calls: validated once, then run for many tokens and layers, as in decoding.
#pragma once

#include <span>
#include <vector>

#include "ropewalk/cpu/fused_plan.hpp"
#include "ropewalk/cpu/prepared_positions.hpp"

namespace ropewalk::cpu {

/// A fused call whose shapes, strides, types, scales and norms are fixed, and whose addresses, positions and slots
/// change.
///
/// Keeps the cosines and sines of the last positions, so that the layers of a model share those of a token. Starts no
/// threads. One object runs on one thread at a time.
class prepared_fused {
public:
    /// The memory of one layer for queries, keys or values. Null where the prepared part is absent.
    struct side {
        const void* in = nullptr;
        void* out = nullptr;  ///< null where the call was prepared in place
        void* cache = nullptr;
        float* scales = nullptr;  ///< of an i8 cache, or of an i8 output
        const void* norm = nullptr;
    };
    struct addresses {
        side q, k, v;
    };

    /// Plans fused calls with these shapes, strides and types; the addresses are those of any call, and positions and
    /// slots do not matter. Copies the numbers of the encoding, and reads the scales of f8 caches that are in memory; a
    /// table must outlive the object. Throws ropewalk::error for everything else that cpu::fused() refuses, for
    /// encodings that draw their positions, for tables with one row per token, for calls without elements, and for an
    /// int8 output next to an int8 cache.
    RW_INLINE prepared_fused(const rotate_kernel& typed, const rotate_kernel& floats, fused_function kernel,
                             const fused_args& args, const tuning_profile& tuning = machine_profile())
        : kernel_(kernel),
          slots_(count_tokens(args), -1),
          params_(plan_of(args, slots_, tuning)),
          positions_(*args.rotation.target, params_.rotation, params_.batch, params_.row_tokens),
          scratch_(detail::make_aligned_floats(detail::fused_scratch(params_))),
          rows_(detail::make_aligned_floats(detail::prepared_row(params_.rotation) * positions_.count())) {
        positions_.bind(params_.rotation);
        params_.typed = &typed, params_.floats = &floats, params_.rows = rows_.get();
        if (params_.slots.source != cache_slots::kind::none) params_.slots.mapping = slots_.data();
    }
    RW_INLINE prepared_fused(prepared_fused&&) noexcept = default;
    RW_INLINE prepared_fused& operator=(prepared_fused&&) noexcept = default;
    RW_INLINE ~prepared_fused() = default;  // declared, so that it leaves no symbol

    /// The range of positions that run() accepts.
    [[nodiscard]] std::int64_t first_position() const { return positions_.first(); }
    [[nodiscard]] std::int64_t last_position() const { return positions_.last(); }

    /// Runs the call with one position and one slot number per token, [batch, tokens]. A slot is page · page_size +
    /// entry; a negative one skips its token in the caches. Without a cache there are no slots. Returns false, with
    /// nothing written, where an address is missing, misaligned or given for an absent part, where a number of
    /// positions or slots differs, and where a position or a slot is not accepted. Memory that is written must be apart
    /// from all other memory, except that an output may be its input.
    [[nodiscard]] RW_INLINE bool run(const addresses& at, std::span<const std::int64_t> positions,
                                     std::span<const std::int64_t> slots = {}) noexcept {
        const side* const sides[3] = {&at.q, &at.k, &at.v};
        for (int i = 0; i < 3; ++i)
            if (!accepts(params_.sides[i], *sides[i])) return false;
        if (!positions_.accepts(positions) || !accepts_slots(slots)) return false;
        for (int i = 0; i < 3; ++i) set(params_.sides[i], *sides[i]);
        for (std::size_t i = 0; i < slots.size(); ++i) slots_[i] = slots[i];
        if (positions_.set(positions) || !rows_valid_) make_rows();
        kernel_(params_, 0, positions_.count(), scratch_.get());
        return true;
    }

private:
    static RW_INLINE std::size_t count_tokens(const fused_args& args) {
        const tensor& heads = args.rotation.any();
        constexpr std::int64_t limit = std::int64_t{1} << 31;
        RW_EXPECTS(
            heads.elements() > 0 && heads.batch < limit && heads.tokens < limit && heads.batch * heads.tokens < limit,
            "a prepared call needs elements and fewer than 2^31 tokens, got {}",
            ropewalk::detail::shape_of("q or k", heads));
        return static_cast<std::size_t>(heads.batch * heads.tokens);
    }

    /// The parameters of the call at position 0, with slot −1 for every token.
    static RW_INLINE fused_params plan_of(const fused_args& given, const std::vector<std::int64_t>& slots,
                                          const tuning_profile& tuning) {
        fused_args args = given;
        prepared_positions::check(*args.rotation.target, args.rotation.table);
        args.rotation.target_positions = offset{0};
        args.with.slots = {};
        if (args.with.cache.k.exists() || args.with.cache.v.exists()) args.with.slots = by_mapping(std::span(slots));
        const fused_params params = make_fused_plan(args, tuning).params;
        for (const fused_side& each : params.sides) {
            RW_EXPECTS(each.by_token.scales == nullptr || each.cache.scales == nullptr,
                       "a prepared call supports one int8 destination of keys or values, not an output and a cache");
        }
        return params;
    }

    static RW_INLINE bool is_aligned(const void* data, std::int64_t size) {
        return (reinterpret_cast<std::uintptr_t>(data) & static_cast<std::uintptr_t>(size - 1)) == 0;
    }
    /// Returns whether an address is given where memory is needed, and only there.
    static RW_INLINE bool fits(bool needed, const void* data, std::int64_t size) {
        return needed ? data != nullptr && is_aligned(data, size) : data == nullptr;
    }

    /// Returns whether the addresses of a side fit what was prepared.
    static RW_INLINE bool accepts(const fused_side& prepared, const side& at) {
        const bool has_scales = prepared.by_token.scales != nullptr || prepared.cache.scales != nullptr;
        const bool in_place = prepared.in.exists() && prepared.by_token.data == prepared.in.data;
        const bool has_output = prepared.by_token.exists() && !(in_place && at.out == nullptr);
        return fits(prepared.in.exists(), at.in, static_cast<std::int64_t>(size_of(prepared.in.type))) &&
               fits(has_output, at.out, size_of(prepared.by_token.type)) &&
               (!in_place || !has_output || at.out == at.in) &&
               fits(prepared.cache.exists(), at.cache, size_of(prepared.cache.type)) &&
               fits(has_scales, at.scales, sizeof(float)) &&
               fits(prepared.norm.weight != nullptr, at.norm, static_cast<std::int64_t>(size_of(prepared.norm.type)));
    }

    [[nodiscard]] RW_INLINE bool accepts_slots(std::span<const std::int64_t> slots) const {
        if (params_.slots.source == cache_slots::kind::none) return slots.empty();
        if (slots.size() != slots_.size()) return false;
        const std::int64_t limit = params_.slots.pages * params_.slots.page_size;
        for (const std::int64_t slot : slots)
            if (slot >= limit) return false;
        return true;
    }

    static RW_INLINE void set(fused_side& prepared, const side& at) {
        if (!prepared.in.exists()) return;
        prepared.in.data = const_cast<void*>(at.in);
        if (prepared.by_token.exists()) prepared.by_token.data = at.out != nullptr ? at.out : prepared.in.data;
        if (prepared.cache.exists()) prepared.cache.data = at.cache;
        if (prepared.by_token.scales != nullptr) prepared.by_token.scales = at.scales;
        if (prepared.cache.scales != nullptr) prepared.cache.scales = at.scales;
        prepared.norm.weight = at.norm;
    }

    RW_INLINE void make_rows() {
        const rotate_params& rotation = params_.rotation;
        const std::int64_t tokens = params_.row_tokens, row = detail::prepared_row(rotation);
        const rotate_kernel& arranging = params_.arranging();
        for (std::int64_t i = 0; i < positions_.count(); ++i) {
            float* const memory = rows_.get() + i * row;
            arranging.make_rows(arranging, rotation, i / tokens, i % tokens, memory + first_row(rotation), memory);
        }
        rows_valid_ = true;
    }

    fused_function kernel_;
    std::vector<std::int64_t> slots_;  ///< [batch, tokens], of the last call
    fused_params params_;
    prepared_positions positions_;  ///< of the rows
    detail::aligned_floats scratch_;
    detail::aligned_floats rows_;  ///< prepared_row() of every token
    bool rows_valid_ = false;
};

}  // namespace ropewalk::cpu
