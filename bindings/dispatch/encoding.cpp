// Encodings by expression, whose compilation instantiates every policy.
#include <ropewalk/dispatch.hpp>

namespace ropewalk::dispatch {

Encoding make_encoding(const Geometry& geometry, std::string_view expression) {
    return ropewalk::make_encoding(geometry, expression);
}

}  // namespace ropewalk::dispatch
