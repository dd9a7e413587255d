#include "llama/cpu_kind.hpp"
#include "llama/scheme_cases.inl"
