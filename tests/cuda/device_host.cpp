// Functions of device.hpp on the host, in place of a device.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>

#include "device.hpp"

namespace device {

namespace {

/// Small allocations 512 bytes apart, as on devices. A range that is taken to be too long reaches the next one.
class small_pieces {
public:
    static constexpr std::size_t max_bytes = 1U << 20, alignment = 512;

    /// Returns null if there is no room.
    void* take(std::size_t bytes) {
        std::size_t at = 0;
        auto next = used_.begin();
        while (next != used_.end() && at + bytes > next->first) {
            at = next->second;
            ++next;
        }
        if (at + bytes > room) return nullptr;
        used_.emplace_hint(next, at, (at + bytes + alignment - 1) / alignment * alignment);
        return begin_ + at;
    }
    bool give_back(void* data) {
        return used_.erase(static_cast<std::size_t>(static_cast<std::byte*>(data) - begin_)) > 0;
    }

private:
    static constexpr std::size_t room = 1U << 26;
    std::byte* begin_ = static_cast<std::byte*>(::operator new(room, std::align_val_t{alignment}));  // never freed
    std::map<std::size_t, std::size_t> used_;
};

small_pieces& pieces() {
    static small_pieces all;
    return all;
}

void* allocate(std::size_t bytes) {
    if (bytes == 0) return nullptr;
    void* const small = bytes <= small_pieces::max_bytes ? pieces().take(bytes) : nullptr;
    return small != nullptr ? small : ::operator new(bytes, std::align_val_t{small_pieces::alignment});
}

}  // namespace

bool is_real() { return false; }
facts look() { return {.name = "host", .multiprocessors = 4, .memory = 1U << 30, .free = 1U << 30, .l2 = 1U << 12}; }
std::string describe() { return "no device: the host executes the kernels"; }

memory::memory(std::size_t bytes) : data_(allocate(bytes)), bytes_(bytes) {}
memory::memory(const void* host, std::size_t bytes) : memory(bytes) { copy(data_, host, bytes); }
memory::~memory() {
    if (data_ != nullptr && !pieces().give_back(data_))
        ::operator delete(data_, std::align_val_t{small_pieces::alignment});
}

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
