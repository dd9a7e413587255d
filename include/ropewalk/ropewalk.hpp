// ropewalk: rotary position encodings for long contexts. What a CPU user includes.
#pragma once

#include "ropewalk/cpu/cos_sin.hpp"
#include "ropewalk/cpu/rotate.hpp"
#include "ropewalk/encoding.hpp"
