// The stack and the decoder on a device do what those on the CPU do: the same cases.
#include "device_kind.hpp"

#include "attention/greedy_cases.inl"
#include "attention/scheme_cases.inl"
#include "attention/stack_cases.inl"
