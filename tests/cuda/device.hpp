/// @file  Memory, streams, graphs and clocks of a device. The host implements the same functions, so that machines
/// without a device can run everything in a device test except the kernels.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

struct CUstream_st;

namespace device {

using stream_handle = CUstream_st*;  // a cudaStream_t

/// True for a device, false for the host in its place.
bool is_real();

struct facts {
    std::string name;
    int number = 0, count = 1;
    int major = 0, minor = 0;
    int multiprocessors = 0;
    int driver = 0, runtime = 0;  ///< 13000 is 13.0
    std::size_t memory = 0, free = 0, l2 = 0;
};
facts look();
/// The facts in one line.
std::string describe();

/// Device memory of an exact size. Throws if there is not enough.
class memory {
public:
    memory() = default;
    explicit memory(std::size_t bytes);
    memory(const void* host, std::size_t bytes);
    ~memory();
    memory(memory&& other) noexcept { *this = std::move(other); }
    memory& operator=(memory&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }

    [[nodiscard]] void* data() const { return data_; }
    [[nodiscard]] std::size_t bytes() const { return bytes_; }

private:
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};

/// Copies between host and device in either direction, and waits.
void copy(void* to, const void* from, std::size_t bytes);
/// Copies from device memory to device memory in the order of a stream.
void copy_on(stream_handle stream, void* to, const void* from, std::size_t bytes);
void fill(void* at, unsigned char value, std::size_t bytes);
/// Waits for all work of the device and throws its error, if any.
void finish();
/// Makes `bytes` of device memory repeat the `period` bytes at its beginning.
void repeat(void* at, std::size_t period, std::size_t bytes);

class stream {
public:
    stream();
    ~stream();
    stream(const stream&) = delete;
    stream& operator=(const stream&) = delete;
    [[nodiscard]] stream_handle get() const { return handle_; }

private:
    stream_handle handle_ = nullptr;
};

/// Work recorded once and replayed. Allocating or waiting for the device throws while it is recorded.
class graph {
public:
    graph(const stream& on, const std::function<void(stream_handle)>& work);
    ~graph();
    graph(const graph&) = delete;
    graph& operator=(const graph&) = delete;
    void replay(const stream& on) const;
    [[nodiscard]] std::size_t nodes() const { return nodes_; }

private:
    void* handle_ = nullptr;
    std::size_t nodes_ = 0;
    std::function<void(stream_handle)> work_;  ///< of the host
};

/// Microseconds of the device for the work that work() queues on a stream.
double microseconds(const stream& on, const std::function<void()>& work);

/// Calls work(stream) on a stream whose recording has already failed, so that a launch must throw.
void with_broken_stream(const std::function<void(stream_handle)>& work);

/// Makes another device current while it is in scope.
class on_device {
public:
    explicit on_device(int number);
    ~on_device();
    on_device(const on_device&) = delete;
    on_device& operator=(const on_device&) = delete;

private:
    int before_ = 0;
};

/// Host memory that the device can read and write.
class pinned {
public:
    explicit pinned(std::size_t bytes);
    ~pinned();
    pinned(const pinned&) = delete;
    pinned& operator=(const pinned&) = delete;
    [[nodiscard]] void* data() const { return data_; }

private:
    void* data_ = nullptr;
};

}  // namespace device
