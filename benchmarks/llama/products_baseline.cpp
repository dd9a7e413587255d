#include "products_inl.hpp"

namespace ceilings {
extern const products baseline_products;
const products baseline_products = products_of<xsimd::sse2>("baseline");
}  // namespace ceilings
