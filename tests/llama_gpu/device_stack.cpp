// Cases of every stack, on a simulated device.
#include "device_kind.hpp"

#include "llama/greedy_cases.inl"
#include "llama/policy_cases.inl"
#include "llama/stack_cases.inl"
