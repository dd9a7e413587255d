#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "calls.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

TEST_CASE("any number of threads gives the same bits", "[threads]") {
    SEEDED(numbers);
    for (const char* const expression : {"linear:4", "xpos", "randomized:seed=2"}) {
        const rw::Encoding e = rw::make_encoding({.head_dim = 128}, expression);
        for (const rw::element_type type : test::all_types) {
            for (const test::order axes : {test::order::bshd, test::order::bhsd}) {
                const auto layout = test::all_layouts[numbers.integer(0, 1)];
                const test::array q(type, {2, 130, 8, 128}, numbers, axes), k(type, {2, 130, 2, 128}, numbers, axes);
                test::array first_q = q, first_k = k;
                test::rotate_both(layout, first_q, first_k, e, rw::offset{0}, {.threads = 1});
                CHECK_FALSE(first_q == q);
                for (const int threads : {2, 3, 0}) {
                    test::array q_rotated = q, k_rotated = k;
                    test::rotate_both(layout, q_rotated, k_rotated, e, rw::offset{0}, {.threads = threads});
                    INFO(expression << ' ' << rw::to_string(type) << " threads " << threads);
                    CHECK(q_rotated == first_q);
                    CHECK(k_rotated == first_k);
                }
            }
        }
    }
}

TEST_CASE("tables and re-rotated keys do not depend on the threads", "[threads]") {
    SEEDED(numbers);
    const rw::Encoding source = rw::make_encoding({.head_dim = 128}, "linear:4"),
                       target = rw::make_encoding({.head_dim = 128}, "linear:8");
    std::vector<float> cos[2], sin[2];
    for (int i = 0; i < 2; ++i) {
        cos[i].resize(3000 * 64), sin[i].resize(3000 * 64);
        rw::dispatch::cos_sin(rw::layout_kind::half_split, source, rw::offset{5}, 3000, 64, cos[i], sin[i], 1 + 2 * i);
    }
    CHECK((cos[0] == cos[1]));
    CHECK((sin[0] == sin[1]));
    test::array single(rw::element_type::bf16, {1, 700, 8, 128}, numbers), several = single;
    test::rerotate(rw::layout_kind::half_split, single, source, rw::offset{0}, target, rw::offset{9}, 1);
    test::rerotate(rw::layout_kind::half_split, several, source, rw::offset{0}, target, rw::offset{9}, 3);
    CHECK(single == several);
}

namespace {

/// A pool that runs its tasks one after another, the last first, and counts them.
struct reversed_pool {
    int tasks = 0;

    static void run(void* pool, int count, void (*task)(void*, int), void* argument) {
        for (int i = count - 1; i >= 0; --i) task(argument, i), ++static_cast<reversed_pool*>(pool)->tasks;
    }
    rw::cpu::thread_pool of_size(int size) { return {run, this, size}; }
};

}  // namespace

TEST_CASE("the threads of the caller take the place of OpenMP", "[threads]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding({.head_dim = 128}, "linear:4");
    const test::array start(rw::element_type::f32, {1, 130, 8, 128}, numbers);
    test::array expected = start;
    test::rotate_q(rw::layout_kind::half_split, expected, e, rw::offset{3}, {.threads = 1});
    const auto tasks = [&](rw::cpu::options options, reversed_pool& pool) {
        test::array x = start;
        test::rotate_q(rw::layout_kind::half_split, x, e, rw::offset{3}, options);
        CHECK(x == expected);
        return pool.tasks;
    };
    reversed_pool pool, limited, single;
    CHECK(tasks({.threads = pool.of_size(3)}, pool) == 3);
    CHECK(tasks({.threads = {2, limited.of_size(3)}}, limited) == 2);
    CHECK(tasks({.threads = {1, single.of_size(3)}}, single) == 0);

    test::array x = start;
    const auto rotate = [&](const rw::cpu::threads& threads) {
        test::rotate_q(rw::layout_kind::half_split, x, e, rw::offset{3}, {.threads = threads});
    };
    CHECK_REFUSED(rotate(-1), "threads", "-1");
    CHECK_REFUSED(rotate(4097), "threads must be at most 4096, got 4097");
    CHECK_REFUSED(rotate(pool.of_size(0)), "thread pool", "0");
    CHECK(x == start);
}

#if defined(RW_OPENMP)
#if defined(_OPENMP)
TEST_CASE("after a call that waited for a thread, calls run on one thread for ten times as long", "[threads]") {
    using late = rw::cpu::detail::late_threads;
    using std::chrono::microseconds;
    const late::clock::time_point begin = late::clock::now() - std::chrono::hours(1);  // other tests see no effect
    const auto record = [](late::clock::time_point at, int first_end, int end) {
        late::record(at, at + microseconds(first_end), at + microseconds(end));
    };
    record(begin, 50, 8000);
    CHECK(late::expected(begin + microseconds(8000)));
    CHECK(late::expected(begin + microseconds(87999)));
    CHECK_FALSE(late::expected(begin + microseconds(88001)));
    const late::clock::time_point later = begin + std::chrono::seconds(1);
    record(later, 50, 700);        // a thread that was woken
    record(later, 30000, 140000);  // a long call
    CHECK_FALSE(late::expected(later + microseconds(701)));
    record(later, 50, 800);
    CHECK(late::expected(later + microseconds(801)));
    CHECK_FALSE(late::expected(later + microseconds(8801)));
}
#endif

TEST_CASE("the quotas of all control groups of a process limit its threads", "[threads]") {
    const auto root = std::filesystem::temp_directory_path() / "ropewalk_quotas_test";
    std::filesystem::remove_all(root);
    const auto write = [&](const std::string& file, const std::string& text) {
        std::filesystem::create_directories((root / file).parent_path());
        std::ofstream(root / file) << text;
    };
    const auto quota = [&] { return rw::cpu::detail::quota_of_process(root.string(), (root / "groups").c_str(), 64); };
    CHECK(quota() == 64);
    write("cpu/cpu.cfs_quota_us", "-1\n");
    write("cpu/cpu.cfs_period_us", "100000\n");
    CHECK(quota() == 64);
    write("cpu/cpu.cfs_quota_us", "250000\n");
    CHECK(quota() == 3);
    write("cpu.max", "max 100000\n");
    CHECK(quota() == 64);
    write("groups", "1:cpu:/\n0::/slice/unit\n");
    write("slice/unit/cpu.max", "max 100000\n");
    write("slice/cpu.max", "800000 100000\n");
    CHECK(quota() == 8);
    write("slice/unit/cpu.max", "1000 100000\n");
    CHECK(quota() == 1);
    write("slice/unit/cpu.max", "nonsense\n");
    CHECK(quota() == 8);
    std::filesystem::remove_all(root);
    CHECK(rw::cpu::detail::usable_processors() >= 1);
}
#endif
