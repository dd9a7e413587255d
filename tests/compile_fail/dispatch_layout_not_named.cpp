// expect: name the layout
// errors: 1
#include <ropewalk/dispatch.hpp>

namespace rw = ropewalk;

void call(rw::view<float> q, const rw::Encoding& encoding) {
    rw::dispatch::rotate<rw::half_split>(q, encoding, rw::offset{0});
#ifdef RW_FAIL
    rw::dispatch::rotate(q, encoding, rw::offset{0});
#endif
}
