// Replacement of config.cpp without nlohmann/json.
#include "c_interface.hpp"

namespace ropewalk::c_interface {

Encoding read_config(const char* /*config_json*/, const ropewalk_config_choices& /*choices*/) {
    throw unsupported(
        "ropewalk: this build cannot read config.json: it was compiled without nlohmann/json (ROPEWALK_JSON=OFF)");
}

}  // namespace ropewalk::c_interface
