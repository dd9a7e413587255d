// Planted bug: threads increment a counter without a lock.
#include <cstdio>

int main() {
    int counter = 0;
#pragma omp parallel num_threads(2)
    for (int i = 0; i < 100000; ++i) {
        ++counter;
    }
    std::printf("%d\n", counter);
}
