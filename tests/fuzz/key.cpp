// Fuzz target of the keys of encodings, Encoding.from_key() in Python.

#include <python/encoding_key.hpp>
#include <ropewalk/dispatch.hpp>

#include "check.hpp"

namespace rw = ropewalk;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    rw::Encoding encoding;
    try {
        encoding = rw::python::encoding_of_key({reinterpret_cast<const char*>(data), size});
    } catch (const rw::error& problem) {
        fuzz::check_marked_message(problem.what());
        return 0;
    }
    fuzz::check_encoding(encoding);
    const std::string key = rw::python::text_key(encoding);
    const rw::Encoding read = rw::python::encoding_of_key(key);
    fuzz::check_same(encoding, read);
    fuzz::must(rw::python::text_key(read) == key, "the key is stable");
    return 0;
}
