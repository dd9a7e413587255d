#include <ropewalk/llama/safetensors.hpp>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/stat.h>
#endif

#include "llama/generated.hpp"
#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace safetensors_tests {
namespace {

/// A file of a header and `count` bytes of data, which count up from 0.
std::string file_of(const std::string& header, std::size_t count) {
    std::string data(count, '\0');
    std::iota(data.begin(), data.end(), '\0');
    return test::safetensors_file(header, data);
}

std::map<std::string, rw::llama::stored_tensor> read(const std::string& file) {
    return rw::llama::read_safetensors(std::as_bytes(std::span(file)), "f.safetensors");
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, int begin, int end) {
    std::ostringstream text;
    text << '"' << name << R"(": {"dtype": ")" << dtype << R"(", "shape": )" << shape << R"(, "data_offsets": [)"
         << begin << ", " << end << "]}";
    return text.str();
}

std::string header(std::initializer_list<std::string> entries) {
    std::ostringstream text;
    for (const std::string& one : entries) text << (text.tellp() == 0 ? '{' : ',') << one;
    text << '}';
    return text.str();
}

struct malformed {
    std::string file, message;
};

std::vector<malformed> malformed_files() {
    const auto single = [](const std::string& tensor, std::size_t data) { return file_of(header({tensor}), data); };
    const std::string header_of_a_terabyte("\0\0\0\0\0\1\0\0{}", 10);
    return {
        {"", "has 0 bytes"},
        {"1234567", "has 7 bytes"},
        {header_of_a_terabyte, "claims a header of 1099511627776 bytes, at most 100000000"},
        {std::string("\x03\0\0\0\0\0\0\0{}", 10), "claims a header of 3 bytes and has 2"},
        {file_of("", 0), "does not begin with a brace"},
        {file_of(" {}", 0), "does not begin with a brace"},
        {file_of("{", 0), "is not valid JSON"},
        {file_of("{}", 1), "the tensors end at byte 0 of 1 bytes"},
        {file_of("{\"a\": 1}", 0), "a must be an object, got 1"},
        {file_of(header({entry("a", "F32", "[1]", 0, 4), entry("a", "F32", "[1]", 0, 4)}), 4), "twice"},
        {single(entry("a", "F31", "[1]", 0, 4), 4), "dtype 'F31' is not known, known are F64, F32"},
        {single(R"("a": {"shape": [1], "data_offsets": [0, 4]})", 4), "dtype '' is not known"},
        {single(R"("a": {"dtype": 32, "shape": [1], "data_offsets": [0, 4]})", 4), "dtype must be text, got 32"},
        {single(R"("a": {"dtype": "F32", "data_offsets": [0, 4]})", 4), "lacks 'shape'"},
        {single(R"("a": {"dtype": "F32", "shape": [1]})", 4), "lacks 'data_offsets'"},
        {single(R"("a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "order": "F"})", 4), "key 'order'"},
        {single(R"("a": {"dtype": "F32", "shape": [1], "data_offsets": [0]})", 4), "has 1 entries, expected 2"},
        {single(R"("a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]})", 4), "shape must be an array, got 1"},
        {single(entry("a", "F32", "[1.5]", 0, 4), 4), "shape must be a whole number, got 1.5"},
        {single(entry("a", "F32", "[-1]", 0, 4), 4), "has the extent -1"},
        {single(entry("a", "F32", "[2]", 0, 4), 4), "has more bytes than the 4 of data"},
        {single(entry("a", "F32", "[4611686018427387904, 8]", 0, 4), 4), "has more bytes than the 4 of data"},
        {single(entry("a", "F32", "[9223372036854775808]", 0, 4), 4), "must be below 2^63"},
        {single(entry("a", "F32", "[1]", 4, 0), 4), "has the range [4, 0)"},
        {single(entry("a", "F32", "[1]", -4, 0), 4), "has the range [-4, 0)"},
        {single(entry("a", "F32", "[1]", 0, 8), 4), "has the range [0, 8) of 4 bytes of data: is the file truncated?"},
        {single(entry("a", "F32", "[1]", 0, 3), 4), "needs 4 bytes and has the range [0, 3)"},
        {single(entry("a", "F32", "[1]", 4, 8), 8), "a begins at byte 4 of the data, the tensor before it ends at 0"},
        {single(entry("a", "F32", "[1]", 0, 4), 5), "the tensors end at byte 4 of 5"},
        {file_of(header({entry("a", "F32", "[2]", 0, 8), entry("b", "F32", "[1]", 4, 8)}), 8), "b begins at byte 4"},
        {file_of(header({entry("a", "F32", "[1]", 0, 4), entry("b", "F32", "[1]", 8, 12)}), 12), "b begins at byte 8"},
    };
}

}  // namespace

TEST_CASE("tensors have the bytes that the header names", "[safetensors]") {
    const std::string file = file_of(header({R"("__metadata__": {"format": "pt"})", entry("b", "BF16", "[2, 3]", 8, 20),
                                             entry("a", "F32", "[2]", 0, 8), entry("s", "U8", "[]", 20, 21),
                                             entry("e", "F64", "[9000000000000000000, 0, 3]", 21, 21)}) +
                                         "   ",
                                     21);
    const auto all = read(file);
    REQUIRE(all.size() == 4);
    CHECK(all.at("a").shape == std::vector<std::int64_t>{2});
    CHECK(all.at("a").elements() == 2);
    CHECK(all.at("a").bytes.data() == std::as_bytes(std::span(file)).data() + file.size() - 21);
    CHECK(all.at("b").dtype == "BF16");
    CHECK(all.at("b").bytes.size() == 12);
    CHECK(std::to_integer<int>(all.at("b").bytes[0]) == 8);
    CHECK(all.at("s").elements() == 1);
    CHECK(all.at("s").bytes.size() == 1);
    CHECK(all.at("e").elements() == 0);
    CHECK(read(file_of("{}", 0)).empty());
}

TEST_CASE("errors of the format are one line that names the file", "[safetensors]") {
    for (const malformed& one : malformed_files()) {
        const std::string message = test::message_of([&] { read(one.file); });
        INFO("expected '" << one.message << "', got '" << message << "'");
        CHECK(test::holds(message, {"f.safetensors", one.message.c_str()}));
        CHECK(message.find('\n') == std::string::npos);
    }
}

TEST_CASE("a header takes time in proportion to its tensors", "[safetensors]") {
    const auto processor_time = [](int tensors) {
        std::ostringstream text;
        for (int i = 0; i < tensors; ++i)
            text << (i == 0 ? '{' : ',') << entry("t" + std::to_string(i), "U8", "[1]", i, i + 1);
        text << '}';
        const std::string file = file_of(text.str(), static_cast<std::size_t>(tensors));
        std::clock_t best = std::numeric_limits<std::clock_t>::max();
        for (int attempt = 0; attempt < 3; ++attempt) {
            const std::clock_t start = std::clock();
            CHECK(read(file).size() == static_cast<std::size_t>(tensors));
            best = std::min(best, std::clock() - start);
        }
        return static_cast<double>(best);
    };
    // 16 times if every tensor costs the number of the others
    CHECK(processor_time(10000) < 10 * processor_time(2500));
}

TEST_CASE("a file truncated at any byte is refused", "[safetensors]") {
    const std::string file = file_of(header({entry("a", "F32", "[2]", 0, 8), entry("b", "F16", "[3]", 8, 14)}), 14);
    REQUIRE(read(file).size() == 2);
    for (std::size_t length = 0; length < file.size(); ++length) {
        INFO(length << " of " << file.size() << " bytes");
        CHECK_REFUSED(read(file.substr(0, length)), "f.safetensors");
    }
}

TEST_CASE("a checkpoint is one file or the shards of an index", "[safetensors]") {
    const test::folder here;
    const std::string a = file_of(header({entry("a", "F32", "[2]", 0, 8)}), 8);
    const std::string b = file_of(header({entry("b", "F32", "[1, 2]", 0, 8)}), 8);
    const auto index = [&](const std::string& map) {
        here.write("model.safetensors.index.json", R"({"metadata": {"total_size": 16}, "weight_map": {)" + map + "}}");
    };
    CHECK_REFUSED(rw::llama::checkpoint(here.path()), "cannot read", "model.safetensors", "No such file");
    here.write("model.safetensors", a);
    const rw::llama::checkpoint single(here.path());
    CHECK(single.at("a", {2}).dtype == "F32");
    CHECK(rw::llama::checkpoint(here.path() / "model.safetensors").tensors().size() == 1);

    here.write("1.safetensors", a);
    here.write("2.safetensors", b);
    index(R"("a": "1.safetensors", "b": "2.safetensors")");
    rw::llama::checkpoint both(here.path());
    CHECK(both.tensors().size() == 2);
    const rw::llama::checkpoint moved = std::move(both);  // keeps the files mapped
    CHECK(std::to_integer<int>(moved.at("b", {1, 2}).bytes[7]) == 7);
    CHECK(moved.find("c") == nullptr);
    CHECK_REFUSED(moved.at("c", {5, 6}), "has no tensor 'c' [5, 6]");
    CHECK_REFUSED(moved.at("b", {2, 1}), "'b' has the shape [1, 2], expected [2, 1]");

#if defined(__linux__)
    std::filesystem::remove(here.path() / "2.safetensors");
    REQUIRE(::mkfifo((here.path() / "2.safetensors").c_str(), 0600) == 0);
    CHECK_REFUSED(rw::llama::checkpoint(here.path()), "2.safetensors is a FIFO, expected a file");
    std::filesystem::remove(here.path() / "2.safetensors");
    std::filesystem::create_symlink("/dev/zero", here.path() / "2.safetensors");
    CHECK_REFUSED(rw::llama::checkpoint(here.path()), "2.safetensors is a character device, expected a file");
    std::filesystem::remove(here.path() / "2.safetensors");
#endif

    here.write("2.safetensors", b.substr(0, b.size() - 3));
    CHECK_REFUSED(rw::llama::checkpoint(here.path()), "2.safetensors", "b", "truncated");
    index(R"("a": "1.safetensors", "b": "1.safetensors")");
    CHECK_REFUSED(rw::llama::checkpoint(here.path()), "1.safetensors lacks 'b'");
    index(R"("a": "1.safetensors", "b": "3.safetensors")");
    CHECK_REFUSED(rw::llama::checkpoint(here.path()), "3.safetensors, which is missing");
    for (const char* const name : {"../1.safetensors", "/etc/passwd", "..", "", "a/b"}) {
        index(R"("a": ")" + std::string(name) + '"');
        CHECK_REFUSED(rw::llama::checkpoint(here.path()), "is not a file name in the same folder");
    }
    index(R"("a": 5)");
    CHECK_REFUSED(rw::llama::checkpoint(here.path()), "must be text, got 5");
    here.write("model.safetensors.index.json", "{}");
    CHECK_REFUSED(rw::llama::checkpoint(here.path()), "lacks 'weight_map'");
    CHECK_REFUSED(rw::llama::checkpoint(here.path() / "nothing"), "cannot read", "nothing");
    CHECK_REFUSED(rw::llama::checkpoint(here.path() / std::string(300, 'x')), "cannot read", "xxx: File name too long");
}

}  // namespace safetensors_tests
