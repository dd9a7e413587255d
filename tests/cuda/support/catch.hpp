/// @file  Stands in for ../../support/catch.hpp where the device tests are built, on machines without Catch2. The
/// support headers of all other tests so serve these too.
#pragma once

#include "check.hpp"
