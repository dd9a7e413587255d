// expect: a policy needs one of: operator\(\)\(theta, pair, geometry\) for the frequency, magnitude_rate
#include <ropewalk/encoding.hpp>
namespace rw = ropewalk;
struct Custom {
    static constexpr std::string_view name = "custom";
    static constexpr std::tuple<> parameters{};
    void validate(const rw::Geometry&) const {}
#ifdef RW_FAIL
    void draw_positions(std::uint64_t, std::span<rw::fixed_position>) const {}
#else
    void draw_positions(std::uint64_t, std::span<rw::fixed_position>) const {}
    std::int64_t stated_tokens() const { return 0; }
#endif
};
rw::Encoding use() { return rw::make_encoding({.head_dim = 64}, Custom{}); }
