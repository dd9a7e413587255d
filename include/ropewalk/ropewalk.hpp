// The CPU library of ropewalk: rotary position encodings for long contexts.
#pragma once

#include "ropewalk/cpu/cos_sin.hpp"
#include "ropewalk/cpu/rotate.hpp"
#include "ropewalk/encoding.hpp"
#include "ropewalk/version.h"
