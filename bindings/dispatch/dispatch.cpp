#include <ropewalk/dispatch.hpp>

#include <cstdlib>

#include <ropewalk/cpu/execute.hpp>
#include <ropewalk/cpu/fused_plan.hpp>
#include <ropewalk/cpu/kernel_f64.hpp>
#include <ropewalk/cpu/plan.hpp>
#include <ropewalk/cpu/rerotate_cache_plan.hpp>

#include "kernels.hpp"

namespace ropewalk::dispatch {

namespace {

// The kernels of this build, those of the widest instruction set first.
#define RW_SET(name) &name##_kernels,
constexpr const kernel_set* compiled_sets[] = {ROPEWALK_COMPILED_SETS};
#undef RW_SET

#if defined(RW_OPENMP)
/// Registers the handler of forks when the library is loaded.
[[maybe_unused]] const bool forks_are_seen = (cpu::detail::parent_threads::record(), true);
#endif

std::string names_of(std::span<const kernel_set* const> sets) {
    std::string names;
    for (const kernel_set* set : sets) names += (names.empty() ? "" : ", ") + std::string(set->name);
    return names;
}

/// Returns whether this machine runs an instruction set.
bool runs([[maybe_unused]] std::string_view name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    // Every machine with AVX2 and FMA has F16C, which Clang 16 does not know by name.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512cd");
    if (name == "avx2") return avx2;
    if (name == "avx512") return avx2 && avx512;
#endif
    return true;
}

/// The kernels that this machine runs, those of the widest instruction set first.
std::vector<const kernel_set*> usable_sets() {
    std::vector<const kernel_set*> sets;
    for (const kernel_set* set : compiled_sets) {
        if (runs(set->name)) sets.push_back(set);
    }
    RW_EXPECTS(!sets.empty(),
               "this build has kernels for {} only, which this machine does not run; build for it with "
               "ROPEWALK_INSTRUCTION_SETS=all",
               names_of(compiled_sets));
    return sets;
}

/// The kernels of this process, those of the widest instruction set first: one set if the environment names it.
std::vector<const kernel_set*> choose_sets() {
    auto sets = usable_sets();
    const char* const requested = std::getenv("ROPEWALK_ISA");
    if (requested == nullptr || *requested == '\0') return sets;
    for (const kernel_set* set : sets) {
        if (std::string_view(set->name) == requested) return {set};
    }
    ropewalk::detail::fail("ROPEWALK_ISA is '{}', this machine has {}", requested, names_of(sets));
}

const std::vector<const kernel_set*>& sets_in_use() {
    static const std::vector<const kernel_set*> sets = choose_sets();
    return sets;
}

const kernel_set& widest_set() { return *sets_in_use().front(); }

/// The widest instruction set, or for cached f16 that of 256 bits where the profile wants it.
const kernel_set& kernels_for(element_type type, cpu::footprint size, const cpu::tuning_profile& tuning) {
    if (type == element_type::f16 && size != cpu::footprint::memory && tuning.f16_cached_by_256_bits != 0) {
        for (const kernel_set* set : sets_in_use()) {
            if (set->register_bits == 256) return *set;
        }
    }
    return widest_set();
}

const cpu::rotate_kernel& kernel_for(element_type type, cpu::footprint size, layout_kind layout,
                                     const cpu::tuning_profile& tuning) {
    if (type != element_type::f64) return kernels_for(type, size, tuning).rotate(type, layout);
    return layout == layout_kind::half_split ? cpu::detail::kernel_of_f64<half_split>
                                             : cpu::detail::kernel_of_f64<interleaved>;
}

void execute(const cpu::rotate_plan& plan, layout_kind layout, const cpu::threads& threads,
             const cpu::tuning_profile& tuning) {
    const cpu::rotate_params& params = plan.params;
    cpu::execute(params, kernel_for(params.any().type, params.loop.size, layout, tuning).run, threads);
}

}  // namespace

std::span<const kernel_set* const> compiled_kernels() { return compiled_sets; }

std::vector<std::string_view> instruction_sets() {
    std::vector<std::string_view> names;
    for (const kernel_set* set : usable_sets()) names.emplace_back(set->name);
    return names;
}

std::string_view instruction_set() { return widest_set().name; }

std::string_view instruction_set(element_type type, cpu::footprint size) {
    return kernels_for(type, size, cpu::machine_profile()).name;
}

const cpu::tuning_profile& tuning_profile() { return cpu::machine_profile(); }

void rotate(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out,
            const Encoding& encoding, const positions& positions, const cpu::options& options) {
    execute(cpu::make_plan(layout, q, k, q_out, k_out, encoding, positions, options), layout, options.threads,
            cpu::tuning_of(options));
}

void rerotate(layout_kind layout, const tensor& k, const tensor& k_out, const Encoding& source,
              const positions& source_positions, const Encoding& target, const positions& target_positions,
              const cpu::threads& threads) {
    execute(cpu::make_rerotation_plan(layout, k, k_out, source, source_positions, target, target_positions), layout,
            threads, cpu::machine_profile());
}

void fused(const fused_args& args, const cpu::threads& threads, const cpu::tuning_profile* tuning) {
    const cpu::tuning_profile& profile = tuning != nullptr ? *tuning : cpu::machine_profile();
    cpu::fused_plan plan = cpu::make_fused_plan(args, profile);
    const layout_kind layout = args.rotation.layout;
    const element_type type = plan.params.rotation.any().type;
    const kernel_set& kernels = kernels_for(type, plan.params.rotation.loop.size, profile);
    cpu::execute(plan.params, kernels.rotate(type, layout), kernels.rotate(element_type::f32, layout), kernels.fused,
                 threads);
}

void rerotate_cache(const rerotate_cache_args& args, const cpu::threads& threads) {
    const cpu::rerotate_cache_plan plan = cpu::make_rerotate_cache_plan(args);
    const cpu::rotate_params& params = plan.rotation.params;
    const cpu::tuning_profile& tuning = cpu::machine_profile();
    const element_type type = params.any().type;
    cpu::execute(plan, kernel_for(type, params.loop.size, args.layout, tuning),
                 kernels_for(type, params.loop.size, tuning).rerotate_cache, threads);
}

void cos_sin(layout_kind layout, const Encoding& encoding, const positions& positions, std::int64_t tokens,
             std::int64_t columns, std::span<float> cos, std::span<float> sin, const cpu::threads& threads) {
    const cpu::rotate_plan plan = cpu::make_table_plan(layout, encoding, positions, tokens, columns, cos, sin);
    cpu::execute(plan.params, widest_set().cos_sin(layout), threads);
}

cpu::prepared_rotation prepare(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out,
                               const tensor& k_out, const Encoding& encoding, const cpu::options& options) {
    const element_type type = (q.exists() ? q : k).type;
    // Data of one token fits the cache.
    const cpu::rotate_kernel& kernel = kernel_for(type, cpu::footprint::l2, layout, cpu::tuning_of(options));
    return {kernel, layout, q, k, q_out, k_out, encoding, options};
}

cpu::prepared_fused prepare_fused(const fused_args& args, const cpu::tuning_profile* tuning) {
    const cpu::tuning_profile& profile = tuning != nullptr ? *tuning : cpu::machine_profile();
    const layout_kind layout = args.rotation.layout;
    const element_type type = args.rotation.any().type;
    RW_EXPECTS(type != element_type::f64, "fused calls take f32, f16 and bf16, got f64: convert the tensors to f32");
    const kernel_set& kernels = kernels_for(type, cpu::footprint::l2, profile);
    return {kernels.rotate(type, layout), kernels.rotate(element_type::f32, layout), kernels.fused, args, profile};
}

std::vector<fixed_position> draw_positions(const Encoding& encoding, const positions& positions, std::int64_t batch,
                                           std::int64_t tokens) {
    RW_EXPECTS(encoding.draw_positions, "'{}' draws no positions", encoding.expression);
    std::vector<fixed_position> drawn;
    cpu::detail::resolve_positions(encoding, positions, batch, tokens, drawn);
    return drawn;
}

}  // namespace ropewalk::dispatch
