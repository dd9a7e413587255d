// Main program of the CPU benchmarks, bench_rotate and bench_decode. The time of a row is the median of interleaved
// samples, and the context names the machine, compiler, instruction set and commit.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <benchmark/benchmark.h>
#include <ropewalk/core/error.hpp>
#include <ropewalk/dispatch.hpp>
#include <xsimd/xsimd.hpp>

#include "context.hpp"
#include "register.hpp"

namespace {

/// Replaces the time that Google Benchmark measured, which is that of all candidates, with the median of ropewalk.
template <class Base>
class with_medians : public Base {
public:
    using Base::Base;
    void ReportRuns(const std::vector<benchmark::BenchmarkReporter::Run>& report) override {
        auto runs = report;
        for (auto& run : runs) {
            const auto found = run.counters.find(bench::median_seconds);
            if (found == run.counters.end()) continue;
            const double iterations = run.iterations == 0 ? 1.0 : static_cast<double>(run.iterations);
            run.real_accumulated_time = run.cpu_accumulated_time = found->second.value * iterations;
            run.counters.erase(found);
        }
        Base::ReportRuns(runs);
    }
};

void describe_context() {
    benchmark::AddCustomContext("machine", bench::machine());
    benchmark::AddCustomContext("compiler", bench::compiler());
    benchmark::AddCustomContext("tuning_profile", std::string(ropewalk::dispatch::tuning_profile().name));
    benchmark::AddCustomContext("instruction_set", std::string(ropewalk::dispatch::instruction_set()));
    benchmark::AddCustomContext("xsimd", std::to_string(XSIMD_VERSION_MAJOR) + "." +
                                             std::to_string(XSIMD_VERSION_MINOR) + "." +
                                             std::to_string(XSIMD_VERSION_PATCH));
    benchmark::AddCustomContext("commit", bench::commit());
}

/// The rest of the last argument that starts with `prefix`.
std::optional<std::string> value_of(const std::vector<std::string>& arguments, std::string_view prefix) {
    const auto found = std::find_if(arguments.rbegin(), arguments.rend(),
                                    [&](const auto& argument) { return argument.starts_with(prefix); });
    if (found == arguments.rend()) return {};
    return found->substr(prefix.size());
}

void remove_empty(const std::filesystem::path& path) {
    std::error_code ignored;
    if (std::filesystem::is_regular_file(path, ignored) && std::filesystem::file_size(path, ignored) == 0)
        std::filesystem::remove(path, ignored);
}

}  // namespace

int main(int argc, char** argv) try {
    std::vector<std::string> arguments(argv, argv + argc);
    // One iteration is one round of samples, and each row chooses its number of rounds.
    arguments.insert(arguments.begin() + 1, "--benchmark_min_time=0.000001");
    const std::string out = value_of(arguments, "--benchmark_out=").value_or("");
    const bool json = value_of(arguments, "--benchmark_format=") == "json";

    std::vector<char*> pointers;
    for (auto& argument : arguments) pointers.push_back(argument.data());
    auto count = static_cast<int>(pointers.size());
    benchmark::Initialize(&count, pointers.data());
    if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 1;

    bench::register_rows();
    describe_context();
    std::unique_ptr<benchmark::BenchmarkReporter> display, results;
    if (json) {
        display = std::make_unique<with_medians<benchmark::JSONReporter>>();
    } else {
        display = std::make_unique<with_medians<benchmark::ConsoleReporter>>(benchmark::ConsoleReporter::OO_Tabular);
    }
    if (!out.empty()) results = std::make_unique<with_medians<benchmark::JSONReporter>>();
    const std::size_t matched = benchmark::RunSpecifiedBenchmarks(display.get(), results.get());
    benchmark::Shutdown();
    if (matched == 0) {
        remove_empty(out);
        ropewalk::detail::fail("no benchmark matches --benchmark_filter={}; --benchmark_list_tests lists all names",
                               benchmark::GetBenchmarkFilter());
    }
} catch (const std::exception& problem) {
    std::fprintf(stderr, "%s\n", problem.what());
    return 1;
}
