#include "products.inl"

namespace ceilings {
extern const products baseline_products;
const products baseline_products = products_of<xsimd::sse2>("baseline");
}  // namespace ceilings
