/// @file  Subset of Catch2 for the device tests, because machines with a GPU may have a compiler and nothing else.
#pragma once

#include <cstdint>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace check {

struct test_case {
    const char* name;
    const char* file;
    void (*body)();
};
inline std::vector<test_case>& test_cases() {
    static std::vector<test_case> all;
    return all;
}
struct registration {
    registration(const char* name, const char* file, void (*body)()) { test_cases().push_back({name, file, body}); }
};

/// Thrown by SKIP and by a failed REQUIRE.
struct skipped {
    std::string reason;
};
struct stopped {};

struct state {
    std::uint32_t seed = 20230821;
    long checks = 0, failed = 0;  ///< of the whole run
    std::vector<std::string> notes;
};
inline state& current() {
    static state instance;
    return instance;
}

/// A line that failures print while it is in scope.
class note {
public:
    explicit note(std::string text) { current().notes.push_back(std::move(text)); }
    ~note() { current().notes.pop_back(); }
    note(const note&) = delete;
    note& operator=(const note&) = delete;
};

template <class T>
std::string text_of(const T& value) {
    std::ostringstream text;
    text.precision(17);
    if constexpr (requires { text << value; }) {
        text << std::boolalpha << value;
    } else {
        text << "?";
    }
    return text.str();
}

struct outcome {
    bool holds;
    std::string text;
};

/// The left side of a comparison, so that both sides can be printed.
template <class T>
struct left_side {
    const T& value;
    template <class R>
    outcome operator==(const R& right) const {
        return compared(value, value == right, " == ", right);
    }
    template <class R>
    outcome operator<=(const R& right) const {
        return compared(value, value <= right, " <= ", right);
    }
    template <class R>
    outcome operator<(const R& right) const {
        return compared(value, value < right, " < ", right);
    }
    template <class R>
    outcome operator>(const R& right) const {
        return compared(value, value > right, " > ", right);
    }
    template <class R>
    static outcome compared(const T& value, bool holds, const char* sign, const R& right) {
        return {holds, holds ? "" : text_of(value) + sign + text_of(right)};
    }
    operator outcome() const {
        return {static_cast<bool>(value), text_of(value)};
    }  // NOLINT(google-explicit-constructor)
};
struct taker {
    template <class T>
    left_side<T> operator<<(const T& value) const {
        return {value};
    }
};

inline void take(const outcome& result, const char* expression, const char* file, int line, bool stop) {
    ++current().checks;
    if (result.holds) return;
    // A fault of the device fails everything after it; the first failures show the cause.
    if (++current().failed <= 50) {
        std::cout << file << ':' << line << ": failed: " << expression << "\n    " << result.text << '\n';
        for (const std::string& text : current().notes) std::cout << "    with " << text << '\n';
    }
    if (stop) throw stopped{};
}

}  // namespace check

namespace test {
/// A matcher for CHECK_THAT.
template <class T>
struct matcher_base {
    virtual ~matcher_base() = default;
    virtual bool match(const T& value) const = 0;
    [[nodiscard]] virtual std::string describe() const = 0;
};
}  // namespace test

namespace Catch {
inline std::uint32_t rngSeed() { return check::current().seed; }
}  // namespace Catch

#define CHECK_JOIN_(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN_(a, b)
#define TEST_CASE(name, tags) CHECK_TEST_CASE(name, CHECK_JOIN(test_, __LINE__))
#define CHECK_TEST_CASE(name, function)                                                            \
    static void function();                                                                        \
    static const check::registration CHECK_JOIN(registered_, function)(name, __FILE__, &function); \
    static void function()
#define CHECK(...) check::take(check::taker{} << __VA_ARGS__, #__VA_ARGS__, __FILE__, __LINE__, false)
#define REQUIRE(...) check::take(check::taker{} << __VA_ARGS__, #__VA_ARGS__, __FILE__, __LINE__, true)
#define CHECK_THAT(value, matcher)                                                                              \
    do {                                                                                                        \
        const auto& check_matcher = matcher;                                                                    \
        const bool check_holds = check_matcher.match(value);                                                    \
        check::take({check_holds, check_holds ? "" : check_matcher.describe()}, #value ", " #matcher, __FILE__, \
                    __LINE__, false);                                                                           \
    } while (false)
#define INFO(text) const check::note CHECK_JOIN(note_, __LINE__)((std::ostringstream{} << text).str())
#define SKIP(text) \
    throw check::skipped { (std::ostringstream{} << text).str() }
