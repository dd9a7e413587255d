"""Test of the package: the programs of tests/consumer in C++ and C, linked with both libraries."""

from pathlib import Path

from conan import ConanFile
from conan.tools.build import can_run
from conan.tools.cmake import CMake, cmake_layout


class TestRopewalk(ConanFile):
    settings = "os", "compiler", "build_type", "arch"
    generators = "CMakeDeps", "CMakeToolchain"

    def requirements(self):
        self.requires(self.tested_reference_str)

    def layout(self):
        cmake_layout(self)

    def build(self):
        cmake = CMake(self)
        cmake.configure(build_script_folder="../../../tests/consumer/find_dispatch")
        cmake.build()

    def test(self):
        programs = [path for path in Path(self.build_folder).glob("consumer*") if path.is_file()]
        assert len(programs) >= 4, programs
        for program in programs if can_run(self) else ():
            self.run(str(program), env="conanrun")
