// expect: a policy needs one of: operator\(\)\(theta, pair, geometry\) for the frequency, magnitude_rate
#include <ropewalk/encoding.hpp>
namespace rw = ropewalk;
struct Custom {
    static constexpr std::string_view name = "custom";
    static constexpr std::tuple<> parameters{};
    void validate(const rw::Geometry&) const {}
#ifdef RW_FAIL
    rw::real magnitude_rate(std::int64_t, const rw::Geometry&) const { return {}; }
    std::int64_t stated_length() const { return 0; }
#else
    rw::real magnitude_rate(std::int64_t, const rw::Geometry&) const { return {}; }
    std::int64_t centre() const { return 0; }
    std::int64_t stated_length() const { return 0; }
#endif
};
rw::Encoding use() { return rw::make_encoding({.head_dim = 64}, Custom{}); }
