/// @file  Generated inputs of the Llama tests: normal numbers, and folders for files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "support/random.hpp"

namespace test {

inline std::vector<float> normals(random& numbers, std::int64_t count, double scale = 1) {
    std::vector<float> result(static_cast<std::size_t>(count));
    for (float& x : result) x = static_cast<float>(scale * numbers.normal());
    return result;
}

/// A temporary folder, removed with the object. Its name is random, because tests run in several processes at once.
class folder {
public:
    folder() : path_(std::filesystem::temp_directory_path() / ("ropewalk_" + std::to_string(std::random_device{}()))) {
        std::filesystem::create_directory(path_);
    }
    folder(const folder&) = delete;
    folder& operator=(const folder&) = delete;
    ~folder() { std::filesystem::remove_all(path_); }
    void write(const std::string& name, const std::string& bytes) const {
        std::ofstream(path_ / name, std::ios::binary) << bytes;
    }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
};

/// A safetensors file of a header and data.
inline std::string safetensors_file(const std::string& header, const std::string& data) {
    std::string file;
    for (std::size_t i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> 8 * i & 0xffU);
    return file + header + data;
}

}  // namespace test
