// expect: elements are float, double, rw::f16 or rw::bf16
// errors: 1
#include <ropewalk/cpu/rotate.hpp>
#include <vector>
namespace rw = ropewalk;
#ifdef RW_FAIL
void use(std::vector<long double>& q, const rw::Encoding& e) {
    rw::cpu::rotate<rw::half_split>(q, q, e, rw::offset{0});
}
#else
void use(rw::view<float> q, const rw::Encoding& e) { rw::cpu::rotate<rw::half_split>(q, q, e, rw::offset{0}); }
#endif
