#include "stack_kind.cuh"

#include "llama/policy_cases.inl"
