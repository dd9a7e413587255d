// Cases of the kernels of a Llama's layers on a device, and a decode step that is recorded once.
#include "device_array.hpp"
#include "llama_calls.hpp"
#include "llama_gpu/cache_contents.hpp"

namespace {

namespace llama_gpu = ropewalk::llama::gpu;

/// A cache in device memory.
class device_cache {
public:
    explicit device_cache(test::cache_contents& host)
        : cache_(host.tensor()),
          bytes_(host.bytes().data(), host.bytes().size()),
          scales_(host.scales().data(), host.scales().size() * sizeof(float)) {
        cache_.data = bytes_.data();
        if (cache_.scales != nullptr) cache_.scales = static_cast<float*>(scales_.data());
    }
    [[nodiscard]] const ropewalk::gpu::cache_tensor& get() const { return cache_; }

private:
    ropewalk::gpu::cache_tensor cache_;
    device::memory bytes_, scales_;
};

/// The lengths and pages of a batch in device memory.
struct device_batch {
    device::memory starts, past, table;
    llama_gpu::sequences batch;

    explicit device_batch(const test::batch_case& host)
        : starts(copy_of(host.starts)), past(copy_of(host.past)), table(copy_of(host.table)) {
        const auto at = [](const device::memory& memory) { return static_cast<const std::int32_t*>(memory.data()); };
        batch = host.at(at(starts), at(past), at(table));
    }

private:
    static device::memory copy_of(const std::vector<std::int32_t>& values) {
        return device::memory(values.data(), values.size() * sizeof(std::int32_t));
    }
};

llama_gpu::matrix_view matrix_of(const ropewalk::tensor& t) {
    return {t.data, t.type, t.tokens, t.head_dim, t.stride_token};
}

/// Runs kernels on a device, which has no log of accesses.
struct kernel_kind {
    /// Of the device's exponential and its order of sums.
    static constexpr double tolerance = 2;

    /// Runs f(output) on the device and fetches the output, which may be the array of `in`.
    template <class F>
    static std::string run(test::array& in, test::device_array& device_in, test::array& out, const F& f) {
        if (&in == &out) {
            f(device_in.tensor());
            device::finish(), device_in.fetch();
            return "";
        }
        test::device_array device_out(out);
        f(device_out.tensor());
        device::finish(), device_out.fetch();
        return "";
    }

    static std::string attend(test::array& q, test::array& out, test::cache_contents& k, test::cache_contents& v,
                              const test::batch_case& host, double scale, std::int64_t splits, bool /*complete*/) {
        test::device_array device_q(q);
        const device_cache device_k(k), device_v(v);
        const device_batch batch(host);
        const std::int64_t bytes =
            llama_gpu::attend_workspace_bytes(host.tokens, q.size().heads, q.size().head_dim, splits);
        const device::memory space(static_cast<std::size_t>(bytes));
        return run(q, device_q, out, [&](const ropewalk::tensor& output) {
            device::llama_calls::attend(device_q.tensor(), output, {device_k.get(), device_v.get()}, batch.batch, scale,
                                        splits, {space.data(), bytes}, {});
        });
    }
    static std::string rms_norm(test::array& x, test::array& weight, double epsilon, test::array& y) {
        test::device_array device_x(x);
        const test::device_array device_weight(weight);
        return run(x, device_x, y, [&](const ropewalk::tensor& output) {
            device::llama_calls::rms_norm(matrix_of(device_x.tensor()), matrix_of(device_weight.tensor()), epsilon,
                                          matrix_of(output), {});
        });
    }
    static std::string silu(test::array& gate, test::array& up, test::array& out) {
        test::device_array device_gate(gate);
        const test::device_array device_up(up);
        return run(gate, device_gate, out, [&](const ropewalk::tensor& output) {
            device::llama_calls::silu_multiply(matrix_of(device_gate.tensor()), matrix_of(device_up.tensor()),
                                               matrix_of(output), {});
        });
    }
};

}  // namespace

#include "llama_gpu/kernel_cases.inl"

TEST_CASE("a recorded decode step follows the lengths in device memory", "[cuda][llama]") {
    SEEDED(numbers);
    test::batch_case host;
    host.past = {0, 30}, host.table = {1, 3, 5, 7, 0, 2, 4, 6};
    host.count = host.tokens = 2, host.most_pages = 4;
    test::cache_contents k(rw::cache_type::f16, {8, 16, 2, 128}, test::cache_axes::nhd, numbers), v = k;
    test::array q(rw::element_type::bf16, {1, 2, 8, 128}, numbers), out(rw::element_type::bf16, q.size());
    const test::device_array device_q(q);
    test::device_array device_out(out);
    const device_cache device_k(k), device_v(v);
    const device_batch batch(host);
    const std::int64_t bytes = llama_gpu::attend_workspace_bytes(2, 8, 128, 3);
    const device::memory space(static_cast<std::size_t>(bytes));
    const device::stream stream;
    const device::graph step(stream, [&](device::stream_handle on) {
        device::llama_calls::attend(device_q.tensor(), device_out.tensor(), {device_k.get(), device_v.get()},
                                    batch.batch, 0.1, 3, {space.data(), bytes}, {.stream = on});
        device::llama_calls::advance(batch.batch, 2, device_k.get(), static_cast<std::int32_t*>(batch.past.data()),
                                     {.stream = on});
    });
    for (int i = 0; i < 20; ++i) {
        step.replay(stream);
        device::finish();
        device_out.fetch();
        const auto exact = test::attention_of(q.values(), 8, k, v, host, 0.1);
        std::vector<double> bounds = exact.largest;
        for (double& bound : bounds) bound *= 5e-6;
        CHECK(first_problem(out, exact.rows, bounds) == "");
        for (std::int32_t& past : host.past) ++past;
    }
}
