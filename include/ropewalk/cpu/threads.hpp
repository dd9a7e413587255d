// Threads of a call: OpenMP's, or those of the caller.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/error.hpp"

#if defined(RW_OPENMP)
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#if defined(RW_FORKS)
#include <pthread.h>
#include <sys/stat.h>
#endif
#endif

namespace ropewalk::cpu {

/// Threads of the caller, in place of OpenMP.
struct thread_pool {
    /// Calls task(argument, i) for every i in [0, count), on any threads and in any order, and returns when all calls
    /// have returned. Tasks do not throw. Null: no pool.
    void (*run)(void* pool, int count, void (*task)(void* argument, int index), void* argument) = nullptr;
    void* pool = nullptr;  ///< passed to `run`
    int size = 0;          ///< threads of the pool
};

/// The largest limit of threads that a call takes.
inline constexpr int most_threads = 4096;

/// Threads that a call may use. A call of less than tuning_profile::bytes_per_thread per thread uses fewer, and a small
/// call uses one. OpenMP never gets more threads than there are processors for the process, by its affinity and the
/// quota of its control group. After a call that waited for a busy core, OpenMP gets one thread for a while.
struct threads {
    int limit = 0;       ///< 0: all threads of the pool, or the default of OpenMP; 1 where neither exists
    thread_pool pool{};  ///< takes the place of OpenMP where it exists

    constexpr threads(int most = 0) : limit(most) {}          // NOLINT(google-explicit-constructor)
    constexpr threads(const thread_pool& own) : pool(own) {}  // NOLINT(google-explicit-constructor)
    constexpr threads(int most, const thread_pool& own) : limit(most), pool(own) {}
};

namespace detail {

inline namespace RW_ISA {

inline void check_threads(const threads& given) {
    RW_EXPECTS(given.limit >= 0, "threads must not be negative, got {} (0 takes the default)", given.limit);
    RW_EXPECTS(given.limit <= most_threads, "threads must be at most {}, got {}", most_threads, given.limit);
    RW_EXPECTS(given.pool.run == nullptr || given.pool.size >= 1, "a thread pool needs at least 1 thread, got {}",
               given.pool.size);
}

#if defined(RW_OPENMP)

/// State of a forked child whose parent had threads. The threads of GCC's OpenMP do not survive a fork, and the child
/// would wait for them forever.
class parent_threads {
public:
    static bool lost() { return lost_.load(std::memory_order_relaxed); }

    /// Call before threads start, so that children know. A compiled library calls it when it is loaded, because other
    /// libraries of the process may start threads of the same OpenMP.
    static void record() {
#if defined(RW_FORKS)
        const auto count = [] {
            struct ::stat folder {};  // it has a link per thread, and two of its own
            several_.store(::stat("/proc/self/task", &folder) != 0 || folder.st_nlink != 3);
        };
        static const int registered =
            pthread_atfork(count, nullptr, [] { lost_.store(lost_.load() || several_.load()); });
        (void)registered;
#endif
    }

private:
    inline static std::atomic<bool> lost_{false}, several_{true};
};

/// Reads up to two numbers from a file, "max" as -1. Returns how many there are.
inline int read_numbers(const std::string& path, double (&numbers)[2]) {
    std::FILE* const file = std::fopen(path.c_str(), "re");
    if (file == nullptr) return 0;
    char words[2][32];
    const int count = std::fscanf(file, "%31s %31s", words[0], words[1]);
    std::fclose(file);
    for (int i = 0; i < count; ++i) numbers[i] = std::string(words[i]) == "max" ? -1 : std::atof(words[i]);
    return std::max(count, 0);
}

/// Processors that the quota of a control group is worth, rounded up, at most `most`. Version 2 has one file in the
/// folder of the group, version 1 two.
inline int quota_of_group(const std::string& folder, int most) {
    double quota[2], period[2];
    if (read_numbers(folder + "/cpu.max", quota) != 2) {
        if (read_numbers(folder + "/cpu/cpu.cfs_quota_us", quota) != 1) return most;
        if (read_numbers(folder + "/cpu/cpu.cfs_period_us", period) != 1) return most;
        quota[1] = period[0];
    }
    if (!(quota[0] > 0 && quota[1] > 0)) return most;
    const double processors = std::ceil(quota[0] / quota[1]);
    return processors < most ? std::max(static_cast<int>(processors), 1) : most;
}

/// The same for a process, whose groups of version 2 are those of a path, "0::/a/b" in the file `groups`. `root` is the
/// folder of the outermost group.
inline int quota_of_process(const std::string& root, const char* groups, int most) {
    int least = quota_of_group(root, most);
    std::FILE* const file = std::fopen(groups, "re");
    if (file == nullptr) return least;
    char line[4096];
    while (std::fgets(line, sizeof line, file) != nullptr) {
        std::string path(line);
        if (path.rfind("0::/", 0) != 0) continue;
        path = path.substr(3, path.find_last_not_of('\n') - 2);
        for (; path.size() > 1; path.resize(path.rfind('/'))) least = quota_of_group(root + path, least);
    }
    std::fclose(file);
    return least;
}

/// Processors that the process may use. GCC's OpenMP ends the process if it cannot create a thread.
inline int usable_processors() {
    static const int quota = quota_of_process("/sys/fs/cgroup", "/proc/self/cgroup", most_threads);
    return std::clamp(omp_get_num_procs(), 1, quota);
}

/// Calls that waited for an OpenMP thread. The end of a parallel region waits for every thread, and one whose core is
/// taken by another process runs only after that process: 4 to 20 ms, where the call needs 50 µs. For ten times the
/// time of such a call, the next calls run on one thread, so that waiting takes at most a tenth of the time.
class late_threads {
public:
    using clock = std::chrono::steady_clock;

    static bool expected(clock::time_point now = clock::now()) {
        return now.time_since_epoch().count() < until_.load(relaxed);
    }

    /// Records a call whose threads have equal parts: when it began, when the first part ended, and when all had ended.
    /// Waking a thread takes up to 0.2 ms.
    static void record(clock::time_point begin, clock::time_point first_end, clock::time_point end) {
        const clock::duration tolerated = std::chrono::microseconds(500) + 4 * (first_end - begin);
        if (end - first_end > tolerated) until_.store((end + 10 * (end - begin)).time_since_epoch().count(), relaxed);
    }

private:
    static constexpr auto relaxed = std::memory_order_relaxed;
    inline static std::atomic<clock::rep> until_{0};
};

/// OpenMP as a thread pool, which records calls that waited.
inline thread_pool openmp_pool(int size) {
    const auto run = [](void*, int count, void (*task)(void*, int), void* argument) {
        using clock = late_threads::clock;
        const clock::time_point begin = clock::now();
        std::atomic<clock::rep> first_end{0};
#pragma omp parallel for num_threads(count) schedule(static, 1)
        for (int i = 0; i < count; ++i) {
            task(argument, i);
            clock::rep none = 0;
            first_end.compare_exchange_strong(none, clock::now().time_since_epoch().count());
        }
        late_threads::record(begin, clock::time_point(clock::duration(first_end.load())), clock::now());
    };
    return {run, nullptr, size};
}

#endif

/// A pool for `parts` parts of work, each of which pays for waking a thread. Its size is the number of threads to use:
/// 1 where threads do not pay.
inline thread_pool pool_for(std::int64_t parts, const threads& given) {
    const auto at_most = [](std::int64_t size, std::int64_t limit) {
        return static_cast<int>(limit < size ? limit : size);
    };
    if (parts <= 1) return {nullptr, nullptr, 1};
    if (given.pool.run != nullptr) {
        thread_pool pool = given.pool;
        if (given.limit > 0) pool.size = at_most(pool.size, given.limit);
        pool.size = at_most(pool.size, parts);
        return pool;
    }
#if defined(RW_OPENMP)
    // One thread inside a parallel region, and in the forked child of a process with several threads.
    if (omp_in_parallel() != 0 || parent_threads::lost()) return {nullptr, nullptr, 1};
    int size = at_most(given.limit > 0 ? given.limit : omp_get_max_threads(), parts);
    if (size > 1) size = std::min(size, usable_processors());
    if (size > 1) {
        parent_threads::record();
        return openmp_pool(size);
    }
#endif
    return {nullptr, nullptr, 1};
}

/// The number of OpenMP threads for `parts` parts of work, at most `limit`.
inline int thread_count(std::int64_t parts, int limit) { return pool_for(parts, limit).size; }

}  // namespace RW_ISA
}  // namespace detail
}  // namespace ropewalk::cpu
