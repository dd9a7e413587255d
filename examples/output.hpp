// What the programs write is found to be writable before they measure, and to be written before they end.
#pragma once

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <system_error>

#include <ropewalk/core/error.hpp>

namespace output {

/// Throws where no such file could be written. What is there stays as it is.
inline void check_file(const std::filesystem::path& path) {
    namespace fs = std::filesystem;
    std::error_code unknown;
    const fs::file_type kind = fs::status(path, unknown).type();
    // A pipe that is opened and closed has ended for who reads it.
    if (kind == fs::file_type::fifo || kind == fs::file_type::character || kind == fs::file_type::socket) return;
    RW_EXPECTS(std::ofstream(path, std::ios::app).is_open(), "cannot write {}", path.string());
    // Not by the name that was given, which may be a link's.
    if (kind == fs::file_type::not_found) fs::remove(fs::canonical(path, unknown), unknown);
}

/// Throws where lines were lost.
inline void check_printed() {
    RW_EXPECTS(std::fflush(stdout) == 0 && std::ferror(stdout) == 0,
               "cannot write to standard output: where it goes is full or closed");
}

}  // namespace output
