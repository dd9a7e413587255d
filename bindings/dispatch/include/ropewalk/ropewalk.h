// C interface of the compiled library, in C99, for C and every language that calls C functions.
//
// Results. A function that returns int returns ROPEWALK_OK or another ropewalk_result. On failure it writes no output,
// and ropewalk_last_error() describes the problem. No C++ exception leaves a function.
//
// Pointers. A NULL pointer is an error, never a crash, except where the description allows NULL.
//
// Structs. The first member of every struct is struct_size, its size in bytes where the caller was compiled. Later
// versions of a struct may have more members at the end. Zero is the default of every member that has one:
//
//     ropewalk_geometry geometry = {.struct_size = sizeof geometry, .head_dim = 128, .layout = ROPEWALK_HALF_SPLIT};
//
// The library gives members that an older caller lacks their default. It rejects a struct of a newer caller
// (ROPEWALK_UNSUPPORTED) if a member that it does not know is not zero.
//
// Threads. All functions may be called from several threads at once. An encoding is constant after its creation; only
// its destruction must not overlap other calls with it.
//
// The binary interface is stable within a major version; before 1.0, within a minor version.
#ifndef ROPEWALK_ROPEWALK_H
#define ROPEWALK_ROPEWALK_H

#include <stddef.h>
#include <stdint.h>

#include <ropewalk/version.h>

#if defined(__GNUC__)
#define ROPEWALK_API __attribute__((visibility("default")))
#else
#define ROPEWALK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/// Result of a function.
enum ropewalk_result {
    ROPEWALK_OK = 0,
    ROPEWALK_INVALID_ARGUMENT = 1,
    ROPEWALK_OUT_OF_MEMORY = 2,
    ROPEWALK_UNSUPPORTED = 3,  ///< not in this build or version of the library
    ROPEWALK_INTERNAL_ERROR = 4
};

/// Element type of a tensor or a table. Members of this type are int32_t.
enum ropewalk_element_type { ROPEWALK_F32 = 1, ROPEWALK_F16 = 2, ROPEWALK_BF16 = 3, ROPEWALK_F64 = 4 };

/// Layout: the two elements of a head that form pair j of P pairs. Members of this type are int32_t.
enum ropewalk_layout {
    ROPEWALK_HALF_SPLIT = 1,  ///< (j, j + P): GPT-NeoX and the Llama weights on Hugging Face
    ROPEWALK_INTERLEAVED = 2  ///< (2j, 2j + 1): GPT-J and Meta's Llama release
};

/// Direction of a rotation. Members of this type are int32_t.
enum ropewalk_direction {
    ROPEWALK_FORWARD = 0,         ///< encodes
    ROPEWALK_INVERSE = 1,         ///< undoes forward, magnitudes included
    ROPEWALK_ADJOINT = 2,         ///< the transposed map, for gradients: negates the angle and keeps the magnitude
    ROPEWALK_INVERSE_ADJOINT = 3  ///< the transposed inverse: keeps the angle and undoes the magnitude
};

/// Source of the positions of a call. Members of this type are int32_t.
enum ropewalk_positions_kind {
    ROPEWALK_OFFSET = 0,        ///< token t of every sequence has position first + t
    ROPEWALK_IDS32 = 1,         ///< int32_t ids [rows, count], or [axes, rows, count]
    ROPEWALK_IDS64 = 2,         ///< int64_t ids of the same shapes
    ROPEWALK_CU_SEQLENS32 = 3,  ///< int32_t bounds of ragged sequences
    ROPEWALK_CU_SEQLENS64 = 4,  ///< int64_t bounds of ragged sequences
    ROPEWALK_SHIFT = 5,         ///< every token moves by the distance `first`, from where it was encoded
    ROPEWALK_ROW_OFFSETS = 6    ///< token t of batch row b has position offsets[b] + t
};

// Version and errors

/// Returns the version of the library in use, for example "0.1.0". ROPEWALK_VERSION_MAJOR, _MINOR and _PATCH are those
/// of this header.
ROPEWALK_API const char* ropewalk_version(void);

/// Returns the description of the last failure of the calling thread, or "" if there was none. Later successes keep
/// it. The text is valid until the next failure of the thread. At most 1023 bytes, UTF-8.
ROPEWALK_API const char* ropewalk_last_error(void);

// Instruction sets

/// Returns the instruction set in use: the widest one, or the value of the environment variable ROPEWALK_ISA. Returns
/// NULL if this machine does not have that set.
ROPEWALK_API const char* ropewalk_instruction_set(void);

/// Returns the name of the tuning profile in use: that of the processor, or the one that the environment variable
/// ROPEWALK_PROFILE names. Returns NULL for a profile that does not exist.
ROPEWALK_API const char* ropewalk_tuning_profile(void);

/// Returns the name of an instruction set that the library has kernels for and the machine supports. Index 0 is the
/// widest. Returns NULL for an index after the last one, and for a negative index.
ROPEWALK_API const char* ropewalk_available_instruction_set(int index);

// Encodings

/// Shape of one attention head and the base of its frequencies. Elements [rotary_offset, rotary_offset + rotary_dim)
/// rotate, the others stay unchanged.
typedef struct ropewalk_geometry {
    size_t struct_size;
    int64_t head_dim;         ///< elements per head
    int64_t rotary_dim;       ///< elements that rotate, even; 0: head_dim - rotary_offset
    int64_t rotary_offset;    ///< first element that rotates
    double base;              ///< rope_theta; 0: 10000
    int64_t sequence_length;  ///< tokens, for policies that depend on it; 0: unknown
    int64_t original_length;  ///< trained context length, tokens, for policies that omit theirs; 0: unknown
    int32_t layout;           ///< ropewalk_layout, required: a wrong layout is a silent error that ruins a model
    int32_t reserved;         ///< 0
} ropewalk_geometry;

/// Options of ropewalk_encoding_from_config().
typedef struct ropewalk_config_choices {
    size_t struct_size;
    const char* layer_type;   ///< "full_attention", "sliding_attention", … if layers differ; NULL: not given
    const char* policy;       ///< expression that replaces the scaling of the configuration; NULL: not given
    int64_t sequence_length;  ///< tokens, for policies that depend on it; 0: unknown
    int32_t layout;           ///< ropewalk_layout that replaces that of the model; 0: not given
    int32_t reserved;         ///< 0
} ropewalk_config_choices;

/// The result of applying policies to a geometry: the frequencies of every pair.
typedef struct ropewalk_encoding ropewalk_encoding;

/// Creates an encoding from an expression of policies, for example "default", "linear:8" or "linear:4|truncated:4096".
/// Free it with ropewalk_encoding_destroy(). On failure *encoding is NULL. Fails for an invalid geometry, an unknown
/// policy and an invalid parameter.
ROPEWALK_API int ropewalk_encoding_create(const ropewalk_geometry* geometry, const char* expression,
                                          ropewalk_encoding** encoding);

/// Creates an encoding from the text of a Hugging Face config.json. `choices` may be NULL. Free the encoding with
/// ropewalk_encoding_destroy(). On failure *encoding is NULL. Fails for invalid JSON, for unknown or contradicting
/// keys, and with ROPEWALK_UNSUPPORTED if the library was built without nlohmann/json.
ROPEWALK_API int ropewalk_encoding_from_config(const char* config_json, const ropewalk_config_choices* choices,
                                               ropewalk_encoding** encoding);

/// Frees an encoding. NULL is allowed.
ROPEWALK_API void ropewalk_encoding_destroy(ropewalk_encoding* encoding);

/// Returns the number of pairs, rotary_dim / 2; -1 if the encoding is NULL.
ROPEWALK_API int64_t ropewalk_encoding_pairs(const ropewalk_encoding* encoding);

/// Returns the elements per head; -1 if the encoding is NULL.
ROPEWALK_API int64_t ropewalk_encoding_head_dim(const ropewalk_encoding* encoding);

/// Returns the ropewalk_layout of the encoding; -1 if the encoding is NULL.
ROPEWALK_API int ropewalk_encoding_layout(const ropewalk_encoding* encoding);

/// Returns the factor on cosines and sines, which rotations of queries and keys apply; NaN if the encoding is NULL.
ROPEWALK_API double ropewalk_encoding_attention_factor(const ropewalk_encoding* encoding);

/// Returns the factor on the softmax scale (DeepSeek), which the caller's attention applies; NaN if the encoding is
/// NULL.
ROPEWALK_API double ropewalk_encoding_softmax_factor(const ropewalk_encoding* encoding);

/// Returns the policies as an expression, valid until the encoding is destroyed; NULL if the encoding is NULL.
ROPEWALK_API const char* ropewalk_encoding_expression(const ropewalk_encoding* encoding);

/// Writes the frequencies [count], radians per token, after every policy. Fails unless count is the number of pairs.
ROPEWALK_API int ropewalk_encoding_inv_freq(const ropewalk_encoding* encoding, double* inv_freq, int64_t count);

// Views and positions

/// Non-owning [batch, tokens, heads, head_dim] tensor with one stride per axis, in elements. The elements of a head are
/// contiguous. An extent of 0 is an empty tensor. Inputs that are not also outputs are never written.
typedef struct ropewalk_view {
    size_t struct_size;
    void* data;
    int64_t batch, tokens, heads, head_dim;
    int64_t stride_batch, stride_token, stride_head;
    int32_t type;      ///< ropewalk_element_type
    int32_t reserved;  ///< 0
} ropewalk_view;

/// Positions of the tokens of a call. Ids may be negative and may come in any order.
typedef struct ropewalk_positions {
    size_t struct_size;
    int32_t kind;          ///< ropewalk_positions_kind
    int32_t reserved;      ///< 0
    int64_t first;         ///< position of the first token of a sequence: OFFSET and CU_SEQLENS; the distance: SHIFT
    const void* data;      ///< ids, or bounds: sequence i has the tokens [bounds[i], bounds[i + 1])
    int64_t count;         ///< ids per row, or number of bounds
    int64_t rows;          ///< batch rows of ids; 0 or 1: one row, shared by the batch
    int64_t stride_row;    ///< ids from one row to the next; 0: count
    int64_t axes;          ///< positions per token; 0 or 1: one; 3: M-RoPE (t, h, w)
    int64_t stride_axis;   ///< ids from one axis to the next; 0: rows * stride_row
    const void* offsets;   ///< ROW_OFFSETS, and CU_SEQLENS where sequence i starts at offsets[i] in place of `first`
    int64_t offset_count;  ///< one per batch row or sequence; 1: shared by all
    int64_t offset_bits;   ///< 32 or 64: of an offset
} ropewalk_positions;

/// Caller-supplied cosines and sines [batch, rows, columns] that replace the angles of the encoding. Row r belongs to
/// the token with position r, or to token r of the call (by_token).
typedef struct ropewalk_table {
    size_t struct_size;
    const void *cos, *sin;
    int64_t rows, columns;  ///< columns: one per pair, or two per pair, where each value is stored twice
    int64_t stride_row;     ///< elements from one row to the next; 0: columns
    int64_t batch;          ///< by_token only: batches of rows; 0 or 1: shared by the batch
    int64_t stride_batch;   ///< elements from one batch to the next; 0: rows * stride_row
    int32_t type;           ///< ropewalk_element_type; ROPEWALK_F64 for tensors of ROPEWALK_F64 only
    int32_t by_token;       ///< 0 or 1
} ropewalk_table;

/// Threads of the caller, in place of OpenMP. `run` calls task(argument, i) for every i in [0, count), on any threads
/// and in any order, and returns when all calls have returned.
typedef struct ropewalk_thread_pool {
    size_t struct_size;
    void (*run)(void* pool, int count, void (*task)(void* argument, int index), void* argument);
    void* pool;        ///< passed to `run`
    int32_t size;      ///< threads of the pool, at least 1
    int32_t reserved;  ///< 0
} ropewalk_thread_pool;

/// Options of a call. Re-rotations and tables have `threads` and `pool` only; the other members must be 0.
typedef struct ropewalk_options {
    size_t struct_size;
    int32_t direction;                 ///< ropewalk_direction
    int32_t threads;                   ///< limit, at most 4096; 0: all of the pool, or the default of OpenMP
    const ropewalk_table* table;       ///< NULL: the angles of the encoding
    const ropewalk_thread_pool* pool;  ///< NULL: OpenMP, if the library has it
    int32_t fresh_output;              ///< 1: the output was never written, so streaming stores cost time
    int32_t reserved;                  ///< 0
} ropewalk_options;

/// Returns a view of contiguous [batch, tokens, heads, head_dim].
static inline ropewalk_view ropewalk_bshd(void* data, int32_t type, int64_t batch, int64_t tokens, int64_t heads,
                                          int64_t head_dim) {
    ropewalk_view view = {sizeof(ropewalk_view), data, batch, tokens, heads, head_dim, 0, 0, head_dim, type, 0};
    view.stride_token = heads * head_dim;
    view.stride_batch = tokens * view.stride_token;
    return view;
}

/// Returns a view of contiguous [tokens, heads, head_dim], for ragged batches too.
static inline ropewalk_view ropewalk_thd(void* data, int32_t type, int64_t tokens, int64_t heads, int64_t head_dim) {
    return ropewalk_bshd(data, type, 1, tokens, heads, head_dim);
}

/// Returns a view of contiguous [batch, heads, tokens, head_dim].
static inline ropewalk_view ropewalk_bhsd(void* data, int32_t type, int64_t batch, int64_t heads, int64_t tokens,
                                          int64_t head_dim) {
    ropewalk_view view = ropewalk_bshd(data, type, batch, tokens, heads, head_dim);
    view.stride_token = head_dim;
    view.stride_head = tokens * head_dim;
    return view;
}

/// Returns the positions first, first + 1, … of every sequence.
static inline ropewalk_positions ropewalk_offset(int64_t first) {
    ropewalk_positions positions = {sizeof(ropewalk_positions), ROPEWALK_OFFSET, 0, 0, NULL, 0, 0, 0, 0, 0, NULL, 0, 0};
    positions.first = first;
    return positions;
}

/// Returns a shift: tokens that were encoded at p end at p + distance. Magnitudes change by the distance, and attention
/// factors are not applied again. For cached keys whose positions all change by one number.
static inline ropewalk_positions ropewalk_shift(int64_t distance) {
    ropewalk_positions positions = ropewalk_offset(distance);
    positions.kind = ROPEWALK_SHIFT;
    return positions;
}

/// Returns explicit positions [count], shared by all batch rows.
static inline ropewalk_positions ropewalk_ids32(const int32_t* ids, int64_t count) {
    ropewalk_positions positions = ropewalk_offset(0);
    positions.kind = ROPEWALK_IDS32;
    positions.data = ids;
    positions.count = count;
    return positions;
}
static inline ropewalk_positions ropewalk_ids64(const int64_t* ids, int64_t count) {
    ropewalk_positions positions = ropewalk_offset(0);
    positions.kind = ROPEWALK_IDS64;
    positions.data = ids;
    positions.count = count;
    return positions;
}

/// Returns the positions of a ragged batch [tokens, heads, head_dim], which count from 0 in each sequence. `bounds`
/// begins with 0, ascends and ends with the number of tokens, as the cu_seqlens of flash-attention do.
static inline ropewalk_positions ropewalk_cu_seqlens32(const int32_t* bounds, int64_t count) {
    ropewalk_positions positions = ropewalk_ids32(bounds, count);
    positions.kind = ROPEWALK_CU_SEQLENS32;
    return positions;
}
static inline ropewalk_positions ropewalk_cu_seqlens64(const int64_t* bounds, int64_t count) {
    ropewalk_positions positions = ropewalk_ids64(bounds, count);
    positions.kind = ROPEWALK_CU_SEQLENS64;
    return positions;
}

// Rotations

/// Encodes queries q and keys k in place: pair j of the token at position p is rotated by p times its frequency. k may
/// have fewer heads than q. One of q and k may be NULL, and so may `options`. f32 results are within 3e-7 of the norm
/// of the pair for |p| < 2^31, f16 and bf16 results within one rounding, f64 results within 4e-16 + 1.4e-18 |p|. Fails,
/// with nothing written, where shapes, strides, types or positions do not fit.
ROPEWALK_API int ropewalk_rotate(const ropewalk_view* q, const ropewalk_view* k, const ropewalk_encoding* encoding,
                                 const ropewalk_positions* positions, const ropewalk_options* options);

/// Encodes into other tensors of the same shapes, which must not overlap the inputs. Elements that do not rotate are
/// copied. q and q_out may both be NULL, or k and k_out. `options` may be NULL. Otherwise as ropewalk_rotate().
ROPEWALK_API int ropewalk_rotate_to(const ropewalk_view* q, const ropewalk_view* k, const ropewalk_view* q_out,
                                    const ropewalk_view* k_out, const ropewalk_encoding* encoding,
                                    const ropewalk_positions* positions, const ropewalk_options* options);

/// Re-encodes cached keys, from `source` at `source_positions` to `target` at `target_positions`, in one pass. k_out
/// NULL: in place. `options` may be NULL.
ROPEWALK_API int ropewalk_rerotate(const ropewalk_view* k, const ropewalk_view* k_out, const ropewalk_encoding* source,
                                   const ropewalk_positions* source_positions, const ropewalk_encoding* target,
                                   const ropewalk_positions* target_positions, const ropewalk_options* options);

/// Writes cos and sin [tokens, columns] of the angles at `tokens` positions, without any magnitude. columns: the number
/// of pairs, or twice that, where each value is stored twice in the order of the layout. Max error 1.2e-7 for
/// |p| < 2^31. `options` may be NULL. Fails if cos and sin overlap.
ROPEWALK_API int ropewalk_cos_sin(const ropewalk_encoding* encoding, const ropewalk_positions* positions,
                                  int64_t tokens, int64_t columns, float* cos, float* sin,
                                  const ropewalk_options* options);

// Prepared rotations, for decoding

/// A rotation that is validated once and then runs at any address and position. Keeps the cosines and sines of the last
/// positions, so that the layers of a model share those of a token. Runs start no threads and allocate nothing. One
/// object runs on one thread at a time.
typedef struct ropewalk_prepared ropewalk_prepared;

/// Prepares the rotation of tensors with the shapes, strides and types of q and k. Their addresses are examples: runs
/// pass their own. q_out and k_out have the strides of outputs; NULL: those of q and k. One of q and k may be NULL, and
/// so may `options`. A table in the options must outlive the object; the encoding need not. Free the object with
/// ropewalk_prepared_destroy(). On failure *prepared is NULL. Fails for everything that ropewalk_rotate() refuses.
ROPEWALK_API int ropewalk_prepare(const ropewalk_view* q, const ropewalk_view* k, const ropewalk_view* q_out,
                                  const ropewalk_view* k_out, const ropewalk_encoding* encoding,
                                  const ropewalk_options* options, ropewalk_prepared** prepared);

/// Frees a prepared rotation. NULL is allowed.
ROPEWALK_API void ropewalk_prepared_destroy(ropewalk_prepared* prepared);

/// Rotates the tokens of each batch row in place, at position, position + 1, … q or k is NULL exactly where the
/// prepared view was. Fails, with nothing written, for another NULL, for a misaligned address, and for a position that
/// the table does not have or whose magnitude the element type does not hold.
ROPEWALK_API int ropewalk_prepared_run(ropewalk_prepared* prepared, void* q, void* k, int64_t position);

/// The same from inputs to outputs, such as the slot of a cache. An output must be its input or lie apart from it.
ROPEWALK_API int ropewalk_prepared_run_to(ropewalk_prepared* prepared, const void* q, const void* k, void* q_out,
                                          void* k_out, int64_t position);

/// The same in place with one position per token, [batch, tokens]. Fails unless count is the number of tokens.
ROPEWALK_API int ropewalk_prepared_run_ids(ropewalk_prepared* prepared, void* q, void* k, const int64_t* ids,
                                           int64_t count);

/// ropewalk_prepared_run_to() with one position per token.
ROPEWALK_API int ropewalk_prepared_run_ids_to(ropewalk_prepared* prepared, const void* q, const void* k, void* q_out,
                                              void* k_out, const int64_t* ids, int64_t count);

#ifdef __cplusplus
}
#endif

#endif
