// A file mapped to memory for reading.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/error.hpp"

#if defined(RW_MAPS_FILES)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <fstream>
#endif

namespace ropewalk::llama {

/// The bytes of a file, shared by copies of the object. The system reads only the pages that are used; without mmap()
/// the constructor reads the whole file. The file must not shrink while it is mapped. Throws ropewalk::error that names
/// the file if it cannot be read.
class mapped_file {
public:
    explicit mapped_file(const std::filesystem::path& path) {
#if defined(RW_MAPS_FILES)
        const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        RW_EXPECTS(file >= 0, "cannot read {}: {}", path.string(), std::strerror(errno));
        struct ::stat status {};
        const bool regular = ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
        size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
        void* const start = size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
        const int problem = errno;
        ::close(file);
        RW_EXPECTS(regular, "cannot read {}: it is not a regular file", path.string());
        RW_EXPECTS(start != MAP_FAILED, "cannot map {}, {} bytes: {}", path.string(), size_, std::strerror(problem));
        data_ = {static_cast<std::byte*>(start), [size = size_](std::byte* data) {
                     if (data != nullptr) ::munmap(data, size);
                 }};
#else
        std::ifstream file(path, std::ios::binary | std::ios::ate);
        RW_EXPECTS(file, "cannot read {}", path.string());
        size_ = static_cast<std::size_t>(file.tellg());
        data_ = std::make_shared<std::byte[]>(size_);
        file.seekg(0).read(reinterpret_cast<char*>(data_.get()), static_cast<std::streamsize>(size_));
        RW_EXPECTS(file, "cannot read {}, {} bytes", path.string(), size_);
#endif
    }

    [[nodiscard]] std::span<const std::byte> bytes() const { return {data_.get(), size_}; }

private:
    std::shared_ptr<std::byte[]> data_;
    std::size_t size_ = 0;
};

}  // namespace ropewalk::llama
