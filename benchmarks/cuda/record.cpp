#include "record.hpp"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <sstream>
#include <stdexcept>

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
    std::printf("%-28s %-5s %-11s %7s %7s %10s %7s %7s %9s\n", "candidate", "type", "layout", "heads", "tokens", "us",
                "TB/s", "/ copy", "error");
}

void print(const row& result) {
    std::printf("%-28s %-5s %-11s %7s %7ld %10.2f %7.3f %7.3f %9.1e\n", result.candidate.c_str(), result.type.c_str(),
                result.layout.c_str(), heads_of(result).c_str(), static_cast<long>(result.tokens), result.microseconds,
                result.terabytes_per_second(), result.ratio_to_copy(), result.error);
    std::fflush(stdout);
}

void write(const std::string& path, const std::vector<row>& rows) {
    std::ofstream out(path);
    const device::facts facts = device::look();
    const char* const compiler = std::getenv("ROPEWALK_COMPILER");
    out << "{\"context\": {\"device\": " << quoted(facts.name) << ", \"compute_capability\": \"" << facts.major << '.'
        << facts.minor << "\", \"multiprocessors\": " << facts.multiprocessors << ", \"l2_bytes\": " << facts.l2
        << ", \"cuda_driver\": " << quoted(version(facts.driver))
        << ", \"cuda_runtime\": " << quoted(version(facts.runtime))
        << ", \"compiler\": " << quoted(compiler != nullptr ? compiler : "unknown") << "},\n\"rows\": [";
    const char* between = "\n";
    for (const row& result : rows) {
        out << between << std::setprecision(5) << "{\"candidate\": " << quoted(result.candidate)
            << ", \"type\": " << quoted(result.type) << ", \"layout\": " << quoted(result.layout)
            << ", \"heads\": " << quoted(heads_of(result)) << ", \"tokens\": " << result.tokens
            << ", \"in_place\": " << (result.in_place ? "true" : "false")
            << ", \"microseconds\": " << result.microseconds
            << ", \"terabytes_per_second\": " << result.terabytes_per_second()
            << ", \"ratio_to_copy\": " << result.ratio_to_copy() << ", \"error\": " << result.error << "}";
        between = ",\n";
    }
    out << "\n]}\n";
    out.close();
    if (!out) throw std::runtime_error("cannot write " + path);
}

}  // namespace bench
