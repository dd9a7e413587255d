// The CPU library of ropewalk: rotary position encodings for long contexts.
#pragma once

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/cpu/cos_sin.hpp"
#include "ropewalk/cpu/prepared.hpp"
#include "ropewalk/cpu/rotate.hpp"
#include "ropewalk/encoding.hpp"
#include "ropewalk/version.h"
