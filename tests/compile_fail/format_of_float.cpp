// expect: elements must have 16 bits
// errors: 1
#include <ropewalk/core/view.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
using stored = float;
#else
using stored = short;
#endif
void use(stored* data) { (void)rw::as_f16(data); }
