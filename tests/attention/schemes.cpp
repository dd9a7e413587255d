#include "attention/cpu_kind.hpp"
#include "attention/scheme_cases.inl"
