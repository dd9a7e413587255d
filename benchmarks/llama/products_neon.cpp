#include "products.inl"

namespace bench {
extern const products neon_products;
const products neon_products = products_of<xsimd::neon64>("neon");
}  // namespace bench
