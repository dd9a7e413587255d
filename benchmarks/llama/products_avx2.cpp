#include "products.inl"

namespace bench {
extern const products avx2_products;
const products avx2_products = products_of<xsimd::fma3<xsimd::avx2>>("avx2");
}  // namespace bench
