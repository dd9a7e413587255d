// The device stack does what the CPU's does: the same cases.
#include "device_kind.hpp"

#include "attention/scheme_cases.inl"
#include "attention/stack_cases.inl"
