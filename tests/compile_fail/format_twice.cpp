// expect: the elements are rw::f16 or rw::bf16 already
// errors: 1
#include <ropewalk/core/view.hpp>
namespace rw = ropewalk;
#ifdef RW_FAIL
using stored = rw::bf16;
#else
using stored = short;
#endif
void use(stored* data) { (void)rw::as_f16(data); }
