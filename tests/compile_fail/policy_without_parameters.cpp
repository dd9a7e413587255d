// expect: a policy needs a name, a tuple of parameters and validate\(geometry\)
#include <ropewalk/encoding.hpp>
namespace rw = ropewalk;
struct Slower {
    static constexpr std::string_view name = "slower";
#ifndef RW_FAIL
    static constexpr std::tuple<> parameters{};
#endif
    void validate(const rw::Geometry&) const {}
    rw::real operator()(const rw::real& theta, std::int64_t, const rw::Geometry&) const { return theta.scaled(-1); }
};
rw::Encoding use() { return rw::make_encoding({.head_dim = 64}, Slower{}); }
