// Message for a mapped file that shrinks while the program reads it. The system then sends SIGBUS.
#pragma once

#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

namespace giraffe {

namespace detail {

// Functions of this file are async-signal-safe: they allocate nothing and call open(), read(), write() and _exit()
// only.

inline void write_error(std::string_view text) {
    while (!text.empty()) {
        const ::ssize_t count = ::write(STDERR_FILENO, text.data(), text.size());
        if (count <= 0) return;
        text.remove_prefix(static_cast<std::size_t>(count));
    }
}

/// Returns the path of a line of /proc/self/maps if the line is about this address, else "".
inline std::string_view path_of(std::string_view line, std::uintptr_t address) {
    std::uintptr_t begin = 0, end = 0;
    const char* const last = line.data() + line.size();
    const auto first = std::from_chars(line.data(), last, begin, 16);
    if (first.ec != std::errc{} || first.ptr == last) return {};
    if (std::from_chars(first.ptr + 1, last, end, 16).ec != std::errc{} || address < begin || address >= end) return {};
    const std::size_t path = line.find('/');
    return path == std::string_view::npos ? std::string_view{} : line.substr(path);
}

/// Calls found(path) with the file that is mapped at an address, as Linux knows it. Returns false if there is none.
template <class Found>
bool with_mapped_file(std::uintptr_t address, const Found& found) {
    const int maps = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (maps < 0) return false;
    char line[8192];  // a path has at most 4096 bytes
    std::size_t held = 0;
    bool any = false;
    while (!any) {
        const ::ssize_t count = ::read(maps, line + held, sizeof line - held);
        if (count <= 0) break;
        held += static_cast<std::size_t>(count);
        std::size_t begin = 0;
        for (std::size_t at = 0; at < held && !any; ++at) {
            if (line[at] != '\n') continue;
            const std::string_view path = path_of({line + begin, at - begin}, address);
            if (!path.empty()) found(path), any = true;
            begin = at + 1;
        }
        for (std::size_t i = begin; i < held; ++i) line[i - begin] = line[i];
        held -= begin;
        if (held == sizeof line) break;
    }
    ::close(maps);
    return any;
}

extern "C" inline void end_by_bus_error(int /*signal*/, siginfo_t* info, void* /*context*/) {
    const bool named = with_mapped_file(reinterpret_cast<std::uintptr_t>(info->si_addr), [](std::string_view path) {
        write_error("giraffe_13b: ropewalk: cannot read ");
        write_error(path);
        write_error(": the file was truncated while it was mapped, or its device failed (SIGBUS)\n");
    });
    if (named) ::_exit(EXIT_FAILURE);
    // Another cause: the instruction runs again and ends the program as it would without a handler.
    std::signal(SIGBUS, SIG_DFL);
}

}  // namespace detail

/// From now on, ends the program with a message and exit code 1 when a mapped file has become too short. Needs Linux:
/// on other systems the signal ends the program as before.
inline void report_bus_errors() {
    struct ::sigaction action {};
    action.sa_sigaction = detail::end_by_bus_error;
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace giraffe
