// A decoder on a device reads and generates as the CPU's does: the same cases.
#include "device_kind.hpp"

#include "attention/greedy_cases.inl"
