#include "products.inl"

namespace bench {
extern const products avx512_products;
const products avx512_products = products_of<xsimd::avx512bw>("avx512");
}  // namespace bench
