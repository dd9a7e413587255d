// Context of a measurement: machine, compiler, commit and date, stored with every result.
#pragma once

#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <string>

namespace bench {

/// The output of a command without the final newline, or "unknown" if it prints nothing.
inline std::string output_of(const std::string& command) {
    std::string text;
    if (FILE* const pipe = popen(command.c_str(), "r")) {
        std::array<char, 256> buffer{};
        while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) text += buffer.data();
        pclose(pipe);
    }
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text.empty() ? "unknown" : text;
}

/// The model name of the processor.
inline std::string machine() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
        if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
    }
    return "unknown";
}

inline std::string compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "g++ " __VERSION__;
#endif
}

/// The git description of the sources in ROPEWALK_SOURCE_DIR.
inline std::string commit() {
    return output_of("git -C '" ROPEWALK_SOURCE_DIR "' describe --always --dirty 2>/dev/null");
}

/// The current time in the format 2026-01-31T12:00:00+00:00.
inline std::string date() {
    const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    std::array<char, 32> text{};
    return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S+00:00", std::gmtime(&now))};
}

}  // namespace bench
