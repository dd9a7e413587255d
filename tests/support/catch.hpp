/// @file  Catch2 under one name, for version 2 (Debian 12) and version 3.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
namespace test {
template <class T>
using matcher_base = Catch::Matchers::MatcherBase<T>;
}
#else
#include <catch2/catch.hpp>
namespace test {
template <class T>
using matcher_base = Catch::MatcherBase<T>;
}
#endif
