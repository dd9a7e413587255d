// Functions of device.hpp on a CUDA device.
#include "device.hpp"

#include <cuda_runtime_api.h>

#include <sstream>
#include <stdexcept>

namespace device {

namespace {

void expect(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    (void)cudaGetLastError();
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) +
                             ")");
}

int attribute(cudaDeviceAttr which, int number) {
    int value = 0;
    expect(cudaDeviceGetAttribute(&value, which, number), "cudaDeviceGetAttribute");
    return value;
}

}  // namespace

bool is_real() { return true; }

facts look() {
    facts result;
    expect(cudaGetDevice(&result.number), "cudaGetDevice");
    expect(cudaGetDeviceCount(&result.count), "cudaGetDeviceCount");
    cudaDeviceProp properties{};
    expect(cudaGetDeviceProperties(&properties, result.number), "cudaGetDeviceProperties");
    result.name = properties.name;
    result.major = properties.major, result.minor = properties.minor;
    result.multiprocessors = properties.multiProcessorCount;
    result.l2 = static_cast<std::size_t>(attribute(cudaDevAttrL2CacheSize, result.number));
    expect(cudaMemGetInfo(&result.free, &result.memory), "cudaMemGetInfo");
    expect(cudaDriverGetVersion(&result.driver), "cudaDriverGetVersion");
    expect(cudaRuntimeGetVersion(&result.runtime), "cudaRuntimeGetVersion");
    return result;
}

std::string describe() {
    const facts device = look();
    std::ostringstream text;
    text << device.name << " (compute capability " << device.major << '.' << device.minor << ", "
         << device.multiprocessors << " multiprocessors, " << (device.free >> 20) << " of " << (device.memory >> 20)
         << " MiB free, driver for CUDA " << device.driver / 1000 << '.' << device.driver % 1000 / 10 << ", runtime "
         << device.runtime / 1000 << '.' << device.runtime % 1000 / 10 << ")";
    return text.str();
}

memory::memory(std::size_t bytes) : bytes_(bytes) {
    if (bytes > 0) expect(cudaMalloc(&data_, bytes), "cudaMalloc");
}
memory::memory(const void* host, std::size_t bytes) : memory(bytes) { copy(data_, host, bytes); }
memory::~memory() { (void)cudaFree(data_); }

void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes == 0) return;
    // The streams of the tests and the default stream do not wait for each other.
    finish();
    expect(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "cudaMemcpy");
    finish();
}
void copy_on(stream_handle stream, void* to, const void* from, std::size_t bytes) {
    expect(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync");
}
void fill(void* at, unsigned char value, std::size_t bytes) {
    expect(cudaMemset(at, value, bytes), "cudaMemset");
    finish();
}
void finish() { expect(cudaDeviceSynchronize(), "the device reports"); }

void repeat(void* at, std::size_t period, std::size_t bytes) {
    auto* const begin = static_cast<unsigned char*>(at);
    for (std::size_t done = period; done < bytes; done *= 2)
        copy(begin + done, begin, done < bytes - done ? done : bytes - done);
}

stream::stream() { expect(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "cudaStreamCreate"); }
stream::~stream() { (void)cudaStreamDestroy(handle_); }

graph::graph(const stream& on, const std::function<void(stream_handle)>& work) {
    expect(cudaStreamBeginCapture(on.get(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
    cudaGraph_t recorded = nullptr;
    try {
        work(on.get());
    } catch (...) {
        (void)cudaStreamEndCapture(on.get(), &recorded);
        (void)cudaGraphDestroy(recorded);
        (void)cudaGetLastError();
        throw;
    }
    expect(cudaStreamEndCapture(on.get(), &recorded), "cudaStreamEndCapture");
    cudaGraphExec_t ready = nullptr;
    const cudaError_t counted = cudaGraphGetNodes(recorded, nullptr, &nodes_);
    const cudaError_t instantiated = cudaGraphInstantiate(&ready, recorded, 0);
    (void)cudaGraphDestroy(recorded);
    expect(counted, "cudaGraphGetNodes");
    expect(instantiated, "cudaGraphInstantiate");
    handle_ = ready;
}
graph::~graph() { (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(handle_)); }
void graph::replay(const stream& on) const {
    expect(cudaGraphLaunch(static_cast<cudaGraphExec_t>(handle_), on.get()), "cudaGraphLaunch");
}

double microseconds(const stream& on, const std::function<void()>& work) {
    struct event {
        cudaEvent_t handle = nullptr;
        event() { expect(cudaEventCreate(&handle), "cudaEventCreate"); }
        ~event() { (void)cudaEventDestroy(handle); }
    };
    const event begin, end;
    expect(cudaEventRecord(begin.handle, on.get()), "cudaEventRecord");
    work();
    expect(cudaEventRecord(end.handle, on.get()), "cudaEventRecord");
    expect(cudaEventSynchronize(end.handle), "cudaEventSynchronize");
    float milliseconds = 0;
    expect(cudaEventElapsedTime(&milliseconds, begin.handle, end.handle), "cudaEventElapsedTime");
    return static_cast<double>(milliseconds) * 1e3;
}

void with_broken_stream(const std::function<void(stream_handle)>& work) {
    const stream on;
    expect(cudaStreamBeginCapture(on.get(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
    // Waiting for a stream while it is recorded ends the recording, and launches on it fail.
    (void)cudaStreamSynchronize(on.get());
    (void)cudaGetLastError();
    const auto end = [&] {
        cudaGraph_t recorded = nullptr;
        (void)cudaStreamEndCapture(on.get(), &recorded);
        if (recorded != nullptr) (void)cudaGraphDestroy(recorded);
        (void)cudaGetLastError();
    };
    try {
        work(on.get());
    } catch (...) {
        end();
        throw;
    }
    end();
}

on_device::on_device(int number) : before_(look().number) { expect(cudaSetDevice(number), "cudaSetDevice"); }
on_device::~on_device() { (void)cudaSetDevice(before_); }

pinned::pinned(std::size_t bytes) { expect(cudaMallocHost(&data_, bytes), "cudaMallocHost"); }
pinned::~pinned() { (void)cudaFreeHost(data_); }

}  // namespace device
