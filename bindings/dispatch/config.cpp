// Encodings of the C interface from config.json. JSON is compiled in this file only.
#include <ropewalk/io/hf_config.hpp>

#include "c_interface.hpp"

namespace ropewalk::c_interface {

Encoding read_config(const char* config_json, const ropewalk_config_choices& given) {
    config_choices choices{.layer_type = given.layer_type == nullptr ? "" : given.layer_type,
                           .sequence_length = given.sequence_length};
    if (given.layout != 0) choices.layout = as_layout("choices.layout", given.layout);
    if (given.policy != nullptr) {
        RW_EXPECTS(*given.policy != '\0', "choices.policy is empty; pass NULL to keep that of the configuration");
        choices.policy = given.policy;
    }
    return encoding_from_config(parse_config(config_json, "the configuration"), choices);
}

}  // namespace ropewalk::c_interface
