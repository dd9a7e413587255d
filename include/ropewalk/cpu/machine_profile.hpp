// Choice of the tuning profile: by the processor, or by the environment variable ROPEWALK_PROFILE.
#pragma once

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>
#include <string_view>

#include "ropewalk/core/error.hpp"
#include "ropewalk/cpu/tuning.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(RW_MAPS_FILES)
#include <sys/stat.h>
#endif

namespace ropewalk::cpu {

inline namespace RW_ISA {

/// Returns the profile with a name, or null.
inline const tuning_profile* find_profile(std::string_view name) {
    for (const tuning_profile& profile : tuning_profiles)
        if (profile.name == name) return &profile;
    return nullptr;
}

/// A profile from a file, with the memory of its name.
struct named_profile {
    std::string name;
    tuning_profile values;
};

/// Writes a profile as the text of a file: one `name = value` per line.
inline std::string format_profile(const tuning_profile& profile) {
    std::string text = "name = " + std::string(profile.name) + "\n";
    for (const tuning_field& field : tuning_fields)
        text += std::string(field.name) + " = " + std::to_string(profile.*field.value) + "\n";
    return text;
}

/// Reads the text of a profile file. Lines that begin with `#` are comments. Throws ropewalk::error, with `source` and
/// the line, for a field that is unknown, repeated, missing, not a number or out of its range.
inline named_profile parse_profile(std::string_view text, std::string_view source) {
    named_profile profile;
    bool seen[std::size(tuning_fields)] = {};
    const auto trim = [](std::string_view part) {
        const std::size_t first = part.find_first_not_of(" \t\r");
        return first == std::string_view::npos ? std::string_view{}
                                               : part.substr(first, part.find_last_not_of(" \t\r") - first + 1);
    };
    for (int number = 1; !text.empty(); ++number) {
        const std::size_t end = text.find('\n');
        const std::string_view line = trim(text.substr(0, end));
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
        if (line.empty() || line.front() == '#') continue;
        const std::size_t equals = line.find('=');
        RW_EXPECTS(equals != std::string_view::npos, "{}, line {}: expected 'name = value', got '{}'", source, number,
                   line);
        const std::string_view name = trim(line.substr(0, equals)), value = trim(line.substr(equals + 1));
        if (name == "name") {
            RW_EXPECTS(profile.name.empty() && !value.empty(), "{}, line {}: the profile has one name, got '{}'",
                       source, number, value);
            profile.name = value;
            continue;
        }
        std::size_t index = 0;
        while (index < std::size(tuning_fields) && tuning_fields[index].name != name) ++index;
        RW_EXPECTS(index < std::size(tuning_fields), "{}, line {}: unknown field '{}'", source, number, name);
        RW_EXPECTS(!seen[index], "{}, line {}: '{}' occurs twice", source, number, name);
        seen[index] = true;
        const tuning_field& field = tuning_fields[index];
        std::int64_t parsed = 0;
        const auto [rest, problem] = std::from_chars(value.data(), value.data() + value.size(), parsed);
        RW_EXPECTS(problem == std::errc{} && rest == value.data() + value.size() && parsed >= field.least &&
                       parsed <= field.most,
                   "{}, line {}: {} is a whole number from {} to {}, got '{}'", source, number, name, field.least,
                   field.most, value);
        profile.values.*field.value = parsed;
    }
    RW_EXPECTS(!profile.name.empty(), "{}: the profile has no name", source);
    for (std::size_t i = 0; i < std::size(tuning_fields); ++i)
        RW_EXPECTS(seen[i], "{}: '{}' is missing", source, tuning_fields[i].name);
    return profile;
}

/// Reads a profile file of at most 64 KiB.
inline named_profile read_profile(const std::string& path) {
#if defined(RW_MAPS_FILES)
    // A FIFO without a writer would block.
    struct ::stat status {};
    RW_EXPECTS(::stat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode),
               "cannot read the tuning profile {}: it is not a regular file", path);
#endif
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    RW_EXPECTS(file != nullptr, "cannot read the tuning profile {}: {}", path, std::strerror(errno));
    std::string text(1 << 16, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), file));
    const bool complete = std::fgetc(file) == EOF && std::ferror(file) == 0;
    std::fclose(file);
    RW_EXPECTS(complete, "cannot read the tuning profile {}: it has more than {} bytes", path, 1 << 16);
    return parse_profile(text, "tuning profile " + path);
}

}  // namespace RW_ISA

namespace detail {

inline namespace RW_ISA {

#if defined(__x86_64__)

/// The registers of the CPUID instruction.
struct cpuid_registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    explicit cpuid_registers(unsigned leaf, unsigned subleaf = 0) {
        __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx);
    }
};

/// Returns whether the vendor of the processor is AMD or Hygon.
inline bool is_amd() {
    const cpuid_registers vendor(0);
    return vendor.ebx == 0x68747541 || vendor.ebx == 0x6f677948;  // "Auth", "Hygo"
}

/// Returns the size of the unified cache of a level, 0 if the processor does not tell it. The total of a package would
/// be too large: AMD's processors have several caches of the third level.
inline std::int64_t cache_bytes(unsigned level) {
    const unsigned leaf = is_amd() ? 0x8000001d : 4;
    for (unsigned index = 0; index < 8; ++index) {
        const cpuid_registers cache(leaf, index);
        const unsigned type = cache.eax & 0x1f;
        if (type == 0) break;
        if (type != 3 || (cache.eax >> 5 & 7) != level) continue;
        const std::int64_t ways = (cache.ebx >> 22) + 1, partitions = (cache.ebx >> 12 & 0x3ff) + 1;
        return ways * partitions * ((cache.ebx & 0xfff) + 1) * (std::int64_t{cache.ecx} + 1);
    }
    return 0;
}

/// Returns the name of the profile for this processor.
inline std::string_view profile_of_processor() {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") != 0, avx512 = __builtin_cpu_supports("avx512f") != 0;
    if (!avx2) return "generic";
    const unsigned version = cpuid_registers(1).eax;
    const unsigned family = (version >> 8 & 0xf) + (version >> 20 & 0xff);
    if (is_amd() && family == 0x19) return avx512 ? "zen4" : "zen3";
    if (is_amd() && family == 0x1a) return "zen5";
    const bool intel = cpuid_registers(0).ebx == 0x756e6547;  // "Genu"
    if (intel && avx512) return "skylake_avx512";
    return avx512 ? "generic_avx512" : "generic_avx2";
}

#else

inline std::int64_t cache_bytes(unsigned /*level*/) { return 0; }
inline std::string_view profile_of_processor() {
#if defined(__aarch64__)
    return "neon";
#else
    return "generic";
#endif
}

#endif

/// The profile of this machine with the sizes of its caches: L2, and half of L3, which other processors share.
inline tuning_profile machine_values() {
    tuning_profile profile = *find_profile(profile_of_processor());
    const std::int64_t l2 = cache_bytes(2), l3 = cache_bytes(3);
    if (l2 > 0) profile.l2_bytes = l2;
    if (l3 > 0) profile.l3_bytes = l3 / 2;
    return profile;
}

/// The profile that ROPEWALK_PROFILE names, with an empty `name` unless it comes from a file.
inline named_profile requested_profile(const char* request) {
    if (request == nullptr || *request == '\0') return {{}, machine_values()};
    if (const tuning_profile* const profile = find_profile(request)) return {{}, *profile};
    std::string names;
    for (const tuning_profile& profile : tuning_profiles)
        names += (names.empty() ? "" : ", ") + std::string(profile.name);
    RW_EXPECTS(std::string_view(request).find_first_of("./\\") != std::string_view::npos,
               "ROPEWALK_PROFILE is '{}', expected one of {}, or the path of a file with a '.' or '/' in it", request,
               names);
    return read_profile(request);
}

}  // namespace RW_ISA
}  // namespace detail

inline namespace RW_ISA {

/// The profile of this process, chosen at the first call: by the processor and the sizes of its caches, or by the
/// environment variable ROPEWALK_PROFILE, the name of a profile or the path of a file that `make tune` wrote. Throws
/// ropewalk::error where the variable names neither.
inline const tuning_profile& machine_profile() {
    static const named_profile chosen = detail::requested_profile(std::getenv("ROPEWALK_PROFILE"));
    static const tuning_profile values = [] {
        tuning_profile profile = chosen.values;
        if (!chosen.name.empty()) profile.name = chosen.name;
        return profile;
    }();
    return values;
}

}  // namespace RW_ISA
}  // namespace ropewalk::cpu
