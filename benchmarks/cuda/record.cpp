#include "record.hpp"

#include <algorithm>
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

std::string heads_of(const row& one) { return std::to_string(one.q_heads) + "/" + std::to_string(one.kv_heads); }

}  // namespace

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

void print_head() {
    std::printf("%-28s %-5s %-11s %7s %7s %10s %7s %7s %9s\n", "candidate", "type", "layout", "heads", "tokens", "us",
                "TB/s", "/ copy", "error");
}

void print(const row& one) {
    std::printf("%-28s %-5s %-11s %7s %7ld %10.2f %7.3f %7.3f %9.1e\n", one.candidate.c_str(), one.type.c_str(),
                one.layout.c_str(), heads_of(one).c_str(), static_cast<long>(one.tokens), one.microseconds,
                one.terabytes_per_second(), one.ratio_to_copy(), one.error);
    std::fflush(stdout);
}

void write(const std::string& path, const std::vector<row>& rows) {
    std::ofstream out(path);
    const device::facts it = device::look();
    const char* const compiler = std::getenv("ROPEWALK_COMPILER");
    out << "{\"context\": {\"device\": " << quoted(it.name) << ", \"compute_capability\": \"" << it.major << '.'
        << it.minor << "\", \"multiprocessors\": " << it.multiprocessors << ", \"l2_bytes\": " << it.l2
        << ", \"cuda_driver\": " << quoted(version(it.driver)) << ", \"cuda_runtime\": " << quoted(version(it.runtime))
        << ", \"compiler\": " << quoted(compiler != nullptr ? compiler : "unknown") << "},\n\"rows\": [";
    const char* between = "\n";
    for (const row& one : rows) {
        out << between << std::setprecision(5) << "{\"candidate\": " << quoted(one.candidate)
            << ", \"type\": " << quoted(one.type) << ", \"layout\": " << quoted(one.layout)
            << ", \"heads\": " << quoted(heads_of(one)) << ", \"tokens\": " << one.tokens
            << ", \"in_place\": " << (one.in_place ? "true" : "false") << ", \"microseconds\": " << one.microseconds
            << ", \"terabytes_per_second\": " << one.terabytes_per_second()
            << ", \"ratio_to_copy\": " << one.ratio_to_copy() << ", \"error\": " << one.error << "}";
        between = ",\n";
    }
    out << "\n]}\n";
    out.close();
    if (!out) throw std::runtime_error("cannot write " + path);
}

}  // namespace bench
