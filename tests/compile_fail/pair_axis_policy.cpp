// expect: or axis\(pair, geometry\), for the position
#include <ropewalk/encoding.hpp>
namespace rw = ropewalk;
struct Custom {
    static constexpr std::string_view name = "custom";
    static constexpr std::tuple<> parameters{};
    void validate(const rw::Geometry&) const {}
#ifdef RW_FAIL
    const char* axis(std::int64_t, const rw::Geometry&) const { return "t"; }
#else
    std::int64_t axis(std::int64_t pair, const rw::Geometry&) const { return pair % 3; }
#endif
};
rw::Encoding use() { return rw::make_encoding({.head_dim = 64}, Custom{}); }
