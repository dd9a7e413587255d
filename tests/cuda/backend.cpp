// A device as the backend of the common cases.
#include "cases/rotation_case.hpp"
#include "device_array.hpp"

namespace rw = ropewalk;

namespace test {

std::span<const rw::element_type> types_of_backend() { return all_types; }

rotated rotate(const rotation_case& c, random& numbers) {
    rotated r(c, numbers);
    if (c.source) r.k.in_place = true;  // gpu::rerotate() has no output of its own
    device_array q_in(r.q.in), q_out(r.q.out), k_in(r.k.in), k_out(r.k.out);
    const device_positions positions(c.target.positions.given);
    const device_table table(c.table);
    const rw::Encoding& target = c.target.encoding.ours;
    device::tensors in, out;
    if (r.q.exists()) in.q = q_in.tensor(), out.q = r.q.in_place ? in.q : q_out.tensor();
    if (r.k.exists()) in.k = k_in.tensor(), out.k = r.k.in_place ? in.k : k_out.tensor();
    device::with_calls(c.type, c.layout, [&](auto calls) {
        if (!c.source)
            return calls.rotate(in, out, target, positions.get(), {.direction = c.direction, .table = table.get()});
        const device_positions before(c.source->positions.given);
        calls.rerotate(in.k, c.source->encoding.ours, before.get(), target, positions.get(), {});
        device::finish();
    });
    device::finish();
    for (device_array* const each : {&q_in, &q_out, &k_in, &k_out}) each->fetch();
    return r;
}

}  // namespace test
