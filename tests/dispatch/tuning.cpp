// Tuning profiles: equal results, the choice of one, and their files.
#include <ropewalk/cpu/machine_profile.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "calls.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
using rw::cpu::tuning_profile;

namespace tuning_tests {
namespace {

/// A profile whose numbers lie anywhere in their ranges, with caches so small that any data may exceed them.
tuning_profile random_profile(test::random& numbers) {
    tuning_profile profile{.name = "random"};
    for (const auto& field : rw::cpu::tuning_fields) {
        const auto most = std::min<double>(static_cast<double>(field.most), 1 << 17);
        profile.*field.value =
            field.most == 1
                ? numbers.integer(0, 1)
                : static_cast<std::int64_t>(numbers.logarithmic(static_cast<double>(field.least) + 1, most + 1)) - 1;
        profile.*field.value = std::max(profile.*field.value, field.least);
    }
    return profile;
}

struct call {
    rw::layout_kind layout;
    test::array q, k, q_out, k_out;
    bool in_place;
};

/// The bytes of the outputs with a profile.
std::vector<std::vector<unsigned char>> outputs(call c, const rw::Encoding& e, const tuning_profile& profile,
                                                int threads) {
    rw::cpu::options options;
    options.threads = threads;
    options.tuning = &profile;
    rw::dispatch::rotate(c.layout, c.q.tensor(), c.k.tensor(), (c.in_place ? c.q : c.q_out).tensor(),
                         (c.in_place ? c.k : c.k_out).tensor(), e, rw::offset{777}, options);
    return {c.q.bytes(), c.k.bytes(), c.q_out.bytes(), c.k_out.bytes()};
}

std::string changed(std::string text, std::string_view from, std::string_view to) {
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
}

std::string problem_of(std::string_view text) {
    return test::message_of([&] { rw::cpu::parse_profile(text, "mine.profile"); });
}

}  // namespace

TEST_CASE("results are equal to the bit for every tuning profile", "[tuning]") {
    SEEDED(numbers);
    for (int i = 0; i < test::cases(300); ++i) {
        const rw::element_type type = numbers.one_of(
            {rw::element_type::f32, rw::element_type::f16, rw::element_type::bf16, rw::element_type::f64});
        const rw::layout_kind layout = numbers.one_of({rw::layout_kind::half_split, rw::layout_kind::interleaved});
        const std::int64_t width = numbers.one_of<std::int64_t>({2, 30, 64, 96, 128, 256}),
                           rest = numbers.integer(0, 1) * 2;
        const rw::Geometry g{.head_dim = width + rest, .rotary_dim = width, .rotary_offset = rest / 2};
        const rw::Encoding e =
            rw::make_encoding(g, type != rw::element_type::f16 && numbers.coin() ? "xpos:length=20000" : "linear:3");
        const std::int64_t batch = numbers.integer(1, 2), tokens = numbers.integer(1, 40);
        const std::int64_t k_heads = numbers.one_of<std::int64_t>({1, 2, 5}), q_heads = k_heads * numbers.integer(1, 3);
        const auto make = [&](std::int64_t heads) {
            return test::array(type, {batch, tokens, heads, g.head_dim}, numbers,
                               numbers.one_of({test::order::bshd, test::order::bhsd, test::order::padded}));
        };
        const call c{layout, make(q_heads), make(k_heads), make(q_heads), make(k_heads), numbers.coin()};
        const auto expected = outputs(c, e, *rw::cpu::find_profile("zen4"), 1);
        const auto check = [&](const tuning_profile& profile) {
            INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << ' ' << batch << " x " << tokens << " x "
                                     << q_heads << " + " << k_heads << " x " << width << " + " << rest << '\n'
                                     << rw::cpu::format_profile(profile));
            CHECK((outputs(c, e, profile, 1) == expected));
            CHECK((outputs(c, e, profile, 2) == expected));
        };
        if (i % 10 == 0) {
            for (const tuning_profile& profile : rw::cpu::tuning_profiles) check(profile);
        }
        check(random_profile(numbers));
    }
}

TEST_CASE("a profile decides the traversal and its prefetches", "[tuning]") {
    std::vector<float> memory(64 * 8 * 128 * 2);
    const rw::view<float> q = rw::thd(memory.data(), 64, 8, 128),
                          k = rw::thd(memory.data() + memory.size() / 2, 64, 8, 128);
    const rw::Encoding e = rw::make_encoding({.head_dim = 128});
    tuning_profile profile = *rw::cpu::find_profile("zen4");
    const auto loop = [&] {
        return rw::cpu::make_plan(rw::layout_kind::half_split, q, k, q, k, e, rw::offset{0}, {.tuning = &profile})
            .params.loop;
    };
    CHECK(loop().size == rw::cpu::footprint::l2);
    CHECK(loop().columns_prefetch.ahead == 1024);
    CHECK(loop().heads_prefetch.length == 0);
    profile.l2_bytes = 1 << 18;
    CHECK(loop().size == rw::cpu::footprint::l3);
    CHECK(loop().tile == 64);
    CHECK(loop().bytes_per_thread == 128 * 1024);
    CHECK(loop().columns_prefetch.ahead == 0);
    profile.l3_bytes = 1 << 18;
    CHECK(loop().size == rw::cpu::footprint::memory);
    CHECK(loop().order == rw::cpu::traversal::alternating);
    CHECK(loop().alternating_heads == 4);
    CHECK(loop().heads_prefetch.ahead == 4096);
    CHECK(loop().heads_prefetch.length == 64);
    CHECK_FALSE(loop().by_heads);
    profile.memory_prefetches_lines = 1, profile.memory_by_heads = 1, profile.alternating_bytes = 0;
    CHECK(loop().order == rw::cpu::traversal::per_token);
    CHECK(loop().heads_prefetch.length == 512);
    CHECK(loop().by_heads);
    profile.memory_prefetch_bytes = 0;
    CHECK(loop().heads_prefetch.length == 0);
}

TEST_CASE("profile files hold every number of a profile", "[tuning]") {
    SEEDED(numbers);
    for (int i = 0; i < 20; ++i) {
        const tuning_profile profile = random_profile(numbers);
        const std::string text = rw::cpu::format_profile(profile);
        const auto read = rw::cpu::parse_profile("# comment\n\n" + text, "text");
        CHECK(read.name == "random");
        for (const auto& field : rw::cpu::tuning_fields) {
            INFO(field.name);
            CHECK(read.values.*field.value == profile.*field.value);
        }
    }
}

TEST_CASE("profile files are refused with the line and the value", "[tuning]") {
    const std::string good = rw::cpu::format_profile(*rw::cpu::find_profile("zen4"));
    CHECK(problem_of(good).empty());
    CHECK(problem_of(changed(good, "\n", "\r\n")).empty());
    CHECK(problem_of(changed(good, "bytes_per_thread = 131072\n", "")) ==
          "ropewalk: mine.profile: 'bytes_per_thread' is missing");
    CHECK(problem_of(changed(good, "= 131072", "= 0")) ==
          "ropewalk: mine.profile, line 4: bytes_per_thread is a whole number from 1 to 1099511627776, got '0'");
    for (const char* const value : {"", "1.5", "0x10", "9223372036854775808", "128 KiB", "1e3"}) {
        INFO(value);
        CHECK(problem_of(changed(good, "131072", value)).find("got '" + std::string(value) + "'") != std::string::npos);
    }
    CHECK(problem_of(good + "l2_bytes = 5\n") == "ropewalk: mine.profile, line 18: 'l2_bytes' occurs twice");
    CHECK(problem_of(good + "l4_bytes = 5\n") == "ropewalk: mine.profile, line 18: unknown field 'l4_bytes'");
    CHECK(problem_of(good + "name = b\n") == "ropewalk: mine.profile, line 18: the profile has one name, got 'b'");
    CHECK(problem_of(good + "l4_bytes\n") ==
          "ropewalk: mine.profile, line 18: expected 'name = value', got 'l4_bytes'");
    CHECK(problem_of(changed(good, "name = zen4", "")) == "ropewalk: mine.profile: the profile has no name");
}

TEST_CASE("ROPEWALK_PROFILE names a profile or a file", "[tuning]") {
    const auto requested = [](const std::string& request) {
        return rw::cpu::detail::requested_profile(request.c_str());
    };
    for (const tuning_profile& profile : rw::cpu::tuning_profiles) {
        CHECK(requested(std::string(profile.name)).values.name == profile.name);
        CHECK(requested(std::string(profile.name)).values.l2_bytes == profile.l2_bytes);
    }
    CHECK(test::message_of([&] {
              requested("zen1");
          }).find("ropewalk: ROPEWALK_PROFILE is 'zen1', expected one of zen3, zen4") == 0);
    CHECK(test::message_of([&] { requested("./no/such/file"); }) ==
          "ropewalk: cannot read the tuning profile ./no/such/file: No such file or directory");
    CHECK(test::message_of([&] {
              requested("/dev/zero");
          }).find("ropewalk: cannot read the tuning profile /dev/zero: it is not a regular file") == 0);
    CHECK(test::message_of([&] {
              requested("/");
          }).find("ropewalk: cannot read the tuning profile /: it is not a regular file") == 0);

    const std::string path = (std::filesystem::temp_directory_path() / "ropewalk_tuning_test.profile").string();
    tuning_profile profile = *rw::cpu::find_profile("zen3");
    profile.name = "mine", profile.alternating_bytes = 512;
    std::ofstream(path) << rw::cpu::format_profile(profile);
    CHECK(requested(path).name == "mine");
    CHECK(requested(path).values.alternating_bytes == 512);
    std::filesystem::remove(path);
}

TEST_CASE("the profile in use is the value of ROPEWALK_PROFILE, or else that of the machine", "[tuning]") {
    const char* const wanted = std::getenv("ROPEWALK_PROFILE");
    const tuning_profile& profile = rw::dispatch::tuning_profile();
    CHECK(rw::cpu::find_profile(profile.name) != nullptr);
    CHECK(profile.name ==
          (wanted != nullptr && *wanted != '\0' ? std::string_view(wanted) : rw::cpu::detail::profile_of_processor()));
    if (wanted != nullptr && *wanted != '\0') return;
    CHECK(profile.l2_bytes >= 1 << 17);
    CHECK(profile.l3_bytes >= 1 << 19);
}

}  // namespace tuning_tests
