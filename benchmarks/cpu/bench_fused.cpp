// Benchmarks of fused calls, compared with their parts one after the other and with a plain scale of the same bytes.
//
// Rows: fused/<call>/<type>/<tokens>, with 32 query heads and 8 key and value heads of 128 elements:
//   append       q rotated in place, rotated k and unchanged v to the slots of a paged cache of the same type
//   append_f8    the same to a cache of f8e4m3, which the parts do not have: they store to a cache of the same type
//   norm_rotate  q and k normed and rotated in place
// `ratio_to_parts` is the time of the parts divided by that of the fused call, and `ratio_to_scale` the time of an
// in-place float32 scale over the bytes that the call reads, divided by that of the call. `prepared_to_parts` is the
// same as `ratio_to_parts` for a prepared fused call, and parts with a prepared rotation: both on one thread at one
// position, as the layers of a model make them. `prepared_to_fused` is the time of the fused call divided by that of
// the prepared one.
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include <benchmark/benchmark.h>
#include <ropewalk/core/error.hpp>
#include <ropewalk/dispatch.hpp>

#include "compare_row.hpp"
#include "register.hpp"
#include "yardstick.hpp"

namespace bench {

namespace {

enum class call { append, append_f8, norm_rotate };

constexpr std::int64_t first_position = 4096, q_heads = 32, kv_heads = 8, page_size = 16;

/// q, then k and v side by side. Without norm and cache the values keep their magnitude, so that they can be rotated in
/// place again and again.
class fused_row {
public:
    fused_row(call kind, const shape& size)
        : kind_(kind),
          size_(size),
          data_(size, order::thd, memory(0, size.bytes())),
          bounds_(size, data_.q.data, data_.q.data),
          k_(data_.k),
          pages_((size.tokens + page_size - 1) / page_size),
          element_(static_cast<std::int64_t>(rw::size_of(size.type))) {
        data_.fill();
        k_.heads = kv_heads;
        rw::fused_args& args = args_;
        args.rotation.layout = size.layout, args.rotation.target = &encoding_;
        args.rotation.target_positions = rw::offset{first_position};
        args.rotation.q_in = args.rotation.q_out = data_.q, args.rotation.k_in = k_;
        if (kind == call::norm_rotate) {
            args.rotation.k_out = k_;
            args.with.q_norm = args.with.k_norm = rw::head_norm(weights_.data());
            prepare();
            return;
        }
        args.v_in = k_;
        args.v_in.data = static_cast<std::byte*>(k_.data) + kv_heads * head_dim * element_;
        // Every second page, from the last one on.
        for (std::int64_t t = 0; t < size.tokens; ++t)
            slots_.push_back(2 * (pages_ - 1 - t / page_size) * page_size + t % page_size);
        args.with.slots = rw::by_mapping(std::span<const std::int64_t>(slots_));
        args.with.cache = {cache(1), cache(2)};
        prepare();
    }

    void fused() const { rw::dispatch::fused(args_, size_.threads); }
    void prepared() const {
        if (!prepared_->run(addresses_, positions_, slots_)) std::abort();
    }

    /// The same by rotate(), a loop for the norm, and copies to the slots.
    void parts() const {
        parts_with([&] {
            rw::cpu::options options;
            options.threads = size_.threads;
            rw::dispatch::rotate(size_.layout, data_.q, k_, data_.q, k_, encoding_, rw::offset{first_position},
                                 options);
        });
    }
    void prepared_parts() const {
        parts_with([&] {
            if (!rotation_->run({data_.q.data, k_.data}, first_position)) std::abort();
        });
    }

    /// Compares the fused call with its parts. Returns an error message or "".
    [[nodiscard]] std::string check() const {
        const std::vector<std::byte> by_parts = result_of([&] { parts(); }), by_fused = result_of([&] { fused(); });
        if (result_of([&] { prepared(); }) != by_fused) return "the prepared call differs from the fused call";
        data_.fill();
        if (kind_ == call::append && by_parts != by_fused) return "the fused call differs from its parts";
        if (kind_ != call::norm_rotate) return {};
        for (std::int64_t i = 0; i < data_.q.elements(); ++i) {
            const double a = value(by_parts, i), b = value(by_fused, i);
            const double room = size_.type == rw::element_type::f32 ? 1e-5 : 0.02;
            if (!(a - b <= room && b - a <= room)) return rw::detail::format("element {} is {}, not {}", i, b, a);
        }
        return {};
    }

    void add_candidates(comparison& times) const {
        times.add("fused", [this](int) { fused(); });
        times.add("parts", [this](int) { parts(); });
        times.add("prepared", [this](int) { prepared(); });
        times.add("prepared_parts", [this](int) { prepared_parts(); });
        bounds_.add_candidates(times);
    }
    [[nodiscard]] double scale_seconds(const comparison& times) const { return bounds_.scale_seconds(times); }
    [[nodiscard]] const workload& result() const { return data_; }

private:
    void prepare() {
        prepared_.emplace(rw::dispatch::prepare_fused(args_));
        rotation_.emplace(rw::dispatch::prepare(size_.layout, data_.q, k_, data_.q, k_, encoding_));
        for (std::int64_t t = 0; t < size_.tokens; ++t) positions_.push_back(first_position + t);
        const void* const norm = args_.with.q_norm.weight;
        addresses_ = {.q = {.in = data_.q.data, .norm = norm},
                      .k = {.in = k_.data, .cache = args_.with.cache.k.data, .norm = norm},
                      .v = {.in = args_.v_in.data, .cache = args_.with.cache.v.data}};
    }

    template <class Rotate>
    void parts_with(const Rotate& rotate) const {
        if (kind_ == call::norm_rotate) {
            norm(data_.q), norm(k_);
        }
        rotate();
        if (kind_ == call::norm_rotate) return;
        copy(k_, 1), copy(args_.v_in, 2);
    }

    [[nodiscard]] rw::cache_tensor cache(int buffer) const {
        const std::int64_t elements = 2 * pages_ * page_size * kv_heads * head_dim;
        void* const data = memory(buffer, elements * element_);
        rw::cache_tensor made =
            rw::nhd_cache(static_cast<rw::f8e4m3*>(data), 2 * pages_, page_size, kv_heads, head_dim);
        if (kind_ != call::append_f8)
            made.type = size_.type == rw::element_type::f32 ? rw::cache_type::f32 : rw::cache_type::bf16;
        return made;
    }

    void norm(const rw::tensor& x) const {
        for_each_part(size_.threads, size_.tokens, [&](std::int64_t begin, std::int64_t count) {
            for (std::int64_t t = begin; t < begin + count; ++t)
                bounds_.loops().norm(size_.type, static_cast<std::byte*>(x.data) + t * x.stride_token * element_,
                                     x.heads, head_dim, weights_.data(), 1e-6F);
        });
    }

    void copy(const rw::tensor& x, int buffer) const {
        auto* const to = static_cast<std::byte*>(memory(buffer, 0));
        const auto bytes = static_cast<std::size_t>(kv_heads * head_dim * element_);
        for_each_part(size_.threads, size_.tokens, [&](std::int64_t begin, std::int64_t count) {
            for (std::int64_t t = begin; t < begin + count; ++t)
                std::memcpy(to + static_cast<std::size_t>(slots_[static_cast<std::size_t>(t)]) * bytes,
                            static_cast<const std::byte*>(x.data) + t * x.stride_token * element_, bytes);
        });
    }

    /// q, and the caches where there are any, after a call on the initial values.
    template <class F>
    [[nodiscard]] std::vector<std::byte> result_of(const F& run) const {
        data_.fill();
        run();
        const auto* const q = static_cast<const std::byte*>(data_.q.data);
        std::vector<std::byte> bytes(q, q + data_.q.elements() * element_);
        for (int buffer = 1; kind_ == call::append && buffer < 3; ++buffer) {
            for (const std::int64_t slot : slots_) {
                const std::int64_t size = kv_heads * head_dim * element_;
                const auto* const head = static_cast<const std::byte*>(memory(buffer, 0)) + slot * size;
                bytes.insert(bytes.end(), head, head + size);
            }
        }
        return bytes;
    }

    [[nodiscard]] double value(const std::vector<std::byte>& bytes, std::int64_t i) const {
        const std::byte* const at = bytes.data() + i * element_;
        if (size_.type == rw::element_type::f32) return static_cast<double>(*reinterpret_cast<const float*>(at));
        return static_cast<double>(static_cast<float>(*reinterpret_cast<const rw::bf16*>(at)));
    }

    call kind_;
    shape size_;
    workload data_;
    yardstick bounds_;
    rw::tensor k_;
    std::int64_t pages_, element_;
    rw::Encoding encoding_ = rw::make_encoding(rw::Geometry{.head_dim = head_dim, .base = base}, "default");
    std::vector<float> weights_ = std::vector<float>(head_dim, 1.0F);
    std::vector<std::int64_t> slots_, positions_;
    rw::fused_args args_;
    rw::cpu::prepared_fused::addresses addresses_;
    mutable std::optional<rw::cpu::prepared_fused> prepared_;
    mutable std::optional<rw::cpu::prepared_rotation> rotation_;
};

void measure(benchmark::State& state, call kind, const shape& size) {
    fused_row row(kind, size);
    comparison times;
    if (!compare_row(state, row, times)) return;
    const double fused = times.median("fused");
    state.counters[median_seconds] = fused;
    state.counters["ratio_to_parts"] = times.median("parts") / fused;
    state.counters["ratio_to_scale"] = row.scale_seconds(times) / fused;
    state.counters["prepared_to_parts"] = times.median("prepared_parts") / times.median("prepared");
    state.counters["prepared_to_fused"] = fused / times.median("prepared");
}

}  // namespace

void register_rows() {
    constexpr std::pair<call, const char*> calls[] = {
        {call::append, "append"}, {call::append_f8, "append_f8"}, {call::norm_rotate, "norm_rotate"}};
    for (const auto& [kind, name] : calls) {
        for (const auto type : {rw::element_type::f32, rw::element_type::bf16}) {
            for (const std::int64_t tokens : {1, 16, 128, 4096}) {
                const shape size{.type = type, .q_heads = q_heads, .k_heads = 2 * kv_heads, .tokens = tokens};
                const std::string row = rw::detail::format("fused/{}/{}/{}", name, rw::to_string(type), tokens);
                benchmark::RegisterBenchmark(row.c_str(), measure, kind, size)->Unit(benchmark::kMicrosecond);
            }
        }
    }
}

}  // namespace bench
