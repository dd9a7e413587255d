// Runner of the device tests: [--small] [--seed n] [--list] [part of a name]...
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "check.hpp"
#include "device.hpp"

namespace {

bool chosen(const check::test_case& test, const std::vector<std::string>& parts) {
    for (const std::string& part : parts) {
        if (std::strstr(test.name, part.c_str()) != nullptr || std::strstr(test.file, part.c_str()) != nullptr)
            return true;
    }
    return parts.empty();
}

enum class result { passed, failed, skipped };

result run(const check::test_case& test) {
    const long before = check::current().failed;
    try {
        test.body();
    } catch (const check::skipped& reason) {
        std::cout << "skipped: " << test.name << ": " << reason.reason << '\n';
        if (check::current().failed == before) return result::skipped;
    } catch (const check::stopped&) {
    } catch (const std::exception& problem) {
        ++check::current().failed;
        std::cout << test.file << ": '" << test.name << "' threw: " << problem.what() << '\n';
    }
    return check::current().failed == before ? result::passed : result::failed;
}

}  // namespace

int main(int count, char** arguments) try {
    std::vector<std::string> parts;
    bool list = false;
    for (int i = 1; i < count; ++i) {
        const std::string text = arguments[i];
        if (text == "--small") {
            setenv("ROPEWALK_TEST_EFFORT", "0.02", 1);
        } else if (text == "--list") {
            list = true;
        } else if (text == "--seed" && i + 1 < count) {
            check::current().seed = static_cast<std::uint32_t>(std::strtoul(arguments[++i], nullptr, 10));
        } else if (text.starts_with("--")) {
            std::cerr << "usage: " << arguments[0] << " [--small] [--seed n] [--list] [part of a name]...\n";
            return 2;
        } else {
            parts.push_back(text);
        }
    }
    if (!list) std::cout << device::describe() << ", random seed " << check::current().seed << std::endl;
    long totals[3] = {};
    for (const check::test_case& test : check::test_cases()) {
        if (!chosen(test, parts)) continue;
        if (list) {
            std::cout << test.name << '\n';
            continue;
        }
        const auto start = std::chrono::steady_clock::now();
        const result outcome = run(test);
        ++totals[static_cast<int>(outcome)];
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        if (outcome != result::skipped)
            std::cout << (outcome == result::passed ? "ok      " : "FAILED  ") << test.name << " ("
                      << static_cast<long>(seconds.count() * 1000) << " ms)" << std::endl;
    }
    if (list) return 0;
    std::cout << totals[0] + totals[1] + totals[2] << " tests: " << totals[0] << " passed, " << totals[1] << " failed, "
              << totals[2] << " skipped; " << check::current().checks << " checks, " << check::current().failed
              << " failed" << std::endl;
    // A run without any test fails.
    return totals[1] == 0 && totals[0] > 0 ? 0 : 1;
} catch (const std::exception& problem) {
    std::cout << "device tests: " << problem.what() << std::endl;
    return 1;
}
