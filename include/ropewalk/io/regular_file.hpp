// Files of untrusted paths, opened for reading: a device, a FIFO or a folder is refused, and none of them blocks.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/error.hpp"

#if defined(RW_MAPS_FILES)
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace ropewalk::detail {

/// Returns what a path is if it is no regular file, else "".
inline std::string kind_of_path(std::filesystem::file_type type) {
    switch (type) {
        case std::filesystem::file_type::directory:
            return "a folder";
        case std::filesystem::file_type::character:
            return "a character device";
        case std::filesystem::file_type::block:
            return "a block device";
        case std::filesystem::file_type::fifo:
            return "a FIFO";
        case std::filesystem::file_type::socket:
            return "a socket";
        default:
            return "";
    }
}

/// Throws, with the path and what it is, unless a path is a regular file or cannot be looked at.
inline void expect_regular_file(const std::filesystem::path& path) {
    std::error_code problem;
    const std::string kind = kind_of_path(std::filesystem::status(path, problem).type());
    RW_EXPECTS(kind.empty(), "{} is {}, expected a file", path.string(), kind);
}

#if defined(RW_MAPS_FILES)

/// A regular file, open for reading. Throws ropewalk::error, with the path, for anything else.
class regular_file {
public:
    explicit regular_file(const std::filesystem::path& path) : name_(path.string()) {
        // A FIFO without a writer would block.
        descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        const int problem = errno;
        if (descriptor_ < 0) expect_regular_file(path);
        RW_EXPECTS(descriptor_ >= 0, "cannot read {}: {}", name_, std::strerror(problem));
        struct ::stat status {};
        const bool regular = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
        if (regular) {
            size_ = static_cast<std::size_t>(status.st_size);
            return;
        }
        ::close(descriptor_);
        expect_regular_file(path);
        fail("cannot read {}: it is not a regular file", name_);
    }
    regular_file(const regular_file&) = delete;
    regular_file& operator=(const regular_file&) = delete;
    ~regular_file() { ::close(descriptor_); }

    [[nodiscard]] int descriptor() const { return descriptor_; }
    [[nodiscard]] std::size_t size() const { return size_; }

    /// Reads from the beginning to the end, at most `limit` bytes.
    [[nodiscard]] std::string read(std::size_t limit) const {
        std::string text;
        while (text.size() < limit) {
            const std::size_t had = text.size();
            // The system states a size of 0 for files that it generates.
            text.resize(std::min(limit, had + size_ + 4096));
            const ::ssize_t count = ::read(descriptor_, text.data() + had, text.size() - had);
            RW_EXPECTS(count >= 0 || errno == EINTR, "cannot read {}: {}", name_, std::strerror(errno));
            text.resize(had + static_cast<std::size_t>(count > 0 ? count : 0));
            if (count == 0) break;
        }
        return text;
    }

private:
    std::string name_;
    int descriptor_ = -1;
    std::size_t size_ = 0;
};

#else

class regular_file {
public:
    explicit regular_file(const std::filesystem::path& path) {
        expect_regular_file(path);
        file_.open(path, std::ios::binary | std::ios::ate);
        RW_EXPECTS(file_, "cannot read {}", path.string());
        size_ = static_cast<std::size_t>(file_.tellg());
        file_.seekg(0);
    }

    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::string read(std::size_t limit) {
        std::string text(std::min(limit, size_), '\0');
        file_.read(text.data(), static_cast<std::streamsize>(text.size()));
        text.resize(static_cast<std::size_t>(file_.gcount()));
        return text;
    }

private:
    std::ifstream file_;
    std::size_t size_ = 0;
};

#endif

}  // namespace ropewalk::detail
