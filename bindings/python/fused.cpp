// The function fused of the module: norms, rotation, caches and quantised outputs in one call.

#include <optional>
#include <utility>

#include <ropewalk/dispatch.hpp>
#include <ropewalk/rotation/fused_args.hpp>

#include "arguments.hpp"
#include "bindings.hpp"
#include "caches.hpp"
#include "cuda.hpp"
#include "order.hpp"

namespace ropewalk::python {

namespace {

/// The arguments as the package passes them: a tuple in the order of `Arguments` in _fused.py. Those of q, k and v
/// follow each other.
enum class argument : std::uint8_t {
    q_out,  // written, like k_out, v_out and the caches
    k_out,
    v_out,
    q_cache,  // None
    k_cache,
    v_cache,
    q,  // None: in place
    k,
    v,
    q_scale,  // of what is stored; the scales of int8 heads are written
    k_scale,
    v_scale,
    encoding,
    positions,
    offset,
    cu_seqlens,
    order,
    table,
    q_weight,
    k_weight,
    epsilon,
    one_plus,
    slot_mapping,
    page_table,
    kv_indptr,
    kv_indices,
    last_page_len,
    entries,
    cache_order,
    cache_dtype,
    latent,  // k_cache has one head per token: v, then k
    threads,
    count
};
constexpr auto argument_count = static_cast<std::size_t>(argument::count);
constexpr std::array<const char*, argument_count> argument_names{"out of q",
                                                                 "out of k",
                                                                 "out of v",
                                                                 "q_cache",
                                                                 "k_cache",
                                                                 "v_cache",
                                                                 "q",
                                                                 "k",
                                                                 "v",
                                                                 "q_scale",
                                                                 "k_scale",
                                                                 "v_scale",
                                                                 "encoding",
                                                                 "positions",
                                                                 "offset",
                                                                 "cu_seqlens",
                                                                 "order",
                                                                 "table",
                                                                 "q_weight",
                                                                 "k_weight",
                                                                 "epsilon",
                                                                 "one_plus",
                                                                 "slot_mapping",
                                                                 "page_table",
                                                                 "kv_indptr",
                                                                 "kv_indices",
                                                                 "last_page_len",
                                                                 "entries",
                                                                 "cache_order",
                                                                 "cache_dtype",
                                                                 "latent",
                                                                 "threads"};

/// The argument of side 0 (q), 1 (k) or 2 (v) for that of q.
constexpr argument of_side(argument of_q, std::size_t side) {
    return static_cast<argument>(static_cast<std::size_t>(of_q) + side);
}
constexpr argument of_side(argument of_q, int side) { return of_side(of_q, static_cast<std::size_t>(side)); }

struct python_arguments {
    std::array<py::handle, argument_count> all;

    explicit python_arguments(const py::tuple& given) {
        RW_EXPECTS(given.size() == all.size(), "a fused call has {} arguments, got {}", all.size(), given.size());
        for (std::size_t i = 0; i < all.size(); ++i) all[i] = PyTuple_GET_ITEM(given.ptr(), static_cast<Py_ssize_t>(i));
    }
    py::handle operator[](argument a) const { return all[static_cast<std::size_t>(a)]; }
    [[nodiscard]] bool has(argument a) const { return !(*this)[a].is_none(); }
};

/// True if PyTorch must see the call: by an operator.
bool is_for_package(const python_arguments& given) {
    bool with_torch = false;
    for (const py::handle each : given.all) {
        if (!is_torch_tensor(each)) continue;
        if (needs_operator(each)) return true;
        with_torch = true;
    }
    return with_torch && torch_observes();
}

/// A cache of which the axes are those of queries or keys.
cache_tensor output_over(const array& a, const char* name, py::handle order, cache_type type) {
    array floats = a;  // as_tensor() refuses other types
    floats.type = number::f32;
    const tensor t = as_tensor(floats, name, order);
    cache_tensor output = cache_over(a, name, {-1, -1, -1}, type);
    output.pages = t.batch, output.page_size = t.tokens, output.heads = t.heads;
    output.stride_page = t.stride_batch, output.stride_token = t.stride_token, output.stride_head = t.stride_head;
    return output;
}

/// One call: reads the arguments into fused_args, and runs them.
class fused_call {
public:
    fused_call(const python_arguments& given, bool may_warn) : given_(given) {
        read_numbers();
        for (int side = 0; side < 3; ++side) read_heads(side);
        for (int side = 0; side < 3; ++side) view_heads(side);
        const array &q = memory(argument::q), &k = memory(argument::k);
        RW_EXPECTS(q.source || k.source, "q and k are both None; pass at least one of them");
        like_ = q.source ? argument::q : argument::k;
        const bool warned = check_order(q, latent_ ? array{} : k, order(), may_warn);
        read_encoding();
        read_caches();
        for (int side = 0; side < 3; ++side) read_output(side);
        for (int side = 0; side < 3; ++side) read_scale(side);
        read_norm(argument::q_weight, args_.with.q_norm);
        read_norm(argument::k_weight, args_.with.k_norm);
        read_slots();
        if (latent_ && args_.v_in.exists()) args_.with.cache = mla_cache(args_.with.cache.k, args_.v_in.head_dim);
        for (std::size_t i = 0; i < memory_.size(); ++i)
            if (memory_[i].source) check_device(memory_[i], name_of(static_cast<argument>(i)), memory(like_));
        if (warned || ran_python()) check_all_unmoved();
    }

    void run() {
        const array& like = memory(like_);
        if (!like.on_host()) return run_fused_on_device(like, args_);
        constexpr std::int64_t quick_elements = 16 * 1024;
        std::optional<py::gil_scoped_release> released;
        if (args_.rotation.q_in.elements() > quick_elements || args_.rotation.k_in.elements() > quick_elements)
            released.emplace();
        dispatch::fused(args_, threads_);
    }

    /// Tells autograd which tensors have been written.
    void count_writes() const {
        for (const argument a :
             {argument::q_out, argument::k_out, argument::v_out, argument::k_cache, argument::v_cache})
            if (is_torch_tensor(given_[a])) count_write(given_[a], py::none());
        for (std::size_t side = 0; side < 3; ++side)
            if (writes_scales_[side]) count_write(given_[of_side(argument::q_scale, side)], py::none());
    }

private:
    /// The name of an argument for messages.
    [[nodiscard]] const char* name_of(argument a) const {
        if (latent_) {
            switch (a) {
                case argument::q:
                case argument::q_out:
                    return "q_rope";
                case argument::k:
                    return "k_rope";
                case argument::v:
                    return "latent";
                case argument::k_cache:
                    return "cache";
                case argument::k_scale:
                    return "scale";
                default:
                    break;
            }
        }
        const auto index = static_cast<std::size_t>(a);
        return argument_names[index];
    }
    [[nodiscard]] array& memory(argument a) { return memory_[static_cast<std::size_t>(a)]; }
    [[nodiscard]] py::handle order() const { return given_[argument::order]; }
    [[nodiscard]] tensor& input(int side) {
        return side == 0 ? args_.rotation.q_in : side == 1 ? args_.rotation.k_in : args_.v_in;
    }
    [[nodiscard]] tensor& output(int side) {
        return side == 0 ? args_.rotation.q_out : side == 1 ? args_.rotation.k_out : args_.v_out;
    }
    /// Where the results of a side may be stored in a type of caches: its quantised output, and its cache.
    [[nodiscard]] std::array<cache_tensor*, 2> stores(int side) {
        quantised_outputs& outputs = args_.with.quantised;
        if (side == 0) return {&outputs.q, nullptr};
        return side == 1 ? std::array{&outputs.k, &args_.with.cache.k} : std::array{&outputs.v, &args_.with.cache.v};
    }

    const array& read(argument a, bool writes = false) {
        array& read = memory(a);
        read = read_array(given_[a], name_of(a));
        RW_EXPECTS(!writes || read.writable, "{} is read-only and the call would write it; pass writable memory",
                   describe(read, name_of(a)));
        return read;
    }

    /// Numbers first: `__index__` may move an array.
    void read_numbers() {
        latent_ = as_bool(given_[argument::latent], "latent");
        first_ = as_token_offset(given_[argument::offset]);
        const py::handle entries = given_[argument::entries];
        has_first_entry_ = PyIndex_Check(entries.ptr()) != 0 && !is_array(entries);
        if (has_first_entry_) first_entry_ = as_int64(entries, "entries");
        threads_ = thread_count(given_[argument::threads]);
        epsilon_ = as_double(given_[argument::epsilon], "epsilon");
        one_plus_ = as_bool(given_[argument::one_plus], "one_plus");
        cache_dtype_ = read_cache_dtype(given_[argument::cache_dtype]);
        cache_order_ = as_text(given_[argument::cache_order], "cache_order");
        RW_EXPECTS(cache_order_ == "nhd" || cache_order_ == "hnd", "cache_order must be 'nhd' or 'hnd', got '{}'",
                   cache_order_);
        for (std::size_t side = 0; side < 3; ++side) {
            const argument a = of_side(argument::q_scale, side);
            if (!given_.has(a)) continue;
            const py::handle scale = given_[a];
            // NumPy's numbers have no address that outlives the reading.
            scale_is_array_[side] =
                is_torch_tensor(scale) || (is_array(scale) && read_array(scale, name_of(a)).axes > 0);
            if (!scale_is_array_[side]) scales_[side] = static_cast<float>(as_double(scale, name_of(a)));
        }
    }

    void read_heads(int side) {
        const argument in = of_side(argument::q, side), out = of_side(argument::q_out, side);
        if (!given_.has(in) && !given_.has(out)) return;
        memory(in) = read_array(given_.has(in) ? given_[in] : given_[out], name_of(in));
    }

    void view_heads(int side) {
        const argument in = of_side(argument::q, side);
        array a = memory(in);
        if (!a.source) return;
        if (latent_ && side > 0) insert_head(a);
        input(side) = as_tensor(a, name_of(in), order());
        RW_EXPECTS(input(side).exists(), "{} has no memory here, like a DTensor or a fake tensor",
                   describe(a, name_of(in)));
    }

    /// Gives an array of one head per token the axis of its heads, if it lacks one.
    void insert_head(array& a) {
        const array &q = memory(argument::q), &v = memory(argument::v);
        const std::string_view names = order().is_none() ? "" : as_text(order(), "order");
        const int axes = !names.empty() ? static_cast<int>(names.size())
                         : q.source     ? q.axes
                         : v.source     ? v.axes + 1
                                        : 3;
        if (a.axes != axes - 1) return;
        const auto at = std::min(names.find('h'), static_cast<std::size_t>(a.axes - 1));
        for (auto i = static_cast<std::size_t>(a.axes); i > at; --i)
            a.shape[i] = a.shape[i - 1], a.strides[i] = a.strides[i - 1];
        a.shape[at] = 1, a.strides[at] = 0;
        ++a.axes;
    }

    [[nodiscard]] const tensor& rotated() { return input(like_ == argument::q ? 0 : 1); }

    void read_encoding() {
        const Encoding& encoding = as_encoding(given_[argument::encoding]);
        args_.rotation.target = &encoding;
        args_.rotation.layout = *encoding.geometry.layout;
        // Next to positions, cu_seqlens only tell the sequences of the pages.
        const bool are_positions = !given_.has(argument::positions) || !has_sequences();
        const py::handle starts = are_positions ? given_[argument::cu_seqlens] : py::handle(Py_None);
        positions_.emplace(encoding, given_[argument::positions], first_, starts, memory(like_), &rotated(), order());
        args_.rotation.target_positions = positions_->value;
        table_ = as_table(given_[argument::table], memory(like_), &encoding);
        args_.rotation.table = table_.value;
    }

    void read_caches() {
        for (int side = 1; side < 3; ++side) {
            const argument a = of_side(argument::q_cache, side);
            if (!given_.has(a)) continue;
            const array& pages = read(a, true);
            const head_axes axes = axes_of_cache(pages, name_of(a), cache_order_, latent_);
            *stores(side)[1] = cache_over(pages, name_of(a), axes, cache_type_of(pages, name_of(a), cache_dtype_));
        }
        RW_EXPECTS(has_cache() || cache_dtype_.empty(), "cache_dtype='{}' is given but no cache", cache_dtype_);
    }
    [[nodiscard]] bool has_cache() const { return given_.has(argument::k_cache) || given_.has(argument::v_cache); }

    void read_output(int side) {
        const argument in = of_side(argument::q, side), out = of_side(argument::q_out, side);
        if (!given_.has(out)) return;
        const array& a = read(out, true);
        if (!given_.has(in) || given_[in].is(given_[out])) {
            output(side) = input(side);
        } else if (a.type == memory(in).type) {
            output(side) = as_tensor(a, name_of(out), order());
        } else {
            *stores(side)[0] = output_over(a, name_of(out), order(), cache_type_of(a, name_of(out), ""));
        }
    }

    /// The divisor of 8-bit floats, or the scales of int8 heads.
    void read_scale(int side) {
        const argument a = of_side(argument::q_scale, side);
        const auto index = static_cast<std::size_t>(side);
        std::vector<cache_tensor*> f8, i8;
        for (cache_tensor* const to : stores(side)) {
            if (to == nullptr || !to->exists()) continue;
            if (is_f8(to->type)) f8.push_back(to);
            if (to->type == cache_type::i8) i8.push_back(to);
        }
        if (!given_.has(a)) {
            RW_EXPECTS(i8.empty(),
                       "{} is missing: int8 heads need an array of float32 scales, of the shape of the heads without "
                       "their last axis",
                       name_of(a));
            return;
        }
        RW_EXPECTS(!f8.empty() || !i8.empty(), "{} is given, but nothing of 8 bits is stored", name_of(a));
        RW_EXPECTS(f8.empty() || i8.empty(), "{} cannot belong to an 8-bit float and to int8; make two calls",
                   name_of(a));
        RW_EXPECTS(i8.size() <= 1, "{} cannot hold the scales of an int8 cache and of an int8 output; make two calls",
                   name_of(a));
        if (!scale_is_array_[index]) {
            RW_EXPECTS(i8.empty(), "{} must be an array of float32 scales, one per int8 head, which the call writes",
                       name_of(a));
            for (cache_tensor* const to : f8) to->scale = scales_[index];
            return;
        }
        const array& scale = read(a, f8.empty());
        RW_EXPECTS(scale.type == number::f32, "{}: expected float32", describe(scale, name_of(a)));
        if (!f8.empty()) {
            RW_EXPECTS(count_of(scale) == 1, "{}: 8-bit floats have one scale per tensor", describe(scale, name_of(a)));
            for (cache_tensor* const to : f8) to->scale_at = static_cast<const float*>(scale.data);
            return;
        }
        const bool in_cache = i8[0] != stores(side)[0];
        read_head_scales(*i8[0], scale, name_of(a),
                         memory(of_side(in_cache ? argument::q_cache : argument::q_out, side)), in_cache);
        writes_scales_[index] = is_torch_tensor(given_[a]);
    }

    void read_head_scales(cache_tensor& to, const array& scales, const char* name, const array& heads, bool in_cache) {
        RW_EXPECTS(scales.axes == heads.axes - 1 &&
                       std::equal(scales.shape.begin(), scales.shape.begin() + scales.axes, heads.shape.begin()),
                   "{} does not have the shape of {} without its last axis", describe(scales, name),
                   describe(heads, in_cache ? "the cache" : "the output"));
        const array ones = with_element_axis(scales);
        const cache_tensor axes =
            in_cache ? cache_over(ones, name, axes_of_cache(heads, name, cache_order_, latent_), cache_type::f32)
                     : output_over(ones, name, order(), cache_type::f32);
        to.scales = static_cast<float*>(axes.data);
        to.scale_stride_page = axes.stride_page;
        to.scale_stride_token = axes.stride_token;
        to.scale_stride_head = axes.stride_head;
    }

    void read_norm(argument a, head_norm& norm) {
        if (!given_.has(a)) return;
        const array& weight = read(a);
        const std::int64_t head_dim = args_.rotation.target->geometry.head_dim;
        RW_EXPECTS(weight.axes == 1 && weight.shape[0] == head_dim,
                   "{}: expected [{}], one weight per element of a head", describe(weight, name_of(a)), head_dim);
        RW_EXPECTS(weight.strides[0] == 1 || head_dim == 1, "{} must be contiguous", describe(weight, name_of(a)));
        const cache_type type = cache_type_of(weight, name_of(a), "");
        RW_EXPECTS(type <= cache_type::bf16, "{}: expected float32, float16 or bfloat16", describe(weight, name_of(a)));
        norm.weight = weight.data;
        norm.type = type == cache_type::f32   ? element_type::f32
                    : type == cache_type::f16 ? element_type::f16
                                              : element_type::bf16;
        norm.epsilon = epsilon_, norm.one_plus = one_plus_;
    }

    [[nodiscard]] bool has_sequences() const {
        return given_.has(argument::page_table) || given_.has(argument::kv_indptr);
    }

    const array& read_indices_of(argument a, int max_axes, bool wide) {
        return memory(a) = read_indices(given_[a], name_of(a), memory(like_), max_axes, wide);
    }
    std::span<const std::int32_t> read_list(argument a) {
        const array& list = read_indices_of(a, 1, false);
        RW_EXPECTS(list.strides[0] == 1 || list.shape[0] <= 1, "{} must be contiguous", describe(list, name_of(a)));
        return {static_cast<const std::int32_t*>(list.data), static_cast<std::size_t>(list.shape[0])};
    }

    void read_slots() {
        check_slot_arguments();
        if (!has_cache()) return;
        cache_slots& slots = args_.with.slots;
        if (given_.has(argument::slot_mapping)) {
            const array& mapping = read_indices_of(argument::slot_mapping, 2, true);
            RW_EXPECTS(mapping.is_contiguous() || mapping.is_empty(), "{} must be contiguous",
                       describe(mapping, "slot_mapping"));
            slots = slots_by_mapping(mapping);
        } else if (given_.has(argument::page_table)) {
            slots = slots_by_page_table(read_indices_of(argument::page_table, 2, false), read_entries());
        } else if (given_.has(argument::kv_indptr)) {
            const auto starts = read_list(argument::kv_indptr), pages = read_list(argument::kv_indices);
            slots = given_.has(argument::last_page_len)
                        ? by_page_list(starts, pages, read_list(argument::last_page_len), read_entries())
                        : by_page_list(starts, pages, read_entries());
        } else {
            slots = by_sequence(read_entries());
        }
    }

    /// Throws for arguments that would otherwise be ignored.
    void check_slot_arguments() const {
        const auto has = [&](argument a) { return given_.has(a); };
        const int kinds = static_cast<int>(has(argument::slot_mapping)) + static_cast<int>(has(argument::page_table)) +
                          static_cast<int>(has(argument::kv_indptr));
        RW_EXPECTS(kinds <= 1, "slot_mapping, page_table and kv_indptr exclude each other; pass one of them");
        for (const argument a : {argument::slot_mapping, argument::page_table, argument::kv_indptr,
                                 argument::kv_indices, argument::last_page_len, argument::entries})
            RW_EXPECTS(has_cache() || !has(a), "{} is given but no cache", name_of(a));
        RW_EXPECTS(has(argument::kv_indptr) == has(argument::kv_indices), "kv_indptr and kv_indices need each other");
        RW_EXPECTS(!has(argument::last_page_len) || has(argument::kv_indptr),
                   "last_page_len needs kv_indptr and kv_indices");
        RW_EXPECTS(!has(argument::slot_mapping) || !has(argument::entries),
                   "slot_mapping has the slots of the tokens already; drop entries");
        RW_EXPECTS(!has(argument::last_page_len) || (has(argument::cu_seqlens) && !has(argument::entries)),
                   "last_page_len has the tokens of a call at the end of their sequences: it needs cu_seqlens and "
                   "excludes entries");
    }

    /// The entry of each token in its sequence: by default its position.
    positions read_entries() {
        const bool ends = given_.has(argument::last_page_len), given = given_.has(argument::entries);
        const py::handle starts = given_[argument::cu_seqlens];
        RW_EXPECTS(given || ends || starts.is_none() || !given_.has(argument::positions),
                   "positions and cu_seqlens together need entries, the index of the first token of each sequence in "
                   "its part of the cache, or last_page_len");
        const Encoding& encoding = *args_.rotation.target;
        const bool elsewhere = static_cast<bool>(encoding.draw_positions) && !memory(like_).on_host();
        if (!given && !ends && !elsewhere && positions_->value.axes == 1) return positions_->value;
        static const Encoding plain;
        const py::handle none(Py_None);
        const bool each = given && !has_first_entry_ && !starts.is_none();  // one per packed sequence
        const py::handle ids = given && !has_first_entry_ && !each ? given_[argument::entries]
                               : given || ends                     ? none
                                                                   : given_[argument::positions];
        const token_offset first = each    ? token_offset(0, given_[argument::entries], "entries")
                                   : given ? token_offset(first_entry_)
                                   : ends  ? token_offset()
                                           : first_;
        entries_.emplace(plain, ids, ids.is_none() ? first : token_offset(), starts, memory(like_), &rotated(), order(),
                         "entries");
        return entries_->value;
    }

    [[nodiscard]] bool ran_python() const {
        if (given_.has(argument::table)) return true;
        for (std::size_t i = 0; i < argument_count; ++i) {
            const auto a = static_cast<argument>(i);
            const bool is_memory = a <= argument::v_scale || a == argument::positions || a == argument::cu_seqlens ||
                                   (a >= argument::q_weight && a <= argument::k_weight) ||
                                   (a >= argument::slot_mapping && a <= argument::entries);
            if (is_memory && !is_passive(given_[a]) && PyLong_CheckExact(given_[a].ptr()) == 0 &&
                PyFloat_CheckExact(given_[a].ptr()) == 0)
                return true;
        }
        return false;
    }

    void check_all_unmoved() const {
        for (std::size_t i = 0; i < memory_.size(); ++i)
            if (memory_[i].source) check_unmoved(memory_[i], name_of(static_cast<argument>(i)));
        check_unmoved(positions_->source, "positions");
        if (entries_) check_unmoved(entries_->source, "entries");
        check_unmoved(table_.cos, "cos");
        check_unmoved(table_.sin, "sin");
    }

    const python_arguments& given_;
    fused_args args_;
    std::array<array, argument_count> memory_;
    argument like_ = argument::q;
    std::optional<token_positions> positions_, entries_;
    owned_table table_;
    token_offset first_;
    std::int64_t first_entry_ = 0;
    bool has_first_entry_ = false, one_plus_ = false, latent_ = false;
    int threads_ = 0;
    double epsilon_ = 0;
    std::string_view cache_dtype_, cache_order_;
    std::array<float, 3> scales_{};
    std::array<bool, 3> scale_is_array_{}, writes_scales_{};
};

/// Returns NotImplemented if PyTorch must see the call and it is not inside an operator.
py::object fused(const py::tuple& arguments, bool inside_operator) {
    const python_arguments given(arguments);
    if (!inside_operator && is_for_package(given)) return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    fused_call call(given, !inside_operator);
    call.run();
    call.count_writes();
    return py::none();
}

}  // namespace

void bind_fused(py::module_& m) {
    m.def("fused", &fused);
    m.def("as_double", [](py::handle number, const std::string& name) { return as_double(number, name.c_str()); });
}

}  // namespace ropewalk::python
