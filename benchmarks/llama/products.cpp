#include "products.hpp"

namespace bench {

#if defined(__x86_64__)
extern const products baseline_products, avx2_products, avx512_products;

const products& products_for(std::string_view instruction_set) {
    return instruction_set == "avx512" ? avx512_products
           : instruction_set == "avx2" ? avx2_products
                                       : baseline_products;
}
#else
extern const products neon_products;

const products& products_for(std::string_view /*instruction_set*/) { return neon_products; }
#endif

}  // namespace bench
