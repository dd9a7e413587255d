#include "products.inl"

namespace ceilings {
extern const products neon_products;
const products neon_products = products_of<xsimd::neon64>("neon");
}  // namespace ceilings
