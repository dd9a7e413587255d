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
        : entries_(host.slots.entries), table_(copy_of(host.table)), ids_(copy_of(host.ids)), slots_(host.slots) {
        slots_.entries = entries_.get();
        if (slots_.table != nullptr) slots_.table = static_cast<const std::int32_t*>(table_.data());
        if (slots_.mapping != nullptr) slots_.mapping = slots_.mapping == host.ids.data() ? ids_.data() : table_.data();
    }
    [[nodiscard]] const rw::gpu::cache_slots& get() const { return slots_; }

private:
    device_positions entries_;
    device::memory table_, ids_;
    rw::gpu::cache_slots slots_;
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
    device::memory weights[2], bytes[2], scales[2];
    rw::gpu::head_norm* const norms[] = {&fusion.q_norm, &fusion.k_norm};
    rw::gpu::cache_tensor* const caches[] = {&fusion.cache.k, &fusion.cache.v};
    for (std::size_t i = 0; i < 2; ++i) {
        if (norms[i]->weight != nullptr) {
            weights[i] =
                device::memory(norms[i]->weight, static_cast<std::size_t>(c.q.head_dim) * rw::size_of(norms[i]->type));
            norms[i]->weight = weights[i].data();
        }
        if (!call.caches[i]) continue;
        bytes[i] = copy_of(call.caches[i]->bytes), scales[i] = copy_of(call.caches[i]->scales);
        *caches[i] = call.caches[i]->tensor_over(bytes[i].data(), scales[i].data());
    }
    device::with_fused_calls(c.type, c.layout, [&](auto calls) {
        calls.run({from[0], from[1], from[2]}, {to[0], to[1], to[2]}, fusion, c.encoding.ours, positions.get(), {});
    });
    device::finish();
    for (std::size_t m = 0; m < in.size(); ++m) in[m].fetch(), out[m].fetch();
    for (std::size_t i = 0; i < 2; ++i) {
        if (!call.caches[i]) continue;
        device::copy(call.caches[i]->bytes.data(), bytes[i].data(), bytes[i].bytes());
        device::copy(call.caches[i]->scales.data(), scales[i].data(), scales[i].bytes());
    }
    return call;
}

}  // namespace test
