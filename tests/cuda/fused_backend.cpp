// A device as the backend of the fused cases.
#include "cases/fused_case.hpp"
#include "device_array.hpp"

namespace rw = ropewalk;

namespace test {

namespace {

device::memory copy_of(const auto& values) {
    return values.empty() ? device::memory() : device::memory(values.data(), values.size() * sizeof(values[0]));
}

/// The slots of a call with their numbers in device memory.
class device_slots {
public:
    explicit device_slots(const slot_case& host)
        : entries_(host.slots.entries),
          table_(copy_of(host.table)),
          ids_(copy_of(host.ids)),
          starts_(copy_of(host.indptr)),
          last_(copy_of(host.last_page_len)),
          slots_(host.slots) {
        slots_.entries = entries_.get();
        if (slots_.table != nullptr) slots_.table = static_cast<const std::int32_t*>(table_.data());
        if (slots_.starts != nullptr) slots_.starts = static_cast<const std::int32_t*>(starts_.data());
        if (slots_.last_page_len != nullptr) slots_.last_page_len = static_cast<const std::int32_t*>(last_.data());
        if (slots_.mapping != nullptr) slots_.mapping = slots_.mapping == host.ids.data() ? ids_.data() : table_.data();
    }
    [[nodiscard]] const rw::gpu::cache_slots& get() const { return slots_; }

private:
    device_positions entries_;
    device::memory table_, ids_, starts_, last_;
    rw::gpu::cache_slots slots_;
};

/// A cache or a quantised output in device memory.
struct device_cache {
    device_cache(cache_memory& of, rw::gpu::cache_tensor& tensor)
        : host(of), bytes(copy_of(of.bytes)), scales(copy_of(of.scales)), divisor(copy_of(of.divisor)) {
        tensor = of.tensor_over(bytes.data(), scales.data(), divisor.data());
    }
    void fetch() const {
        device::copy(host.bytes.data(), bytes.data(), bytes.bytes());
        device::copy(host.scales.data(), scales.data(), scales.bytes());
    }

    cache_memory& host;
    device::memory bytes, scales, divisor;
};

}  // namespace

fused_call run(const fused_case& c, random& numbers) {
    fused_call call(c, numbers);
    std::vector<device_array> in, out;
    for (fused_call::memory& m : call.memories) in.emplace_back(m.in), out.emplace_back(m.out);
    rw::tensor from[3], to[3];
    for (std::size_t i = 0; i < 3; ++i) {
        const fused_call::part& p = call.parts[i];
        from[i] = call.heads_of(in[p.memory].tensor(), i);
        if (p.has_output) to[i] = p.in_place ? from[i] : call.heads_of(out[p.memory].tensor(), i);
    }
    const device_positions positions(call.positions.given);
    const device_slots slots(call.slots);
    rw::gpu::fusion fusion = call.fusion();
    if (fusion.cache.k.exists() || fusion.cache.v.exists()) fusion.slots = slots.get();
    device::memory weights[2];
    rw::gpu::head_norm* const norms[] = {&fusion.q_norm, &fusion.k_norm};
    std::vector<device_cache> written;
    for (rw::gpu::cache_tensor* const tensor :
         {&fusion.cache.k, &fusion.cache.v, &fusion.quantised.q, &fusion.quantised.k, &fusion.quantised.v})
        for (cache_memory* const each : call.written())
            if (tensor->exists() && tensor->data == each->tensor().data) written.emplace_back(*each, *tensor);
    for (std::size_t i = 0; i < 2; ++i) {
        if (norms[i]->weight != nullptr) {
            weights[i] =
                device::memory(norms[i]->weight, static_cast<std::size_t>(c.q.head_dim) * rw::size_of(norms[i]->type));
            norms[i]->weight = weights[i].data();
        }
    }
    device::with_fused_calls(c.type, c.layout, [&](auto calls) {
        calls.run({from[0], from[1], from[2]}, {to[0], to[1], to[2]}, fusion, c.encoding.ours, positions.get(), {});
    });
    device::finish();
    for (std::size_t m = 0; m < in.size(); ++m) in[m].fetch(), out[m].fetch();
    for (const device_cache& each : written) each.fetch();
    return call;
}

}  // namespace test
