// Planted: the largest int plus one.
#include <cstdio>
#include <limits>

int main(int argc, char**) {
    const int sum = std::numeric_limits<int>::max() + argc;
    std::printf("%d\n", sum);
}
