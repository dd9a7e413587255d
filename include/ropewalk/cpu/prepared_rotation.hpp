// Prepared rotations: validated once, then run for many tokens and layers, as in decoding.
#pragma once

#include <span>

#include "ropewalk/cpu/execute.hpp"
#include "ropewalk/cpu/plan.hpp"
#include "ropewalk/cpu/prepared_positions.hpp"
#include "ropewalk/cpu/token_heads.hpp"

namespace ropewalk::cpu {

/// A rotation of queries and keys whose shapes, strides and element type are fixed, and whose addresses and positions
/// change.
///
/// Keeps the cosines and sines of the last positions, so that the layers of a model share those of a token. Starts no
/// threads. One object runs on one thread at a time.
class prepared_rotation {
public:
    /// Addresses of queries and keys, null where the prepared tensor is absent. Without an output, in place.
    struct addresses {
        const void* q = nullptr;
        const void* k = nullptr;
        void* q_out = nullptr;
        void* k_out = nullptr;
    };

    /// Plans the rotation of tensors with these shapes, strides and types. Copies the numbers of the encoding; a table
    /// in `options` must outlive the object. Throws ropewalk::error for everything that cpu::rotate() refuses at
    /// position 0, for encodings that draw their positions, and for tables with one row per token.
    RW_INLINE prepared_rotation(const rotate_kernel& kernel, layout_kind layout, const tensor& q, const tensor& k,
                                const tensor& q_out, const tensor& k_out, const Encoding& encoding,
                                const options& options = {})
        : kernel_(&kernel),
          params_(plan_of(layout, q, k, q_out, k_out, encoding, options)),
          q_(heads_of(params_.q_in, params_.q_out)),
          k_(heads_of(params_.k_in, params_.k_out)),
          positions_(encoding, params_, params_.batch(), params_.tokens()),
          rows_(detail::make_aligned_floats(first_row(params_) + params_.row_stride() * positions_.count())) {
        positions_.bind(params_);
    }
    RW_INLINE prepared_rotation(prepared_rotation&&) noexcept = default;
    RW_INLINE prepared_rotation& operator=(prepared_rotation&&) noexcept = default;
    RW_INLINE ~prepared_rotation() = default;  // declared, so that it leaves no symbol

    /// The range of positions that run() accepts: that of the table, or the one whose magnitudes fit the element type.
    [[nodiscard]] std::int64_t first_position() const { return positions_.first(); }
    [[nodiscard]] std::int64_t last_position() const { return positions_.last(); }

    /// Rotates the tokens of each batch row at `position`, position + 1, … Returns false, with nothing written, where
    /// an address is missing, misaligned or given for an absent tensor, or where a position is not accepted. Inputs and
    /// outputs must be the same or apart.
    [[nodiscard]] RW_INLINE bool run(const addresses& at, std::int64_t position) noexcept {
        return run_at(at, position);
    }

    /// The same with one position per token, [batch, tokens]. Returns false for another number of positions, too.
    [[nodiscard]] RW_INLINE bool run(const addresses& at, std::span<const std::int64_t> positions) noexcept {
        return run_at(at, positions);
    }

private:
    static RW_INLINE rotate_params plan_of(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out,
                                           const tensor& k_out, const Encoding& encoding, const options& options) {
        prepared_positions::check(encoding, options.table);
        detail::check_threads(options.threads);
        return make_plan(layout, q, k, q_out, k_out, encoding, offset{0}, options).params;
    }

    /// The loop over the heads of a token of one tensor. Strides are in bytes.
    struct token_loop {
        detail::head_loop rotate;
        prefetch_range prefetch;
        std::int64_t heads, in_head, out_head, in_token, out_token, in_batch, out_batch;
        std::int64_t offset;  ///< of the rotary part of a head
        bool partial;         ///< a head has elements outside of its rotary part
    };

    [[nodiscard]] RW_INLINE token_loop heads_of(const tensor& in, const tensor& out) const {
        const detail::head_loop_choice loops(*kernel_, params_);
        const std::int64_t size = kernel_->element_bytes;
        return {.rotate = in.heads == 1 ? loops.single : loops.several,
                .prefetch = loops.prefetch,
                .heads = in.heads,
                .in_head = in.stride_head * size,
                .out_head = out.stride_head * size,
                .in_token = in.stride_token * size,
                .out_token = out.stride_token * size,
                .in_batch = in.stride_batch * size,
                .out_batch = out.stride_batch * size,
                .offset = params_.rotary_offset * size,
                .partial = 2 * params_.pairs < in.head_dim};
    }

    /// Returns whether the addresses of a tensor fit what was prepared.
    [[nodiscard]] RW_INLINE bool accepts(const tensor& prepared, const void* in, const void* out) const {
        const auto bits = reinterpret_cast<std::uintptr_t>(in) | reinterpret_cast<std::uintptr_t>(out);
        if (!prepared.exists()) return bits == 0;
        return in != nullptr && (bits & static_cast<std::uintptr_t>(kernel_->element_bytes - 1)) == 0;
    }
    [[nodiscard]] RW_INLINE bool accepts(const addresses& at) const {
        return accepts(params_.q_in, at.q, at.q_out) && accepts(params_.k_in, at.k, at.k_out);
    }

    template <class Positions>
    RW_INLINE bool run_at(const addresses& at, const Positions& positions) {
        if (!accepts(at) || !positions_.accepts(positions)) return false;
        if (positions_.set(positions) || !rows_valid_) make_rows();
        float* const rows = rows_.get() + first_row(params_);
        if (at.q != nullptr) rotate_tensor(q_, params_.q_in, params_.q_out, at.q, at.q_out, rows);
        if (at.k != nullptr)
            rotate_tensor(k_, params_.k_in, params_.k_out, at.k, at.k_out, rows + detail::key_row(params_));
        return true;
    }

    RW_INLINE void make_rows() {
        float* const rows = rows_.get() + first_row(params_);
        const std::int64_t tokens = params_.tokens();
        for (std::int64_t i = 0; i < positions_.count(); ++i)
            kernel_->make_rows(*kernel_, params_, i / tokens, i % tokens, rows + i * params_.row_stride(), rows_.get());
        rows_valid_ = true;
    }

    RW_INLINE void rotate_tensor(const token_loop& loop, const tensor& in, const tensor& out, const void* from,
                                 void* to, const float* row) const {
        if (to == nullptr) to = const_cast<void*>(from);
        const std::int64_t tokens = in.tokens, stride = params_.row_stride();
        for (std::int64_t batch_row = 0; batch_row < in.batch; ++batch_row) {
            if (loop.partial && from != to)
                detail::token_heads(in, from, out, to, batch_row, 0).copy_rest(*kernel_, params_, tokens);
            const std::byte* token_in = static_cast<const std::byte*>(from) + batch_row * loop.in_batch + loop.offset;
            std::byte* token_out = static_cast<std::byte*>(to) + batch_row * loop.out_batch + loop.offset;
            for (std::int64_t token = 0; token < tokens; ++token, row += stride) {
                loop.rotate(params_.pairs, row, {token_in, token_out, loop.heads, loop.in_head, loop.out_head},
                            loop.prefetch);
                token_in += loop.in_token;
                token_out += loop.out_token;
            }
        }
    }

    const rotate_kernel* kernel_;
    rotate_params params_;
    token_loop q_, k_;
    prepared_positions positions_;  ///< of the rows
    detail::aligned_floats rows_;   ///< scratch, then the rows of every token
    bool rows_valid_ = false;
};

/// A prepared_rotation with a static element type.
template <class T>
class prepared {
public:
    RW_INLINE explicit prepared(prepared_rotation rotation) : rotation_(std::move(rotation)) {}
    RW_INLINE prepared(prepared&&) noexcept = default;
    RW_INLINE prepared& operator=(prepared&&) noexcept = default;
    RW_INLINE ~prepared() = default;

    /// Rotates q and k in place at a position, or at one position per token. See prepared_rotation::run().
    [[nodiscard]] bool run(T* q, T* k, std::int64_t position) noexcept { return rotation_.run({q, k}, position); }
    [[nodiscard]] bool run(T* q, T* k, std::span<const std::int64_t> positions) noexcept {
        return rotation_.run({q, k}, positions);
    }

    /// Rotates q and k into other memory, such as the slot of a cache.
    [[nodiscard]] bool run(const T* q, const T* k, T* q_out, T* k_out, std::int64_t position) noexcept {
        return rotation_.run({q, k, q_out, k_out}, position);
    }
    [[nodiscard]] bool run(const T* q, const T* k, T* q_out, T* k_out,
                           std::span<const std::int64_t> positions) noexcept {
        return rotation_.run({q, k, q_out, k_out}, positions);
    }

    [[nodiscard]] std::int64_t first_position() const { return rotation_.first_position(); }
    [[nodiscard]] std::int64_t last_position() const { return rotation_.last_position(); }

private:
    prepared_rotation rotation_;
};

}  // namespace ropewalk::cpu
