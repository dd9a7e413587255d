// Rotation as a handler of XLA's foreign-function interface, which JAX calls on the CPU without Python.

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include <ropewalk/dispatch.hpp>
#include "arguments.hpp"
#include "bindings.hpp"

namespace ropewalk::python {

namespace {

/// The part of the interface that a handler without state needs: memory layouts of XLA's documented C interface,
/// version 0.1. Later versions of 0 append members only.
namespace xla {

struct extension {
    std::size_t size;
    std::int32_t type;  ///< metadata_type: XLA asks for the version
    extension* next;
};
struct api_version {
    std::size_t size;
    extension* extensions;
    std::int32_t major, minor;
};
struct metadata {
    std::size_t size;
    api_version version;
    std::uint32_t traits;
};
struct metadata_extension {
    extension head;
    metadata* value;
};
struct error;
struct error_arguments {
    std::size_t size;
    extension* extensions;
    const char* message;
    std::int32_t code;
};
struct functions {
    std::size_t size;
    extension* extensions;
    api_version version;
    const void* internal;
    error* (*make_error)(error_arguments*);
};
struct buffer {
    std::size_t size;
    extension* extensions;
    std::int32_t type;
    void* data;
    std::int64_t rank;
    const std::int64_t* dims;
};
struct text {
    const char* data;
    std::size_t size;
};
struct scalar {
    std::int32_t type;
    const void* value;
};
struct buffers {
    std::size_t size;
    extension* extensions;
    std::int64_t count;
    const std::int32_t* types;
    buffer** items;
};
struct attributes {
    std::size_t size;
    extension* extensions;
    std::int64_t count;
    const std::int32_t* types;
    text** names;
    void** items;
};
struct call {
    std::size_t size;
    extension* extensions;
    const functions* api;
    void* context;
    std::int32_t stage;
    buffers arguments, results;
    attributes named;
};

constexpr std::int32_t metadata_type = 1, scalar_type = 3, text_type = 4, execute = 3, invalid_argument = 3;
constexpr std::int32_t s32 = 4, s64 = 5, f16 = 10, f32 = 11, f64 = 12, bf16 = 16;

/// Returns the attribute, which the Python function always passes with this type.
const void* attribute(const call& frame, std::string_view name, std::int32_t type) {
    const attributes& all = frame.named;
    for (std::int64_t i = 0; i < all.count; ++i)
        if (std::string_view(all.names[i]->data, all.names[i]->size) == name && all.types[i] == type)
            return all.items[i];
    detail::fail("the call lacks the attribute '{}'", name);
}
std::string text_attribute(const call& frame, std::string_view name) {
    const auto& value = *static_cast<const text*>(attribute(frame, name, text_type));
    return {value.data, value.size};
}
std::int64_t integer_attribute(const call& frame, std::string_view name) {
    const auto& value = *static_cast<const scalar*>(attribute(frame, name, scalar_type));
    RW_EXPECTS(value.type == s64, "the attribute '{}' is no 64-bit integer", name);
    return *static_cast<const std::int64_t*>(value.value);
}

}  // namespace xla

/// The encoding of a key. Encodings are kept, because making one takes longer than rotating a token. Each draw of
/// randomized positions has its own key, so the number of encodings is limited.
std::shared_ptr<const Encoding> known_encoding(const std::string& key) {
    constexpr std::size_t limit = 1024;
    static std::mutex mutex;
    static std::map<std::string, std::shared_ptr<const Encoding>> known;
    const std::scoped_lock lock(mutex);
    if (known.size() >= limit) known.clear();
    std::shared_ptr<const Encoding>& encoding = known[key];
    if (encoding == nullptr) encoding = std::make_shared<const Encoding>(encoding_of_key(key));
    return encoding;
}

element_type element_of(std::int32_t type) {
    switch (type) {
        case xla::f32:
            return element_type::f32;
        case xla::f16:
            return element_type::f16;
        case xla::bf16:
            return element_type::bf16;
        default:
            RW_EXPECTS(type == xla::f64, "expected float32, float16, bfloat16 or float64, got XLA's type {}", type);
            return element_type::f64;
    }
}

/// A contiguous buffer with leading axes of vmap in front of the axes that `order` names.
class stacked {
public:
    stacked(const xla::buffer& memory, std::string_view order) : axes_(static_cast<std::int64_t>(order.size())) {
        RW_EXPECTS(memory.rank >= axes_, "an array has {} axes, but the order '{}' names {}", memory.rank, order,
                   axes_);
        for (std::int64_t i = 0; i < memory.rank - axes_; ++i) count_ *= memory.dims[i];
        first_ = {.data = memory.data, .type = element_of(memory.type)};
        std::int64_t stride = 1;
        for (auto axis = order.size(); axis-- > 0;) {
            const std::int64_t extent = memory.dims[memory.rank - axes_ + static_cast<std::int64_t>(axis)];
            switch (order[axis]) {
                case 'b':
                    first_.batch = extent, first_.stride_batch = stride;
                    break;
                case 't':  // thd
                case 's':
                    first_.tokens = extent, first_.stride_token = stride;
                    break;
                case 'h':
                    first_.heads = extent, first_.stride_head = stride;
                    break;
                default:
                    first_.head_dim = extent;
            }
            stride *= extent;
        }
        bytes_ = stride * static_cast<std::int64_t>(size_of(first_.type));
    }
    [[nodiscard]] std::int64_t count() const { return count_; }
    [[nodiscard]] tensor at(std::int64_t index) const {
        tensor t = first_;
        t.data = static_cast<char*>(first_.data) + index * bytes_;
        return t;
    }

private:
    tensor first_;
    std::int64_t axes_, count_ = 1, bytes_ = 0;
};

/// Positions [3 or 1, batch or 1, tokens] after the leading axes of vmap.
positions positions_at(const xla::buffer& memory, std::int64_t index) {
    RW_EXPECTS(memory.rank >= 3 && (memory.type == xla::s32 || memory.type == xla::s64),
               "positions must be int32 or int64 with 3 axes");
    const std::int64_t* const dims = memory.dims + memory.rank - 3;
    const bool narrow = memory.type == xla::s32;
    positions p;
    p.source = narrow ? positions::kind::ids32 : positions::kind::ids64;
    p.data = static_cast<const char*>(memory.data) + index * dims[0] * dims[1] * dims[2] * (narrow ? 4 : 8);
    p.count = p.stride_row = dims[2];
    p.rows = dims[1];
    p.axes = dims[0], p.stride_axis = dims[1] * dims[2];
    return p;
}

void run(const xla::call& frame) {
    const auto known = known_encoding(xla::text_attribute(frame, "encoding"));
    const Encoding& encoding = *known;
    const std::string order = xla::text_attribute(frame, "order"), given = xla::text_attribute(frame, "given");
    const bool has_q = given.starts_with("q"), has_k = given.ends_with("k");
    const std::int64_t tensors = has_q + has_k, offset = xla::integer_attribute(frame, "offset");
    const bool has_ids = frame.arguments.count > tensors;
    cpu::options options;
    options.direction = static_cast<direction>(xla::integer_attribute(frame, "direction"));
    options.threads = static_cast<int>(xla::integer_attribute(frame, "threads"));
    const auto view = [&](const xla::buffers& all, bool is_k) {
        return stacked(*all.items[is_k && has_q ? 1 : 0], order);
    };
    const stacked like = view(frame.arguments, !has_q);
    for (std::int64_t i = 0; i < like.count(); ++i) {
        const auto tensor_at = [&](const xla::buffers& all, bool exists, bool is_k) {
            return exists ? view(all, is_k).at(i) : tensor{};
        };
        const tensor q = tensor_at(frame.arguments, has_q, false), k = tensor_at(frame.arguments, has_k, true);
        if (like.at(i).elements() == 0) return;
        dispatch::rotate(
            *encoding.geometry.layout, q, k, tensor_at(frame.results, has_q, false),
            tensor_at(frame.results, has_k, true), encoding,
            has_ids ? positions_at(*frame.arguments.items[tensors], i) : positions(ropewalk::offset{offset}), options);
    }
}

/// The handler. XLA calls it from its own threads, without the interpreter's lock.
xla::error* handle(xla::call* frame) {
    if (frame->extensions != nullptr && frame->extensions->type == xla::metadata_type) {
        xla::metadata& asked = *reinterpret_cast<xla::metadata_extension*>(frame->extensions)->value;
        asked.version.major = 0, asked.version.minor = 1;
        asked.traits = 0;
        return nullptr;
    }
    std::string problem;
    try {
        if (frame->stage == xla::execute) run(*frame);
        return nullptr;
    } catch (const std::exception& thrown) {
        problem = thrown.what();
    }
    xla::error_arguments arguments{sizeof(xla::error_arguments), nullptr, problem.c_str(), xla::invalid_argument};
    return frame->api->make_error(&arguments);
}

}  // namespace

void bind_xla(py::module_& m) {
    m.def("xla_handler", [] { return py::capsule(reinterpret_cast<void*>(&handle)); });
}

}  // namespace ropewalk::python
