// expect: an epoch takes the geometry
#include <ropewalk/encoding.hpp>
namespace rw = ropewalk;
struct Made {
    static constexpr std::string_view name = "made";
    static constexpr std::tuple<> parameters{};
    void validate(const rw::Geometry&) const {}
#ifdef RW_FAIL
    std::uint64_t epoch() const { return 1; }
#else
    std::uint64_t epoch(const rw::Geometry&) const { return 1; }
#endif
};
static_assert(rw::EpochPolicy<Made>, "an epoch takes the geometry");
