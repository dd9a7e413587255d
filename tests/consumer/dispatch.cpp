// A user of the compiled library: compares a rotation with the formula, and catches an error that the library throws.

#include <ropewalk/dispatch.hpp>

#include <cmath>
#include <iostream>
#include <string>
#include <vector>

namespace rw = ropewalk;

int main() {
    const rw::Encoding encoding = rw::dispatch::make_encoding({.head_dim = 4}, "linear:2");
    std::vector<float> q{1, 2, 3, 4};
    rw::dispatch::rotate<rw::half_split>(rw::thd(q.data(), 1, 1, 4), encoding, rw::offset{5});
    const double expected = 1 * std::cos(2.5) - 3 * std::sin(2.5);
    if (std::fabs(q[0] - expected) > 1e-6) {
        std::cerr << "got " << q[0] << ", expected " << expected << '\n';
        return 1;
    }
    auto prepared = rw::dispatch::prepare<rw::half_split>(rw::thd(q.data(), 1, 1, 4), encoding);
    std::vector<float> decoded{1, 2, 3, 4};
    if (!prepared.run(decoded.data(), nullptr, 5) || decoded != q) return 4;
    std::vector<float> slot(4);
    const std::vector<float> input{1, 2, 3, 4};
    const auto q_in = rw::thd(input.data(), 1, 1, 4);
    auto copying = rw::dispatch::prepare<rw::half_split>(q_in, {}, rw::thd(slot.data(), 1, 1, 4), {}, encoding);
    if (!copying.run(input.data(), nullptr, slot.data(), nullptr, 5) || slot != q) return 5;
    try {
        rw::dispatch::rotate<rw::half_split>(rw::thd(q.data(), 1, 2, 2), encoding, rw::offset{0});
    } catch (const rw::error& problem) {
        return std::string(problem.what()).find("head_dim 2") == std::string::npos ? 2 : 0;
    }
    return 3;
}
