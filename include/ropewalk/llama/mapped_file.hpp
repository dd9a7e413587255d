// A file mapped to memory for reading.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/io/regular_file.hpp"

#if defined(RW_MAPS_FILES)
#include <sys/mman.h>
#endif

namespace ropewalk::llama {

/// The bytes of a file, shared by copies of the object. The system reads only the pages that are used; without mmap()
/// the constructor reads the whole file. The file must not shrink while it is mapped: reading a page past its end
/// raises SIGBUS, which ends the process unless the program handles it (examples/giraffe/bus_error.hpp). Throws
/// ropewalk::error that names the file if it cannot be read, or what the path is if it is no regular file.
class mapped_file {
public:
    explicit mapped_file(const std::filesystem::path& path) {
#if defined(RW_MAPS_FILES)
        const ropewalk::detail::regular_file file(path);
        size_ = file.size();
        void* const start = size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
        RW_EXPECTS(start != MAP_FAILED, "cannot map {}, {} bytes: {}", path.string(), size_, std::strerror(errno));
        data_ = {static_cast<std::byte*>(start), [size = size_](std::byte* data) {
                     if (data != nullptr) ::munmap(data, size);
                 }};
#else
        ropewalk::detail::regular_file file(path);
        const std::string text = file.read(size_ = file.size());
        RW_EXPECTS(text.size() == size_, "cannot read {}, {} bytes", path.string(), size_);
        data_ = std::make_shared<std::byte[]>(size_);
        std::memcpy(data_.get(), text.data(), size_);
#endif
    }

    [[nodiscard]] std::span<const std::byte> bytes() const { return {data_.get(), size_}; }

private:
    std::shared_ptr<std::byte[]> data_;
    std::size_t size_ = 0;
};

}  // namespace ropewalk::llama
