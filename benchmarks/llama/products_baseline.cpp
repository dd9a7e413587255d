#include "products.inl"

namespace bench {
extern const products baseline_products;
const products baseline_products = products_of<xsimd::sse2>("baseline");
}  // namespace bench
