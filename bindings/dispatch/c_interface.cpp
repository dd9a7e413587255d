#include "c_interface.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <limits>
#include <new>

namespace ropewalk::c_interface {

namespace {

// A fixed buffer, because the message of a failed allocation must not allocate.
thread_local char last_error[1024];

/// Bytes of the UTF-8 character at the start of a text, or 0 if there is none.
std::size_t character_bytes(std::string_view text) noexcept {
    constexpr std::uint32_t smallest[] = {0, 0x80, 0x800, 0x10000, 0x110000};  // of each length
    const auto first = static_cast<unsigned char>(text[0]);
    const std::size_t bytes = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    const bool leads = bytes == 1 || (first >= 0xc0 && first < 0xf8);
    if (!leads || bytes > text.size()) return 0;
    std::uint32_t character = bytes == 1 ? first : first & (0x7fU >> bytes);
    for (std::size_t i = 1; i < bytes; ++i) {
        const auto next = static_cast<unsigned char>(text[i]);
        if ((next & 0xc0U) != 0x80U) return 0;
        character = character << 6 | (next & 0x3fU);
    }
    const bool is_surrogate = character >= 0xd800 && character < 0xe000;
    return character < smallest[bytes - 1] || character >= smallest[bytes] || is_surrogate ? 0 : bytes;
}

/// Stores a text as UTF-8. Messages quote bytes of the caller, which may be anything: invalid ones become '?'.
void set_last_error(std::string_view text) noexcept {
    std::size_t length = 0;
    while (!text.empty()) {
        const std::size_t bytes = character_bytes(text), used = bytes == 0 ? 1 : bytes;
        if (length + used >= sizeof last_error) break;
        std::memcpy(last_error + length, bytes == 0 ? "?" : text.data(), used);
        length += used;
        text.remove_prefix(used);
    }
    last_error[length] = '\0';
}

int fail(int result, std::string_view text) noexcept {
    set_last_error(text);
    return result;
}

/// Runs `body` and turns exceptions into results.
template <class Body>
int guarded(const Body& body) noexcept {
    try {
        body();
        return ROPEWALK_OK;
    } catch (const unsupported& problem) {
        return fail(ROPEWALK_UNSUPPORTED, problem.what());
    } catch (const error& problem) {
        return fail(ROPEWALK_INVALID_ARGUMENT, problem.what());
    } catch (const std::bad_alloc&) {
        return fail(ROPEWALK_OUT_OF_MEMORY, "ropewalk: out of memory");
    } catch (const std::exception& problem) {
        return fail(ROPEWALK_INTERNAL_ERROR, problem.what());
    } catch (...) {
        return fail(ROPEWALK_INTERNAL_ERROR, "ropewalk: unknown exception");
    }
}

template <class T>
const T& required(const char* name, const T* pointer) {
    RW_EXPECTS(pointer != nullptr, "{} is NULL", name);
    return *pointer;
}

/// Size in bytes of a struct in the first version that had it. Later members need their default where it is zero.
template <class Struct>
constexpr std::size_t first_size = sizeof(Struct);
template <>
constexpr std::size_t first_size<ropewalk_positions> = offsetof(ropewalk_positions, offsets);

/// Returns a copy of the caller's struct, with zeros for members that an older caller lacks.
template <class Struct>
Struct read(const char* name, const Struct* given) {
    constexpr std::size_t implausible = 4096;
    const std::size_t size = required(name, given).struct_size;
    RW_EXPECTS(size >= first_size<Struct> && size <= implausible, "{}.struct_size is {}, expected its sizeof, {}", name,
               size, sizeof(Struct));
    const auto* const bytes = reinterpret_cast<const unsigned char*>(given);
    if (std::any_of(bytes + sizeof(Struct), bytes + std::max(size, sizeof(Struct)),
                    [](auto byte) { return byte != 0; }))
        throw unsupported(detail::format("ropewalk: {} has {} bytes, and version {} knows only the first {}", name,
                                         size, ropewalk_version(), sizeof(Struct)));
    Struct copy{};
    std::memcpy(&copy, given, std::min(size, sizeof(Struct)));
    if constexpr (requires { copy.reserved; }) {
        RW_EXPECTS(copy.reserved == 0, "{}.reserved must be 0, got {}", name, copy.reserved);
    }
    return copy;
}

bool as_flag(const char* name, std::int32_t value) {
    RW_EXPECTS(value == 0 || value == 1, "{} must be 0 or 1, got {}", name, value);
    return value == 1;
}

element_type as_element_type(const char* name, std::int32_t value) {
    switch (value) {
        case ROPEWALK_F32:
            return element_type::f32;
        case ROPEWALK_F16:
            return element_type::f16;
        case ROPEWALK_BF16:
            return element_type::bf16;
        case ROPEWALK_F64:
            return element_type::f64;
        default:
            detail::fail(
                "{}.type must be ROPEWALK_F32 (1), ROPEWALK_F16 (2), ROPEWALK_BF16 (3) or ROPEWALK_F64 (4), got {}",
                name, value);
    }
}

direction as_direction(std::int32_t value) {
    switch (value) {
        case ROPEWALK_FORWARD:
            return direction::forward;
        case ROPEWALK_INVERSE:
            return direction::inverse;
        case ROPEWALK_ADJOINT:
            return direction::adjoint;
        case ROPEWALK_INVERSE_ADJOINT:
            return direction::inverse_adjoint;
        default:
            detail::fail("options.direction must be a ropewalk_direction from 0 to 3, got {}", value);
    }
}

Geometry as_geometry(const ropewalk_geometry* pointer) {
    const ropewalk_geometry given = read("geometry", pointer);
    Geometry geometry{.head_dim = given.head_dim,
                      .rotary_dim = given.rotary_dim,
                      .rotary_offset = given.rotary_offset,
                      .layout = as_layout("geometry.layout", given.layout),
                      .sequence_length = given.sequence_length,
                      .original_length = given.original_length};
    if (given.base != 0) geometry.base = given.base;
    return geometry;
}

/// The tensor of a view. NULL is an absent one.
tensor as_tensor(const char* name, const ropewalk_view* pointer) {
    if (pointer == nullptr) return {};
    const ropewalk_view view = read(name, pointer);
    const tensor result{.data = view.data,
                        .type = as_element_type(name, view.type),
                        .batch = view.batch,
                        .tokens = view.tokens,
                        .heads = view.heads,
                        .head_dim = view.head_dim,
                        .stride_batch = view.stride_batch,
                        .stride_token = view.stride_token,
                        .stride_head = view.stride_head};
    RW_EXPECTS(result.exists() || result.elements() == 0, "{}.data is NULL", name);
    // The checks of a call skip tensors without memory.
    RW_EXPECTS(view.batch >= 0 && view.tokens >= 0 && view.heads >= 0 && view.head_dim >= 0,
               "{} [batch {}, tokens {}, heads {}, head_dim {}]: no extent may be negative", name, view.batch,
               view.tokens, view.heads, view.head_dim);
    return result;
}

positions as_positions(const char* name, const ropewalk_positions* pointer) {
    using kind = positions::kind;
    constexpr kind kinds[] = {kind::offset,       kind::ids32, kind::ids64,      kind::cu_seqlens32,
                              kind::cu_seqlens64, kind::shift, kind::row_offsets};
    const ropewalk_positions given = read(name, pointer);
    RW_EXPECTS(given.kind >= 0 && given.kind < std::ssize(kinds),
               "{}.kind must be a ropewalk_positions_kind from 0 to {}, got {}", name, std::ssize(kinds) - 1,
               given.kind);
    positions result;
    result.source = kinds[given.kind];
    result.first = given.first;
    if (given.offsets != nullptr || given.offset_count != 0 || result.source == kind::row_offsets) {
        RW_EXPECTS(given.offset_bits == 32 || given.offset_bits == 64, "{}.offset_bits must be 32 or 64, got {}", name,
                   given.offset_bits);
        RW_EXPECTS(given.offset_count >= 0, "{}.offset_count must not be negative, got {}", name, given.offset_count);
        RW_EXPECTS(given.offsets != nullptr || given.offset_count == 0, "{}.offsets is NULL", name);
        result.offsets.data = given.offsets, result.offsets.count = given.offset_count;
        result.offsets.wide = given.offset_bits == 64;
    }
    if (result.source == kind::offset || result.source == kind::shift || result.source == kind::row_offsets)
        return result;
    RW_EXPECTS(given.data != nullptr || given.count == 0, "{}.data is NULL", name);
    result.data = given.data;
    result.count = given.count;
    if (result.ragged()) return result;
    RW_EXPECTS(given.first == 0, "{}.first must be 0 with ids, got {}", name, given.first);
    result.rows = given.rows == 0 ? 1 : given.rows;
    result.stride_row = given.stride_row == 0 ? given.count : given.stride_row;
    result.axes = given.axes == 0 ? 1 : given.axes;
    result.stride_axis = given.stride_axis == 0 ? result.rows * result.stride_row : given.stride_axis;
    return result;
}

cos_sin_table as_table(const ropewalk_table* pointer) {
    const ropewalk_table given = read("options.table", pointer);
    cos_sin_table table{.cos = &required("options.table.cos", static_cast<const char*>(given.cos)),
                        .sin = &required("options.table.sin", static_cast<const char*>(given.sin)),
                        .type = as_element_type("options.table", given.type),
                        .rows = given.rows,
                        .columns = given.columns,
                        .stride_row = given.stride_row == 0 ? given.columns : given.stride_row,
                        .batch = given.batch == 0 ? 1 : given.batch};
    table.stride_batch = given.stride_batch == 0 ? table.rows * table.stride_row : given.stride_batch;
    if (as_flag("options.table.by_token", given.by_token)) table.order = cos_sin_table::rows_are::by_token;
    return table;
}

cpu::threads as_threads(const ropewalk_options& given) {
    cpu::threads threads(given.threads);
    if (given.pool == nullptr) return threads;
    const ropewalk_thread_pool pool = read("options.pool", given.pool);
    RW_EXPECTS(pool.run != nullptr, "options.pool.run is NULL");
    threads.pool = {pool.run, pool.pool, pool.size};
    return threads;
}

cpu::options as_options(const ropewalk_options* pointer) {
    if (pointer == nullptr) return {};
    const ropewalk_options given = read("options", pointer);
    cpu::options options;
    options.direction = as_direction(given.direction);
    options.threads = as_threads(given);
    options.fresh_output = as_flag("options.fresh_output", given.fresh_output);
    if (given.table != nullptr) options.table = as_table(given.table);
    return options;
}

/// The threads of a call that has no other options.
cpu::threads threads_of(const ropewalk_options* pointer) {
    if (pointer == nullptr) return {};
    const ropewalk_options given = read("options", pointer);
    RW_EXPECTS(given.direction == 0 && given.table == nullptr && given.fresh_output == 0,
               "this call has the options threads and pool only, got direction {}, table at {} and fresh_output {}",
               given.direction, static_cast<const void*>(given.table), given.fresh_output);
    return as_threads(given);
}

/// Fails if one of an input and its output is NULL.
void expect_both(const char* input, const void* in, const char* output, const void* out) {
    RW_EXPECTS(in != nullptr || out == nullptr, "{} is NULL but {} is not", input, output);
    RW_EXPECTS(out != nullptr || in == nullptr, "{} is NULL but {} is not", output, input);
}

void rotate(const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out,
            const ropewalk_encoding* encoding, const ropewalk_positions* positions, const ropewalk_options* options) {
    const auto& [target, layout] = required("encoding", encoding);
    const ropewalk::positions given = as_positions("positions", positions);
    dispatch::rotate(layout, q, k, q_out, k_out, target, given, as_options(options));
}

/// Stores a new object of the C interface, or NULL on failure.
template <class Object, class Make>
int create(const char* name, Object** object, const Make& make) {
    if (object != nullptr) *object = nullptr;
    return guarded([&] {
        (void)required(name, object);
        *object = new Object(make());
    });
}

ropewalk_encoding with_layout(Encoding encoding) {
    const auto layout = encoding.geometry.layout;
    RW_EXPECTS(layout.has_value(), "the layout of the encoding is unknown");
    return {std::move(encoding), *layout};
}

using addresses = cpu::prepared_rotation::addresses;

/// Runs a prepared rotation in place, at one position or at [tokens] positions.
template <class Positions>
int run(ropewalk_prepared* prepared, const addresses& at, const Positions& positions) noexcept {
    if (prepared != nullptr && prepared->rotation.run(at, positions)) return ROPEWALK_OK;
    return guarded([&] {
        const cpu::prepared_rotation& rotation = required("prepared", prepared).rotation;
        std::string asked;
        if constexpr (std::same_as<Positions, std::int64_t>) {
            asked = detail::format("position {}", positions);
        } else {
            asked = detail::format("{} positions", positions.size());
        }
        detail::fail(
            "cannot rotate q at {} to {} and k at {} to {} at {}: a prepared rotation needs the tensors that were "
            "prepared, aligned to their elements, one position per token, and positions from {} to {}",
            at.q, static_cast<const void*>(at.q_out), at.k, static_cast<const void*>(at.k_out), asked,
            rotation.first_position(), rotation.last_position());
    });
}

/// Runs a prepared rotation from inputs to outputs.
template <class Positions>
int run_to(ropewalk_prepared* prepared, const addresses& at, const Positions& positions) noexcept {
    if ((at.q == nullptr) == (at.q_out == nullptr) && (at.k == nullptr) == (at.k_out == nullptr))
        return run(prepared, at, positions);
    return guarded([&] {
        expect_both("q", at.q, "q_out", at.q_out);
        expect_both("k", at.k, "k_out", at.k_out);
    });
}

/// Checks an array of positions and passes it on.
template <class Run>
int with_ids(const std::int64_t* ids, std::int64_t count, const Run& run) noexcept {
    if (ids != nullptr && count >= 0) return run(std::span(ids, static_cast<std::size_t>(count)));
    return guarded([&] {
        (void)required("ids", ids);
        RW_EXPECTS(count >= 0, "count must not be negative, got {}", count);
    });
}

/// Returns a property of an encoding, or `otherwise` for NULL.
template <class T, class Get>
T property(const ropewalk_encoding* encoding, T otherwise, const Get& get) noexcept {
    if (encoding != nullptr) return get(*encoding);
    set_last_error("ropewalk: encoding is NULL");
    return otherwise;
}

const double not_a_number = std::numeric_limits<double>::quiet_NaN();

}  // namespace

layout_kind as_layout(const char* name, std::int32_t value) {
    RW_EXPECTS(value == ROPEWALK_HALF_SPLIT || value == ROPEWALK_INTERLEAVED,
               "{} must be ROPEWALK_HALF_SPLIT (1) or ROPEWALK_INTERLEAVED (2), got {}", name, value);
    return value == ROPEWALK_HALF_SPLIT ? layout_kind::half_split : layout_kind::interleaved;
}

}  // namespace ropewalk::c_interface

using namespace ropewalk::c_interface;  // NOLINT(google-build-using-namespace): C functions have no namespace
namespace rw = ropewalk;

#define ROPEWALK_TEXT_(value) #value
#define ROPEWALK_TEXT(value) ROPEWALK_TEXT_(value)

const char* ropewalk_version(void) {
    return ROPEWALK_TEXT(ROPEWALK_VERSION_MAJOR) "." ROPEWALK_TEXT(ROPEWALK_VERSION_MINOR) "." ROPEWALK_TEXT(
        ROPEWALK_VERSION_PATCH);
}

const char* ropewalk_last_error(void) { return last_error; }

const char* ropewalk_instruction_set(void) {
    const char* name = nullptr;
    (void)guarded([&] { name = rw::dispatch::instruction_set().data(); });
    return name;
}

const char* ropewalk_tuning_profile(void) {
    const char* name = nullptr;
    (void)guarded([&] { name = rw::dispatch::tuning_profile().name.data(); });
    return name;
}

const char* ropewalk_available_instruction_set(int index) {
    const char* name = nullptr;
    (void)guarded([&] {
        const auto names = rw::dispatch::instruction_sets();
        if (index >= 0 && index < std::ssize(names)) name = names[static_cast<std::size_t>(index)].data();
    });
    return name;
}

int ropewalk_encoding_create(const ropewalk_geometry* geometry, const char* expression, ropewalk_encoding** encoding) {
    return create("encoding", encoding, [&] {
        const rw::Geometry given = as_geometry(geometry);
        return with_layout(rw::dispatch::make_encoding(given, &required("expression", expression)));
    });
}

int ropewalk_encoding_from_config(const char* config_json, const ropewalk_config_choices* choices,
                                  ropewalk_encoding** encoding) {
    return create("encoding", encoding, [&] {
        const char* const text = &required("config_json", config_json);
        return with_layout(
            read_config(text, choices == nullptr ? ropewalk_config_choices{} : read("choices", choices)));
    });
}

void ropewalk_encoding_destroy(ropewalk_encoding* encoding) { delete encoding; }

int64_t ropewalk_encoding_pairs(const ropewalk_encoding* encoding) {
    return property(encoding, std::int64_t{-1}, [](const auto& e) { return e.encoding.pairs(); });
}

int64_t ropewalk_encoding_head_dim(const ropewalk_encoding* encoding) {
    return property(encoding, std::int64_t{-1}, [](const auto& e) { return e.encoding.geometry.head_dim; });
}

int ropewalk_encoding_layout(const ropewalk_encoding* encoding) {
    return property(encoding, -1, [](const auto& e) -> int {
        return e.layout == rw::layout_kind::half_split ? ROPEWALK_HALF_SPLIT : ROPEWALK_INTERLEAVED;
    });
}

double ropewalk_encoding_attention_factor(const ropewalk_encoding* encoding) {
    return property(encoding, not_a_number, [](const auto& e) { return e.encoding.attention_factor; });
}

double ropewalk_encoding_softmax_factor(const ropewalk_encoding* encoding) {
    return property(encoding, not_a_number, [](const auto& e) { return e.encoding.softmax_factor; });
}

const char* ropewalk_encoding_expression(const ropewalk_encoding* encoding) {
    return property<const char*>(encoding, nullptr, [](const auto& e) { return e.encoding.expression.c_str(); });
}

int ropewalk_encoding_inv_freq(const ropewalk_encoding* encoding, double* inv_freq, int64_t count) {
    return guarded([&] {
        const auto& values = required("encoding", encoding).encoding.inv_freq;
        (void)required("inv_freq", inv_freq);
        RW_EXPECTS(count == std::ssize(values), "inv_freq has {} elements, the encoding has {} pairs", count,
                   values.size());
        std::copy(values.begin(), values.end(), inv_freq);
    });
}

int ropewalk_rotate(const ropewalk_view* q, const ropewalk_view* k, const ropewalk_encoding* encoding,
                    const ropewalk_positions* positions, const ropewalk_options* options) {
    return guarded([&] {
        RW_EXPECTS(q != nullptr || k != nullptr, "q and k are both NULL");
        const rw::tensor queries = as_tensor("q", q), keys = as_tensor("k", k);
        rotate(queries, keys, queries, keys, encoding, positions, options);
    });
}

int ropewalk_rotate_to(const ropewalk_view* q, const ropewalk_view* k, const ropewalk_view* q_out,
                       const ropewalk_view* k_out, const ropewalk_encoding* encoding,
                       const ropewalk_positions* positions, const ropewalk_options* options) {
    return guarded([&] {
        RW_EXPECTS(q != nullptr || k != nullptr, "q and k are both NULL");
        expect_both("q", q, "q_out", q_out);
        expect_both("k", k, "k_out", k_out);
        const rw::tensor queries = as_tensor("q", q), keys = as_tensor("k", k);
        rotate(queries, keys, as_tensor("q_out", q_out), as_tensor("k_out", k_out), encoding, positions, options);
    });
}

int ropewalk_rerotate(const ropewalk_view* k, const ropewalk_view* k_out, const ropewalk_encoding* source,
                      const ropewalk_positions* source_positions, const ropewalk_encoding* target,
                      const ropewalk_positions* target_positions, const ropewalk_options* options) {
    return guarded([&] {
        (void)required("k", k);
        const rw::tensor keys = as_tensor("k", k), output = k_out == nullptr ? keys : as_tensor("k_out", k_out);
        const auto& [from, from_layout] = required("source", source);
        const rw::positions before = as_positions("source_positions", source_positions);
        const auto& [to, layout] = required("target", target);
        const rw::positions after = as_positions("target_positions", target_positions);
        rw::dispatch::rerotate(layout, keys, output, from, before, to, after, threads_of(options));
    });
}

int ropewalk_cos_sin(const ropewalk_encoding* encoding, const ropewalk_positions* positions, int64_t tokens,
                     int64_t columns, float* cos, float* sin, const ropewalk_options* options) {
    return guarded([&] {
        const auto& [target, layout] = required("encoding", encoding);
        const rw::positions given = as_positions("positions", positions);
        (void)required("cos", cos), (void)required("sin", sin);
        // The caller states that both hold tokens · columns floats.
        constexpr std::size_t any_size = std::numeric_limits<std::ptrdiff_t>::max() / sizeof(float);
        rw::dispatch::cos_sin(layout, target, given, tokens, columns, {cos, any_size}, {sin, any_size},
                              threads_of(options));
    });
}

int ropewalk_prepare(const ropewalk_view* q, const ropewalk_view* k, const ropewalk_view* q_out,
                     const ropewalk_view* k_out, const ropewalk_encoding* encoding, const ropewalk_options* options,
                     ropewalk_prepared** prepared) {
    return create("prepared", prepared, [&] {
        RW_EXPECTS(q != nullptr || k != nullptr, "q and k are both NULL");
        RW_EXPECTS(q != nullptr || q_out == nullptr, "q is NULL but q_out is not");
        RW_EXPECTS(k != nullptr || k_out == nullptr, "k is NULL but k_out is not");
        const rw::tensor queries = as_tensor("q", q), keys = as_tensor("k", k);
        const rw::tensor queries_out = q_out == nullptr ? queries : as_tensor("q_out", q_out);
        const rw::tensor keys_out = k_out == nullptr ? keys : as_tensor("k_out", k_out);
        const auto& [target, layout] = required("encoding", encoding);
        return ropewalk_prepared{
            rw::dispatch::prepare(layout, queries, keys, queries_out, keys_out, target, as_options(options))};
    });
}

void ropewalk_prepared_destroy(ropewalk_prepared* prepared) { delete prepared; }

int ropewalk_prepared_run(ropewalk_prepared* prepared, void* q, void* k, int64_t position) {
    return run(prepared, {q, k}, position);
}

int ropewalk_prepared_run_to(ropewalk_prepared* prepared, const void* q, const void* k, void* q_out, void* k_out,
                             int64_t position) {
    return run_to(prepared, {q, k, q_out, k_out}, position);
}

int ropewalk_prepared_run_ids(ropewalk_prepared* prepared, void* q, void* k, const int64_t* ids, int64_t count) {
    return with_ids(ids, count, [&](auto positions) { return run(prepared, {q, k}, positions); });
}

int ropewalk_prepared_run_ids_to(ropewalk_prepared* prepared, const void* q, const void* k, void* q_out, void* k_out,
                                 const int64_t* ids, int64_t count) {
    return with_ids(ids, count, [&](auto positions) { return run_to(prepared, {q, k, q_out, k_out}, positions); });
}
