#include "llama.hpp"

#include <ropewalk/dispatch.hpp>

#include "tables.hpp"

namespace ropewalk::dispatch {

namespace {

void rotate_rows(layout_kind layout, const tensor& q, const tensor& k, const Encoding& encoding, const positions& where,
                 int threads) {
    rotate(layout, q, k, q, k, encoding, where, {.threads = threads});
}

void rerotate_rows(layout_kind layout, const tensor& k, const Encoding& source, const Encoding& target,
                   const positions& where, int threads) {
    rerotate(layout, k, k, source, where, target, where, threads);
}

llama::cpu::kernel_table select() {
#if defined(__x86_64__)
    const std::string_view name = instruction_set();
    llama::cpu::kernel_table table = name == "avx512" ? avx512_llama : name == "avx2" ? avx2_llama : baseline_llama;
#else
    llama::cpu::kernel_table table = neon_llama;
#endif
    table.rotate = rotate_rows, table.rerotate = rerotate_rows;
    return table;
}

}  // namespace

const llama::cpu::kernel_table& llama_kernels() {
    static const llama::cpu::kernel_table table = select();
    return table;
}

}  // namespace ropewalk::dispatch
