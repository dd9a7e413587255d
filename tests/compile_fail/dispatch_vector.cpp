// expect: pass rw::thd\(v.data\(\), tokens, heads, head_dim\)
// errors: 1
#include <ropewalk/dispatch.hpp>

#include <vector>

namespace rw = ropewalk;

void call(std::vector<float>& q, const rw::Encoding& encoding) {
    rw::dispatch::rotate<rw::half_split>(rw::thd(q.data(), 2, 2, 64), encoding, rw::offset{0});
#ifdef RW_FAIL
    rw::dispatch::rotate<rw::half_split>(q, encoding, rw::offset{0});
#endif
}
