#include <ropewalk/ropewalk.hpp>

int main() {}
