// Planted bug: adds one to the largest int.
#include <cstdio>
#include <limits>

int main(int argc, char**) {
    const int sum = std::numeric_limits<int>::max() + argc;
    std::printf("%d\n", sum);
}
