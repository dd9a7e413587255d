#include "products_inl.hpp"

namespace ceilings {
extern const products avx512_products;
const products avx512_products = products_of<xsimd::avx512bw>("avx512");
}  // namespace ceilings
