// The host plays the device.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>

#include "device.hpp"

namespace device {

bool is_real() { return false; }
facts look() { return {.name = "host", .multiprocessors = 4, .memory = 1U << 30, .free = 1U << 30, .l2 = 1U << 12}; }
std::string describe() { return "no device: the host plays one"; }

memory::memory(std::size_t bytes)
    : data_(bytes > 0 ? ::operator new(bytes, std::align_val_t{256}) : nullptr), bytes_(bytes) {}
memory::memory(const void* host, std::size_t bytes) : memory(bytes) { copy(data_, host, bytes); }
memory::~memory() { ::operator delete(data_, std::align_val_t{256}); }

void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
}
void copy_on(stream_handle /*stream*/, void* to, const void* from, std::size_t bytes) { copy(to, from, bytes); }
void fill(void* at, unsigned char value, std::size_t bytes) { std::memset(at, value, bytes); }
void finish() {}
void repeat(void* at, std::size_t period, std::size_t bytes) {
    auto* const begin = static_cast<unsigned char*>(at);
    for (std::size_t i = period; i < bytes; ++i) begin[i] = begin[i - period];
}

stream::stream() = default;
stream::~stream() = default;

graph::graph(const stream& on, const std::function<void(stream_handle)>& work) : nodes_(1), work_(work) { (void)on; }
graph::~graph() = default;
void graph::replay(const stream& on) const { work_(on.get()); }

double microseconds(const stream& /*on*/, const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

void with_broken_stream(const std::function<void(stream_handle)>& work) { work(nullptr); }

on_device::on_device(int /*number*/) {}
on_device::~on_device() = default;

pinned::pinned(std::size_t bytes) : data_(std::malloc(bytes)) {}
pinned::~pinned() { std::free(data_); }

}  // namespace device
