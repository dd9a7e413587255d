/// @file  Error messages of calls, for tests of the values in them.
#pragma once

#include <string>

#include <ropewalk/core/error.hpp>

#include "support/catch.hpp"

namespace test {

/// The message of the ropewalk::error that f throws, or "" if it throws none.
template <class F>
std::string message_of(const F& f) {
    try {
        f();
    } catch (const ropewalk::error& problem) {
        return problem.what();
    }
    return {};
}

/// True if the text contains all parts.
inline bool holds(const std::string& text, std::initializer_list<const char*> parts) {
    for (const char* const part : parts) {
        if (text.find(part) == std::string::npos) return false;
    }
    return !text.empty();
}

}  // namespace test

/// Checks that an expression throws ropewalk::error and that its message contains all parts.
#define CHECK_REFUSED(expression, ...)                                                \
    do {                                                                              \
        const std::string rw_message = test::message_of([&] { (void)(expression); }); \
        INFO("message: '" << rw_message << "'");                                      \
        CHECK(test::holds(rw_message, {__VA_ARGS__}));                                \
    } while (false)
