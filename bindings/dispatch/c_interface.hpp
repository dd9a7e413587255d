// Types and helpers of the C interface.
#pragma once

#include <ropewalk/ropewalk.h>
#include <ropewalk/core/error.hpp>
#include <ropewalk/dispatch.hpp>

struct ropewalk_encoding {
    ropewalk::Encoding encoding;
    ropewalk::layout_kind layout;
};

struct ropewalk_prepared {
    ropewalk::cpu::prepared_rotation rotation;
};

namespace ropewalk::c_interface {

/// The error of a feature that this build or version does not have.
class unsupported : public error {
public:
    using error::error;
};

/// The layout of a positive member value. `name` is the member.
layout_kind as_layout(const char* name, std::int32_t value);

/// Returns the encoding of the text of a config.json. Throws unsupported without nlohmann/json.
Encoding read_config(const char* config_json, const ropewalk_config_choices& choices);

}  // namespace ropewalk::c_interface
