// expect: elements are float, double, rw::f16 or rw::bf16
// errors: 1
#include <ropewalk/core/view.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
using element = long double;
#else
using element = float;
#endif
void use(element* data) { (void)rw::bshd(data, 1, 1, 2, 64); }
