// The function rerotate_cache_ of the module: cached keys re-encoded in their slots.

#include <optional>

#include <ropewalk/dispatch.hpp>
#include <ropewalk/rotation/rerotate_cache_args.hpp>

#include "arguments.hpp"
#include "bindings.hpp"
#include "caches.hpp"
#include "cuda.hpp"

namespace ropewalk::python {

namespace {

/// The arguments as the package passes them, in its order.
struct python_arguments {
    py::object k_cache;
    py::handle old_encoding, new_encoding, slot_mapping, page_table, kv_indptr, kv_indices, entries, positions, offset,
        new_positions, new_offset, cache_order, cache_dtype, k_scale, threads;
};

/// True if PyTorch must see the call: by an operator.
bool is_for_package(const python_arguments& given) {
    const py::handle all[] = {given.k_cache, given.slot_mapping, given.page_table,    given.kv_indptr, given.kv_indices,
                              given.entries, given.positions,    given.new_positions, given.k_scale};
    bool with_torch = false;
    for (const py::handle each : all) {
        if (!is_torch_tensor(each)) continue;
        if (needs_operator(each)) return true;
        with_torch = true;
    }
    return with_torch && torch_observes();
}

/// Batch rows and tokens of an argument with one number per token; nothing for None and for one number.
std::optional<std::array<std::int64_t, 2>> extents_of(py::handle object, const char* name) {
    if (object.is_none() || (PyIndex_Check(object.ptr()) != 0 && !is_array(object))) return std::nullopt;
    const py::object numbers = is_array(object) ? py::reinterpret_borrow<py::object>(object) : as_numpy(object, name);
    const array a = read_array(numbers, name);
    RW_EXPECTS(a.axes >= 1 && a.axes <= 3, "{}: expected [tokens] or [batch, tokens]", describe(a, name));
    const auto last = static_cast<std::size_t>(a.axes - 1);
    return std::array{a.axes == 1 ? std::int64_t{1} : a.shape[last - 1], a.shape[last]};
}

/// One call: reads the arguments, and runs them.
class rerotate_cache_call {
public:
    explicit rerotate_cache_call(const python_arguments& given) : given_(given) {
        // Numbers first: `__index__` may move an array.
        const bool stays = given.new_positions.is_none() && given.new_offset.is_none();
        const std::int64_t first = as_offset(given.offset);
        const std::int64_t new_first = !given.new_offset.is_none() ? as_offset(given.new_offset, "new_offset")
                                       : stays                     ? first
                                                                   : 0;
        if (PyIndex_Check(given.entries.ptr()) != 0 && !is_array(given.entries))
            first_entry_ = as_int64(given.entries, "entries");
        threads_ = thread_count(given.threads);
        read_encodings();
        read_cache();
        read_tokens();
        source_.emplace(*args_.source, given.positions, first, py::none(), like_, &tokens_, py::none());
        target_.emplace(*args_.target, stays ? given.positions : given.new_positions, new_first, py::none(), like_,
                        &tokens_, py::none(), stays ? "positions" : "new_positions");
        args_.source_positions = source_->value, args_.target_positions = target_->value;
        read_slots();
        check_unmoved(cache_, "k_cache");
        check_unmoved(source_->source, "positions");
        check_unmoved(target_->source, "new_positions");
        for (const auto& [memory, name] :
             {std::pair{&scale_, "k_scale"}, {&first_list_, "slots"}, {&pages_, "kv_indices"}})
            if (memory->source) check_unmoved(*memory, name);
    }

    void run() {
        if (!cache_.on_host()) return run_rerotate_cache_on_device(cache_, args_);
        const py::gil_scoped_release released;
        dispatch::rerotate_cache(args_, threads_);
    }

    void count_writes() const {
        count_write(given_.k_cache, py::none());
        if (args_.keys.type == cache_type::i8 && is_torch_tensor(given_.k_scale))
            count_write(given_.k_scale, py::none());
    }

private:
    void read_encodings() {
        const Encoding& source = as_encoding(given_.old_encoding, "old_encoding");
        const Encoding& target = as_encoding(given_.new_encoding, "new_encoding");
        args_.source = &source, args_.target = &target, args_.layout = *target.geometry.layout;
        RW_EXPECTS(source.geometry.layout == target.geometry.layout,
                   "old_encoding is for {}, but new_encoding is for {}", to_string(*source.geometry.layout),
                   to_string(args_.layout));
    }

    void read_cache() {
        const std::string_view order = as_text(given_.cache_order, "cache_order"),
                               dtype = read_cache_dtype(given_.cache_dtype);
        RW_EXPECTS(order == "nhd" || order == "hnd", "cache_order must be 'nhd' or 'hnd', got '{}'", order);
        RW_EXPECTS(!given_.k_cache.is_none(), "k_cache is None");
        // `__float__` may move an array, so that the number is read before addresses.
        const bool is_number = !given_.k_scale.is_none() && !is_array(given_.k_scale);
        const float number = is_number ? static_cast<float>(as_double(given_.k_scale, "k_scale")) : 1.0F;
        cache_ = read_array(given_.k_cache, "k_cache");
        check_writable(cache_, "k_cache", "rerotate_cache_");
        check_gradient(cache_, "k_cache", "rerotate_cache_");
        const bool one_head = cache_.axes == 3;  // a cache of multi-head latent attention
        const head_axes axes = axes_of_cache(cache_, "k_cache", order, one_head);
        args_.keys = cache_over(cache_, "k_cache", axes, cache_type_of(cache_, "k_cache", dtype));
        read_scale(axes, is_number, number);
    }

    /// The divisor of 8-bit floats, or the scales of int8 heads.
    void read_scale(const head_axes& axes, bool is_number, float number) {
        cache_tensor& keys = args_.keys;
        const bool by_head = keys.type == cache_type::i8;
        RW_EXPECTS(!by_head || (!given_.k_scale.is_none() && !is_number),
                   "int8 heads need k_scale, an array of float32 of the shape of k_cache without its last axis");
        if (given_.k_scale.is_none()) return;
        RW_EXPECTS(by_head || is_f8(keys.type), "k_scale is given, but k_cache has no elements of 8 bits");
        keys.scale = number;
        if (is_number) return;
        scale_ = read_array(given_.k_scale, "k_scale");
        RW_EXPECTS(scale_.type == number::f32, "{}: expected float32", describe(scale_, "k_scale"));
        check_device(scale_, "k_scale", cache_);
        if (!by_head) {
            RW_EXPECTS(count_of(scale_) == 1, "{}: 8-bit floats have one scale per cache", describe(scale_, "k_scale"));
            keys.scale_at = static_cast<const float*>(scale_.data);
            return;
        }
        check_writable(scale_, "k_scale", "rerotate_cache_");
        check_gradient(scale_, "k_scale", "rerotate_cache_");
        RW_EXPECTS(scale_.axes == cache_.axes - 1 &&
                       std::equal(scale_.shape.begin(), scale_.shape.begin() + scale_.axes, cache_.shape.begin()),
                   "{} does not have the shape of {} without its last axis", describe(scale_, "k_scale"),
                   describe(cache_, "k_cache"));
        const cache_tensor scales = cache_over(with_element_axis(scale_), "k_scale", axes, cache_type::f32);
        keys.scales = static_cast<float*>(scales.data);
        keys.scale_stride_page = scales.stride_page;
        keys.scale_stride_token = scales.stride_token;
        keys.scale_stride_head = scales.stride_head;
    }

    /// The extents of the call: those of the first argument with one number per token.
    void read_tokens() {
        const char* from = nullptr;
        for (const auto& [object, name] : {std::pair{given_.slot_mapping, "slot_mapping"},
                                           {given_.entries, "entries"},
                                           {given_.positions, "positions"},
                                           {given_.new_positions, "new_positions"}}) {
            const auto extents = extents_of(object, name);
            if (!extents) continue;
            const auto [batch, tokens] = *extents;
            if (from == nullptr) {
                from = name, args_.at.batch = batch, args_.at.tokens = tokens;
            } else {
                RW_EXPECTS(tokens == args_.at.tokens, "{} has {} tokens but {} has {}", name, tokens, from,
                           args_.at.tokens);
            }
        }
        RW_EXPECTS(
            from != nullptr,
            "the number of tokens is unknown; pass slot_mapping, entries or positions with one number per token");
        like_ = cache_;
        like_.axes = args_.at.batch > 1 ? 4 : 3;
        tokens_ = {.data = cache_.data, .batch = args_.at.batch, .tokens = args_.at.tokens};
    }

    const array& read_list(py::handle object, const char* name, array& memory, bool wide) {
        memory = read_indices(object, name, cache_, wide ? 2 : 1, wide);
        RW_EXPECTS(memory.is_contiguous() || memory.is_empty(), "{} must be contiguous", describe(memory, name));
        return memory;
    }

    void read_slots() {
        const bool mapped = !given_.slot_mapping.is_none(), tabled = !given_.page_table.is_none(),
                   listed = !given_.kv_indptr.is_none();
        RW_EXPECTS(static_cast<int>(mapped) + static_cast<int>(tabled) + static_cast<int>(listed) <= 1,
                   "slot_mapping, page_table and kv_indptr exclude each other; pass one of them");
        RW_EXPECTS(listed == !given_.kv_indices.is_none(), "kv_indptr and kv_indices need each other");
        RW_EXPECTS(!mapped || given_.entries.is_none(),
                   "slot_mapping has the slots of the tokens already; drop entries");
        cache_slots& slots = args_.at.slots;
        if (mapped) {
            slots = slots_by_mapping(read_list(given_.slot_mapping, "slot_mapping", first_list_, true));
        } else if (tabled) {
            first_list_ = read_indices(given_.page_table, "page_table", cache_, 2, false);
            slots = slots_by_page_table(first_list_, read_entries());
        } else if (listed) {
            const array &starts = read_list(given_.kv_indptr, "kv_indptr", first_list_, false),
                        &pages = read_list(given_.kv_indices, "kv_indices", pages_, false);
            const auto list = [](const array& a) {
                return std::span(static_cast<const std::int32_t*>(a.data), static_cast<std::size_t>(a.shape[0]));
            };
            slots = by_page_list(list(starts), list(pages), read_entries());
        } else {
            slots = by_sequence(read_entries());
        }
    }

    /// The entry of each token in its sequence: by default its old position.
    positions read_entries() {
        static const Encoding plain;
        const py::handle none(Py_None);
        const py::handle ids = first_entry_ ? none : given_.entries.is_none() ? given_.positions : given_.entries;
        entries_.emplace(plain, ids, first_entry_.value_or(ids.is_none() ? as_offset(given_.offset) : 0), none, like_,
                         &tokens_, none, "entries");
        return entries_->value;
    }

    const python_arguments& given_;
    rerotate_cache_args args_;
    array cache_, scale_, first_list_, pages_;
    array like_;     ///< the cache, with as many axes as keys of the tokens have
    tensor tokens_;  ///< the extents of the call
    std::optional<token_positions> source_, target_, entries_;
    std::optional<std::int64_t> first_entry_;
    int threads_ = 0;
};

/// Returns NotImplemented if PyTorch must see the call and it is not inside an operator.
py::object rerotate_cache(py::object k_cache, py::handle old_encoding, py::handle new_encoding, py::handle slot_mapping,
                          py::handle page_table, py::handle kv_indptr, py::handle kv_indices, py::handle entries,
                          py::handle positions, py::handle offset, py::handle new_positions, py::handle new_offset,
                          py::handle cache_order, py::handle cache_dtype, py::handle k_scale, py::handle threads,
                          bool inside_operator) {
    const python_arguments given{
        std::move(k_cache), old_encoding, new_encoding,  slot_mapping, page_table,  kv_indptr,   kv_indices, entries,
        positions,          offset,       new_positions, new_offset,   cache_order, cache_dtype, k_scale,    threads};
    if (!inside_operator && is_for_package(given)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    rerotate_cache_call call(given);
    call.run();
    call.count_writes();
    return given.k_cache;
}

}  // namespace

void bind_rerotate_cache(py::module_& m) { m.def("rerotate_cache_", &rerotate_cache); }

}  // namespace ropewalk::python
