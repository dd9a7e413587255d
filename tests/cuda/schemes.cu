#include "stack_kind.cuh"

#include "llama/scheme_cases.inl"
