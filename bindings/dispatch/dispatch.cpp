#include "dispatch.hpp"

#include <cstdlib>

#include <ropewalk/cpu/execute.hpp>

#include "kernels.hpp"

namespace ropewalk::dispatch {

namespace {

/// The sets that this machine can run, the widest first.
std::vector<const kernel_set*> usable_sets() {
#if defined(ROPEWALK_NO_XSIMD)
    return {&scalar_kernels};
#elif defined(__x86_64__)
    std::vector<const kernel_set*> sets;
    __builtin_cpu_init();
    // Every machine with AVX2 and FMA has F16C, which Clang 16 does not know by name.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512cd");
    if (avx2 && avx512) sets.push_back(&avx512_kernels);
    if (avx2) sets.push_back(&avx2_kernels);
    sets.push_back(&baseline_kernels);
    return sets;
#else
    return {&neon_kernels};
#endif
}

/// Whether AVX2 turns f16 that lie in a cache faster than AVX-512 does. On Zen 4, the one of its family that has both,
/// halves take 0.77 of the time to convert with 256 bits, and 0.86 (half_split) and 0.92 (interleaved) to turn. Out of
/// cache that is lost in waiting, and the rows of few heads take longer.
bool prefers_avx2_for_f16() {
#if defined(__x86_64__)
    return __builtin_cpu_is("amdfam19h") != 0;
#else
    return false;
#endif
}

struct choice {
    const kernel_set* usual;
    const kernel_set* f16_in_cache;
};

choice choose() {
    const auto sets = usable_sets();
    const char* const wanted = std::getenv("ROPEWALK_ISA");
    if (wanted == nullptr || *wanted == '\0') {
        const kernel_set* const widest = sets.front();
        return {widest, widest->name == std::string_view("avx512") && prefers_avx2_for_f16() ? sets[1] : widest};
    }
    std::string known;
    for (const kernel_set* set : sets) {
        if (std::string_view(set->name) == wanted) return {set, set};
        known += (known.empty() ? "" : ", ") + std::string(set->name);
    }
    ropewalk::detail::fail("ROPEWALK_ISA is '{}', this machine has {}", wanted, known);
}

const choice& chosen_sets() {
    static const choice sets = choose();
    return sets;
}

const kernel_set& chosen_set(element_type type, cpu::footprint size) {
    return type == element_type::f16 && size != cpu::footprint::memory ? *chosen_sets().f16_in_cache
                                                                       : *chosen_sets().usual;
}

void execute(const cpu::plan& prepared, layout_kind layout, int threads) {
    const cpu::job& work = prepared.work;
    const element_type type = work.any().type;
    cpu::execute(prepared, chosen_set(type, work.size).rotate(type, layout, work.pairs), threads);
}

}  // namespace

std::vector<std::string_view> instruction_sets() {
    std::vector<std::string_view> names;
    for (const kernel_set* set : usable_sets()) names.emplace_back(set->name);
    return names;
}

std::string_view instruction_set() { return chosen_sets().usual->name; }

std::string_view instruction_set(element_type type, cpu::footprint size) { return chosen_set(type, size).name; }

void rotate(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out,
            const Encoding& encoding, const positions& where, const cpu::options& chosen) {
    execute(cpu::make_plan(layout, q, k, q_out, k_out, encoding, where, chosen), layout, chosen.threads);
}

void rerotate(layout_kind layout, const tensor& k, const tensor& k_out, const Encoding& from,
              const positions& from_where, const Encoding& to, const positions& to_where, int threads) {
    execute(cpu::make_rerotation_plan(layout, k, k_out, from, from_where, to, to_where), layout, threads);
}

void cos_sin(layout_kind layout, const Encoding& encoding, const positions& where, std::int64_t tokens,
             std::int64_t columns, std::span<float> cos, std::span<float> sin, int threads) {
    const cpu::plan prepared = cpu::make_table_plan(layout, encoding, where, tokens, columns, cos, sin);
    cpu::execute(prepared, chosen_sets().usual->cos_sin(layout), threads);
}

std::vector<fixed_position> draw_positions(const Encoding& encoding, const positions& where, std::int64_t batch,
                                           std::int64_t tokens) {
    RW_EXPECTS(encoding.draw_positions, "'{}' draws no positions", encoding.expression);
    cpu::plan owner;
    cpu::detail::read_and_place(encoding, where, batch, tokens, owner, 0);
    return std::move(owner.own().placed[0]);
}

}  // namespace ropewalk::dispatch
