// expect: conversion from 'float' to|no viable conversion from 'float'
#include <ropewalk/core/half.hpp>
#ifdef RW_FAIL
ropewalk::bf16 x = 1.0F;
#else
ropewalk::bf16 x(1.0F);
#endif
