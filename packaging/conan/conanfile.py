"""Conan 2 recipe of the compiled library and the headers, built from the checkout: `conan create packaging/conan`."""

import re
from pathlib import Path

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load


class Ropewalk(ConanFile):
    name = "ropewalk"
    description = "Rotary position encodings for attention"
    license = "Apache-2.0"
    topics = ("attention", "rope", "simd")
    settings = "os", "compiler", "build_type", "arch"
    options = {"xsimd": [True, False], "json": [True, False], "openmp": [True, False]}  # noqa: RUF012
    default_options = {"xsimd": True, "json": True, "openmp": True}  # noqa: RUF012

    @property
    def checkout(self):
        return Path(self.recipe_folder).parents[1]

    def set_version(self):
        header = load(self, str(self.checkout / "include" / "ropewalk" / "version.h"))
        self.version = ".".join(re.findall(r"#define ROPEWALK_VERSION_\w+ (\d+)", header))

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*", "cuda/ropewalk/*", "bindings/dispatch/*"):
            copy(self, pattern, src=str(self.checkout), dst=self.export_sources_folder)

    def requirements(self):
        if self.options.xsimd:
            self.requires("xsimd/[>=8.1 <15]", transitive_headers=True)
        if self.options.json:
            self.requires("nlohmann_json/[>=3.10 <4]")

    def validate(self):
        check_min_cppstd(self, 20)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["ROPEWALK_BUILD_DISPATCH"] = True
        for part in ("TESTS", "BENCHMARKS", "EXAMPLES", "PYTHON", "CUDA"):
            toolchain.cache_variables[f"ROPEWALK_BUILD_{part}"] = False
        for option in ("xsimd", "json", "openmp"):
            toolchain.cache_variables[f"ROPEWALK_{option.upper()}"] = bool(self.options.get_safe(option))
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        copy(self, "LICENSE", src=self.source_folder, dst=str(Path(self.package_folder) / "licenses"))
        CMake(self).install()

    def package_info(self):
        # The package of CMake that ropewalk installs has the targets, with their components.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = ["lib/cmake/ropewalk"]
        self.cpp_info.libs = ["ropewalk"]
