// The compiled CPU kernels as the backend of the common cases.
#include <ropewalk/dispatch.hpp>

#include "cases/rotation_case.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace test {

std::span<const rw::element_type> types_of_backend() {
    using enum rw::element_type;
    static constexpr rw::element_type types[] = {f32, f16, bf16, f64};
    return types;
}

rotated rotate(const rotation_case& c, random& numbers) {
    rotated r(c, numbers);
    const twin& target = c.target.encoding;
    if (c.source) {
        dispatch::rerotate(c.layout, r.k.input(), r.k.output(), c.source->encoding.ours, c.source->positions.given,
                           target.ours, c.target.positions.given);
    } else {
        dispatch::rotate(c.layout, r.q.input(), r.k.input(), r.q.output(), r.k.output(), target.ours,
                         c.target.positions.given, {.direction = c.direction, .table = c.table});
    }
    return r;
}

std::string refusal(const rw::rotate_args& a) {
    return message_of([&] {
        if (a.source != nullptr)
            return dispatch::rerotate(a.layout, a.k_in, a.k_out, *a.source, a.source_positions, *a.target,
                                      a.target_positions);
        dispatch::rotate(a.layout, a.q_in, a.k_in, a.q_out, a.k_out, *a.target, a.target_positions,
                         {.direction = a.direction, .table = a.table});
    });
}

}  // namespace test
