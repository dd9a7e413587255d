// Checks of output files: writable before a measurement starts, and completely written at its end.
#pragma once

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <system_error>

#include <ropewalk/core/error.hpp>

namespace output {

/// Throws if the file cannot be written. An existing file stays unchanged.
inline void check_file(const std::filesystem::path& path) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    const fs::file_type kind = fs::status(path, ignored).type();
    // Opening and closing a pipe would end it for its reader.
    if (kind == fs::file_type::fifo || kind == fs::file_type::character || kind == fs::file_type::socket) return;
    RW_EXPECTS(std::ofstream(path, std::ios::app).is_open(), "cannot write {}", path.string());
    // The canonical name, because the given one may be a link.
    if (kind == fs::file_type::not_found) fs::remove(fs::canonical(path, ignored), ignored);
}

/// Throws if standard output lost lines.
inline void check_printed() {
    RW_EXPECTS(std::fflush(stdout) == 0 && std::ferror(stdout) == 0,
               "cannot write to standard output: the disk is full or the pipe is closed");
}

}  // namespace output
