// A file as memory.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <utility>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/error.hpp"

#if defined(RW_MAPS_FILES)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <fstream>
#include <memory>
#endif

namespace ropewalk::llama {

/// The bytes of a file, for reading: mapped, so that only what is looked at is read, and shared with other processes.
/// (Read as a whole where the system has no mmap.) The file must not shrink meanwhile. Throws ropewalk::error, which
/// names the file, where it cannot be read.
class mapped_file {
public:
    explicit mapped_file(const std::filesystem::path& path) {
#if defined(RW_MAPS_FILES)
        const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        RW_EXPECTS(file >= 0, "cannot read {}: {}", path.string(), std::strerror(errno));
        struct ::stat about {};
        const bool known = ::fstat(file, &about) == 0 && S_ISREG(about.st_mode);
        size_ = known ? static_cast<std::size_t>(about.st_size) : 0;
        void* const start = size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
        const int problem = errno;
        ::close(file);
        RW_EXPECTS(known, "cannot read {}: it is no regular file", path.string());
        RW_EXPECTS(start != MAP_FAILED, "cannot map {}, {} bytes: {}", path.string(), size_, std::strerror(problem));
        data_ = static_cast<const std::byte*>(start);
#else
        std::ifstream file(path, std::ios::binary | std::ios::ate);
        RW_EXPECTS(file, "cannot read {}", path.string());
        size_ = static_cast<std::size_t>(file.tellg());
        own_ = std::make_unique<std::byte[]>(size_);
        file.seekg(0);
        file.read(reinterpret_cast<char*>(own_.get()), static_cast<std::streamsize>(size_));
        RW_EXPECTS(file, "cannot read {}, {} bytes", path.string(), size_);
        data_ = own_.get();
#endif
    }
    mapped_file(mapped_file&& other) noexcept { swap(other); }
    mapped_file& operator=(mapped_file&& other) noexcept {
        swap(other);
        return *this;
    }
    mapped_file(const mapped_file&) = delete;
    mapped_file& operator=(const mapped_file&) = delete;
    ~mapped_file() {
#if defined(RW_MAPS_FILES)
        if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
#endif
    }

    [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }

private:
    void swap(mapped_file& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
#if !defined(RW_MAPS_FILES)
        std::swap(own_, other.own_);
#endif
    }

    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
#if !defined(RW_MAPS_FILES)
    std::unique_ptr<std::byte[]> own_;
#endif
};

}  // namespace ropewalk::llama
