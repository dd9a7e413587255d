#include <ropewalk/attention/greedy.hpp>

#include "attention/cpu_kind.hpp"
#include "attention/greedy_cases.inl"
