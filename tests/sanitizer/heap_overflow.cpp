// Planted bug: reads one element past the end of a vector.
#include <cstdio>
#include <vector>

int main(int argc, char**) {
    const std::vector<float> values(4, 1.0F);
    std::printf("%g\n", static_cast<double>(values.data()[3 + argc]));
}
