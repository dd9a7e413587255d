#include <ropewalk/encoding.hpp>

int main() {}
