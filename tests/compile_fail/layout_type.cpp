// expect: name the layout: rotate<rw::half_split>
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
using layout = rw::Linear;
#else
using layout = rw::interleaved;
#endif
void use(const rw::view<float>& q, const rw::Encoding& e) { rw::cpu::rotate<layout>(q, e, rw::offset{0}); }
