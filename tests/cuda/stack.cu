#include "stack_kind.cuh"

#include "llama/stack_cases.inl"
