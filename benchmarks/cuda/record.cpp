#include "record.hpp"

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iomanip>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "device.hpp"

namespace bench {

namespace {

std::string quoted(const std::string& text) {
    std::ostringstream out;
    out << '"';
    for (const char c : text) {
        if (c == '"' || c == '\\') out << '\\';
        out << (static_cast<unsigned char>(c) < ' ' ? ' ' : c);
    }
    out << '"';
    return out.str();
}

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

std::string heads_of(const row& result) {
    return std::to_string(result.q_heads) + "/" + std::to_string(result.kv_heads);
}

}  // namespace

void print_head() {
    std::printf("%-38s %-5s %-11s %7s %7s %4s %10s %7s %7s %8s %8s %9s\n", "candidate", "type", "layout", "heads",
                "tokens", "hpt", "us", "TB/s", "/ copy", "/ stream", "/ kernel", "error");
}

void print(const row& result) {
    std::printf("%-38s %-5s %-11s %7s %7ld %4d %10.2f %7.3f %7.3f %8.3f %8.3f %9.1e\n", result.candidate.c_str(),
                result.type.c_str(), result.layout.c_str(), heads_of(result).c_str(), static_cast<long>(result.tokens),
                result.heads_per_thread, result.microseconds, result.terabytes_per_second(), result.ratio_to_copy(),
                result.copies.stream / result.microseconds, result.copies.kernel / result.microseconds, result.error);
    std::fflush(stdout);
}

void write(const std::string& path, const std::vector<row>& rows) {
    std::ofstream out(path);
    const device::facts facts = device::look();
    const char* const compiler = std::getenv("ROPEWALK_COMPILER");
    const char* const commit = std::getenv("ROPEWALK_COMMIT");
    char date[32] = "";
    const std::time_t now = std::time(nullptr);
    std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S+00:00", std::gmtime(&now));
    out << "{\"context\": {\"device\": " << quoted(facts.name) << ", \"compute_capability\": \"" << facts.major << '.'
        << facts.minor << "\", \"multiprocessors\": " << facts.multiprocessors << ", \"l2_bytes\": " << facts.l2
        << ", \"cuda_driver\": " << quoted(version(facts.driver))
        << ", \"cuda_runtime\": " << quoted(version(facts.runtime))
        << ", \"compiler\": " << quoted(compiler != nullptr ? compiler : "unknown") << ", \"date\": " << quoted(date);
    if (commit != nullptr) out << ", \"commit\": " << quoted(commit);
    out << "},\n\"rows\": [";
    const char* between = "\n";
    for (const row& result : rows) {
        out << between << std::setprecision(5) << "{\"candidate\": " << quoted(result.candidate)
            << ", \"type\": " << quoted(result.type) << ", \"layout\": " << quoted(result.layout)
            << ", \"heads\": " << quoted(heads_of(result)) << ", \"tokens\": " << result.tokens
            << ", \"in_place\": " << (result.in_place ? "true" : "false");
        if (result.heads_per_thread > 0) out << ", \"heads_per_thread\": " << result.heads_per_thread;
        if (result.microseconds > 0) {
            out << ", \"microseconds\": " << result.microseconds
                << ", \"terabytes_per_second\": " << result.terabytes_per_second()
                << ", \"ratio_to_copy\": " << result.ratio_to_copy();
            const std::pair<const char*, double> others[] = {{"stream_copy", result.copies.stream},
                                                             {"copy_kernel", result.copies.kernel}};
            for (const auto& [name, microseconds] : others)
                if (microseconds > 0) out << ", \"ratio_to_" << name << "\": " << microseconds / result.microseconds;
        }
        out << ", \"error\": " << result.error << "}";
        between = ",\n";
    }
    out << "\n]}\n";
    out.close();
    if (!out) throw std::runtime_error("cannot write " + path);
}

}  // namespace bench
