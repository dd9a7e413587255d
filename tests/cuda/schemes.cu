#include "stack_kind.cuh"

#include "attention/scheme_cases.inl"
