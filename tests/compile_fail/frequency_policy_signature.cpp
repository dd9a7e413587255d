// expect: a policy needs one of: operator\(\)\(theta, pair, geometry\) for the frequency, magnitude_rate
#include <ropewalk/encoding.hpp>
namespace rw = ropewalk;
struct Custom {
    static constexpr std::string_view name = "custom";
    static constexpr std::tuple<> parameters{};
    void validate(const rw::Geometry&) const {}
#ifdef RW_FAIL
    rw::real operator()(const rw::real& theta, std::int64_t) const { return theta; }
#else
    rw::real operator()(const rw::real& theta, std::int64_t, const rw::Geometry&) const { return theta; }
#endif
};
rw::Encoding use() { return rw::make_encoding({.head_dim = 64}, Custom{}); }
