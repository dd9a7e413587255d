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

cpu::prepared_rotation prepare_rows(layout_kind layout, const tensor& q, const tensor& k, const Encoding& encoding) {
    return prepare(layout, q, k, q, k, encoding);
}

llama::cpu::kernel_table select() {
#define RW_SET(name) &name##_llama,
    for (const llama::cpu::kernel_table* compiled : {ROPEWALK_COMPILED_SETS}) {
#undef RW_SET
        if (compiled->name != instruction_set()) continue;
        llama::cpu::kernel_table table = *compiled;
        table.rotate = rotate_rows, table.rerotate = rerotate_rows, table.prepare = prepare_rows;
        return table;
    }
    ropewalk::detail::fail("no Llama kernels for the instruction set '{}'", instruction_set());
}

}  // namespace

const llama::cpu::kernel_table& llama_kernels() {
    static const llama::cpu::kernel_table table = select();
    return table;
}

}  // namespace ropewalk::dispatch
