#include "products.hpp"

#include <initializer_list>

#include <ropewalk/core/error.hpp>

namespace bench {

extern const products baseline_products, avx2_products, avx512_products, neon_products;

const products& products_for(std::string_view instruction_set) {
#define RW_SET(name) &name##_products,
    for (const products* compiled : {ROPEWALK_COMPILED_SETS}) {
#undef RW_SET
        if (compiled->name == instruction_set) return *compiled;
    }
    ropewalk::detail::fail("no products for the instruction set '{}'", instruction_set);
}

}  // namespace bench
