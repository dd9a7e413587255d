// The stack and the decoder on a device do what those on the CPU do: the same cases.
#include "device_kind.hpp"

#include "llama/greedy_cases.inl"
#include "llama/scheme_cases.inl"
#include "llama/stack_cases.inl"
