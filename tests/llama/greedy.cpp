#include <ropewalk/llama/greedy.hpp>

#include "llama/cpu_kind.hpp"
#include "llama/greedy_cases.inl"
