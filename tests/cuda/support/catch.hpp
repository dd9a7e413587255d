/// @file  Replacement of tests/support/catch.hpp for machines without Catch2, so that the device tests can use all
/// support headers.
#pragma once

#include "check.hpp"
