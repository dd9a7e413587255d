// Norms, gates and attention over caches, against float64, and a decode step that is recorded once.
#include "llama_calls.hpp"
#include "llama_gpu/cache_contents.hpp"
#include "support/effort.hpp"
#include "trial.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;
namespace llama = ropewalk::llama::gpu;

namespace {

constexpr gpu::cache_type cache_types[] = {gpu::cache_type::f32, gpu::cache_type::f16, gpu::cache_type::bf16,
                                           gpu::cache_type::f8e4m3, gpu::cache_type::i8};

/// Room for what the device's exponential and its own order of sums add to one rounding.
constexpr double room = 1e-5;

/// A cache's numbers on the device.
class device_cache {
public:
    explicit device_cache(test::cache_contents& host)
        : cache_(host.tensor()),
          bytes_(host.bytes().data(), host.bytes().size()),
          scales_(host.scales().data(), host.scales().size() * sizeof(float)) {
        cache_.data = bytes_.data();
        if (cache_.scales != nullptr) cache_.scales = static_cast<float*>(scales_.data());
    }
    [[nodiscard]] const gpu::cache_tensor& get() const { return cache_; }

private:
    gpu::cache_tensor cache_;
    device::memory bytes_, scales_;
};

device::memory there(const std::vector<std::int32_t>& values) {
    return device::memory(values.data(), values.size() * sizeof(std::int32_t));
}
const std::int32_t* numbers_of(const device::memory& memory) { return static_cast<const std::int32_t*>(memory.data()); }

/// A batch's numbers on the device.
struct device_batch {
    device::memory starts, past, table;
    llama::sequences batch;
    llama::page_table pages;

    explicit device_batch(const test::batch_case& host)
        : starts(there(host.starts)),
          past(there(host.past)),
          table(there(host.table)),
          batch(host.batch),
          pages(host.pages) {
        batch.starts = numbers_of(starts), batch.past = numbers_of(past), pages.table = numbers_of(table);
    }
};

std::string problem_of(const test::array& got, const test::exact_attention& exact) {
    const std::vector<double> values = got.values();
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (!test::within(values[i], exact.rows[i], room * exact.largest[i], got.format()))
            return "element " + std::to_string(i) + " is " + std::to_string(values[i]) + ", exact " +
                   std::to_string(exact.rows[i]);
    }
    return got.guards_intact() ? "" : "bytes around the output changed";
}

std::string attend(test::random& numbers, rw::element_type type, gpu::cache_type cached_as) {
    const std::int64_t head_dim = numbers.one_of<std::int64_t>({64, 80, 128, 33}), kv_heads = numbers.integer(1, 3);
    const std::int64_t heads = kv_heads * numbers.one_of<std::int64_t>({1, 2, 4, 8});
    const std::int64_t sequences = numbers.integer(1, 4), splits = numbers.one_of<std::int64_t>({1, 2, 5});
    const std::int64_t page_size = numbers.one_of<std::int64_t>({1, 16}), pages = 96 / page_size;
    const auto host =
        test::random_batch(sequences, numbers.one_of<std::int64_t>({1, 20}), page_size, pages, true, numbers);
    const auto axes = numbers.one_of({test::cache_axes::nhd, test::cache_axes::hnd, test::cache_axes::padded});
    test::cache_contents k(cached_as, {pages * sequences, page_size, kv_heads, head_dim}, axes, numbers);
    test::cache_contents v(cached_as, {pages * sequences, page_size, kv_heads, head_dim}, axes, numbers);
    test::array q(type, {1, host.tokens, heads, head_dim}, numbers), out(type, q.size());
    const test::device_array q_there(q);
    test::device_array out_there(out);
    const device_cache k_there(k), v_there(v);
    const device_batch batch(host);
    const std::int64_t bytes = llama::attend_workspace_bytes(host.tokens, heads, head_dim, splits);
    const device::memory space(static_cast<std::size_t>(bytes));
    device::llama_calls::attend(q_there.tensor(), out_there.tensor(), {k_there.get(), v_there.get()}, batch.pages,
                                batch.batch, 0.1, splits, {space.data(), bytes}, {});
    device::finish();
    out_there.fetch();
    return problem_of(out, test::attention_of(q.values(), heads, k, v, host, 0.1));
}

llama::matrix_view rows_of(const rw::tensor& t) { return {t.data, t.type, t.tokens, t.head_dim, t.stride_token}; }

}  // namespace

TEST_CASE("attention over caches of every type, ragged, shared and split", "[cuda][attention]") {
    SEEDED(numbers);
    for (const rw::element_type type : test::all_types) {
        for (const gpu::cache_type cached_as : cache_types) {
            for (std::int64_t i = 0; i < test::cases(20); ++i) CHECK(attend(numbers, type, cached_as) == "");
        }
    }
}

TEST_CASE("rows are normed and gated", "[cuda][attention]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(60); ++i) {
        const rw::element_type type = test::all_types[numbers.integer(0, 2)];
        const std::int64_t width = numbers.one_of<std::int64_t>({8, 80, 250, 4096}), count = numbers.integer(1, 40);
        test::array x(type, {1, count, 1, width}, numbers), weight(rw::element_type::f32, {1, 1, 1, width}, numbers);
        test::array normed(type, x.size()), gated(type, x.size());
        const test::device_array x_there(x), weight_there(weight);
        test::device_array normed_there(normed), gated_there(gated);
        device::llama_calls::rms_norm(rows_of(x_there.tensor()), rows_of(weight_there.tensor()), 1e-5,
                                      rows_of(normed_there.tensor()), {});
        device::llama_calls::silu_multiply(rows_of(x_there.tensor()), rows_of(normed_there.tensor()),
                                           rows_of(gated_there.tensor()), {});
        device::finish();
        normed_there.fetch(), gated_there.fetch();
        const auto before = x.values(), by = weight.values(), first = normed.values(), second = gated.values();
        std::string wrong;
        double factor = 0;
        for (std::size_t at = 0; at < before.size() && wrong.empty(); ++at) {
            const std::size_t row = at / static_cast<std::size_t>(width) * static_cast<std::size_t>(width);
            double squares = 0;
            for (std::size_t j = 0; j < static_cast<std::size_t>(width) && at == row; ++j)
                squares += before[row + j] * before[row + j];
            if (at == row) factor = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-5);
            const double norm = before[at] * factor * by[at - row];
            const double gate = before[at] / (1 + std::exp(-before[at])) * first[at];
            if (!test::within(first[at], norm, 2e-6 * std::fabs(norm), normed.format())) wrong = "norm";
            if (!test::within(second[at], gate, 3e-6 * std::fabs(gate), gated.format())) wrong = "gate";
            if (!wrong.empty()) wrong += " of element " + std::to_string(at);
        }
        CHECK(wrong == "");
        CHECK(normed.guards_intact());
        CHECK(gated.guards_intact());
    }
}

TEST_CASE("a recorded decode step follows the lengths in device memory", "[cuda][attention]") {
    SEEDED(numbers);
    test::batch_case host;
    host.past = {0, 30}, host.table = {1, 3, 5, 7, 0, 2, 4, 6}, host.tokens = 2;
    host.pages = llama::pages_of(host.table, 2);
    host.batch = {nullptr, host.past.data(), 2, 1, 0};
    test::cache_contents k(gpu::cache_type::f16, {8, 16, 2, 128}, test::cache_axes::nhd, numbers), v = k;
    test::array q(rw::element_type::bf16, {1, 2, 8, 128}, numbers), out(rw::element_type::bf16, q.size());
    const test::device_array q_there(q);
    test::device_array out_there(out);
    const device_cache k_there(k), v_there(v);
    const device_batch batch(host);
    const std::int64_t bytes = llama::attend_workspace_bytes(2, 8, 128, 3);
    const device::memory space(static_cast<std::size_t>(bytes));
    const device::stream stream;
    const device::graph step(stream, [&](device::stream_handle on) {
        device::llama_calls::attend(q_there.tensor(), out_there.tensor(), {k_there.get(), v_there.get()}, batch.pages,
                                    batch.batch, 0.1, 3, {space.data(), bytes}, {.stream = on});
        device::llama_calls::advance(batch.batch, 2, k_there.get(), batch.pages,
                                     static_cast<std::int32_t*>(batch.past.data()), {.stream = on});
    });
    for (int i = 0; i < 20; ++i) {
        step.replay(stream);
        device::finish();
        out_there.fetch();
        CHECK(problem_of(out, test::attention_of(q.values(), 8, k, v, host, 0.1)) == "");
        for (std::int32_t& one : host.past) ++one;
    }
}
