// expect: softmax_factor\(geometry\) for the score
#include <ropewalk/encoding.hpp>
namespace rw = ropewalk;
struct Custom {
    static constexpr std::string_view name = "custom";
    static constexpr std::tuple<> parameters{};
    void validate(const rw::Geometry&) const {}
#ifdef RW_FAIL
    double softmax_factor() const { return 2; }
#else
    double softmax_factor(const rw::Geometry&) const { return 2; }
#endif
};
rw::Encoding use() { return rw::make_encoding({.head_dim = 64}, Custom{}); }
