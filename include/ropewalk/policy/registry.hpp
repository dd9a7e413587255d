// Registry of policies. Expressions, Python, the command line and the tests find a policy here.
#pragma once

#include <variant>

#include "ropewalk/policy/default.hpp"
#include "ropewalk/policy/dynamic_ntk.hpp"
#include "ropewalk/policy/linear.hpp"
#include "ropewalk/policy/llama3.hpp"
#include "ropewalk/policy/long_rope.hpp"
#include "ropewalk/policy/mrope.hpp"
#include "ropewalk/policy/ntk.hpp"
#include "ropewalk/policy/power.hpp"
#include "ropewalk/policy/proportional.hpp"
#include "ropewalk/policy/randomized.hpp"
#include "ropewalk/policy/randomized_sorted.hpp"
#include "ropewalk/policy/truncated.hpp"
#include "ropewalk/policy/xpos.hpp"
#include "ropewalk/policy/yarn.hpp"

namespace ropewalk {

/// Any registered policy, selected at run time.
using any_policy = std::variant<Default, Linear, Power, Truncated, Ntk, DynamicNtk, Yarn, Llama3, LongRope,
                                Proportional, XPos, Randomized, RandomizedSorted, MRope>;

}  // namespace ropewalk
