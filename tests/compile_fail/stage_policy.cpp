// expect: a stage depends on the geometry
#include <ropewalk/encoding.hpp>
namespace rw = ropewalk;
struct Custom {
    static constexpr std::string_view name = "custom";
    static constexpr std::tuple<> parameters{};
    void validate(const rw::Geometry&) const {}
#ifdef RW_FAIL
    std::uint64_t stage() const { return 1; }
#else
    std::uint64_t stage(const rw::Geometry&) const { return 1; }
#endif
};
static_assert(rw::StagePolicy<Custom>, "a stage depends on the geometry");
