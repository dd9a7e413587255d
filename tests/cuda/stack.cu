#include "stack_kind.cuh"

#include "attention/stack_cases.inl"
