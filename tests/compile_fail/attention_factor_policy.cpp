// expect: a policy needs one of: operator\(\)\(theta, pair, geometry\) for the frequency, magnitude_rate
#include <ropewalk/encoding.hpp>
namespace rw = ropewalk;
struct Custom {
    static constexpr std::string_view name = "custom";
    static constexpr std::tuple<> parameters{};
    void validate(const rw::Geometry&) const {}
#ifdef RW_FAIL
    const char* attention_factor(const rw::Geometry&) const { return "1"; }
#else
    double attention_factor(const rw::Geometry&) const { return 1; }
#endif
};
rw::Encoding use() { return rw::make_encoding({.head_dim = 64}, Custom{}); }
