// A user of the headers without OpenMP, linked with the static library, whose threads must stay.

#include <ropewalk/dispatch.hpp>
#include <ropewalk/ropewalk.hpp>

#include <filesystem>
#include <iostream>
#include <iterator>
#include <vector>

namespace rw = ropewalk;

int main() {
    std::vector<float> q(1024 * 8 * 128, 1.0F), one(q.begin(), q.begin() + 128);
    const rw::Encoding encoding = rw::dispatch::make_encoding({.head_dim = 128}, "default");
    rw::cpu::rotate<rw::half_split>(rw::thd(one.data(), 1, 1, 128), encoding, rw::offset{0});
    rw::dispatch::rotate<rw::half_split>(rw::thd(q.data(), 1024, 8, 128), encoding, rw::offset{0}, {.threads = 2});
    const std::filesystem::directory_iterator threads("/proc/self/task");
    const auto count = std::distance(begin(threads), end(threads));
    if (count != 2) std::cerr << "the library used " << count << " threads, expected 2\n";
    return count == 2 ? 0 : 1;
}
