// Calls of the CPU library, compiled with stricter warnings than those of ropewalk.

#include <ropewalk/ropewalk.hpp>

#include <cstdint>
#include <vector>

namespace rw = ropewalk;

void rotate(std::vector<float>& q, std::vector<float>& k, const std::vector<std::int64_t>& ids);
void rotate(std::vector<rw::bf16>& q, std::vector<rw::f16>& k);
void tabulate(std::vector<float>& cos, std::vector<float>& sin);

void rotate(std::vector<float>& q, std::vector<float>& k, const std::vector<std::int64_t>& ids) {
    const rw::Encoding encoding = rw::make_encoding({.head_dim = 64}, "yarn:4,original_length=2048");
    const auto tokens = static_cast<std::int64_t>(ids.size());
    rw::cpu::rotate<rw::half_split>(rw::thd(q.data(), tokens, 8, 64), rw::thd(k.data(), tokens, 2, 64), encoding,
                                    rw::ids(ids));
    rw::cpu::rerotate<rw::interleaved>(rw::thd(k.data(), tokens, 2, 64), encoding, rw::offset{0}, encoding,
                                       rw::offset{5});
}

void rotate(std::vector<rw::bf16>& q, std::vector<rw::f16>& k) {
    const rw::Encoding encoding = rw::make_encoding({.head_dim = 64});
    rw::cpu::rotate<rw::half_split>(rw::thd(q.data(), 3, 8, 64), encoding, rw::offset{1});
    rw::cpu::rotate<rw::interleaved>(rw::thd(k.data(), 3, 8, 64), encoding, rw::offset{1});
}

void tabulate(std::vector<float>& cos, std::vector<float>& sin) {
    const rw::Encoding encoding = rw::make_encoding({.head_dim = 64}, rw::Linear{.factor = 4} | rw::XPos{});
    rw::cpu::cos_sin<rw::half_split>(encoding, rw::offset{0}, static_cast<std::int64_t>(cos.size()) / 64, 64, cos, sin);
    rw::cpu::cos_sin<rw::interleaved>(encoding, rw::offset{0}, static_cast<std::int64_t>(cos.size()) / 32, 32, cos,
                                      sin);
}
