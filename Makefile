# Common commands: make demo | test | bench ARGS='--benchmark_filter=...' | python | docs | format | lint | clean

PYTHON := .venv/bin/python
# The package is installed again when one of these files is newer. It uses the compiler name and flags of the release
# build (scikit-build-core would take Python's compiler), so that ccache finds the kernels.
PACKAGE_SOURCES := $(shell find include cuda bindings cmake CMakeLists.txt pyproject.toml -type f -not -path '*/__pycache__/*')
PACKAGE_STAMP := .venv/.ropewalk-installed

.PHONY: demo test bench python docs build configure setup format lint clean

demo: configure python
	cmake --build build --target demo giraffe_13b
	build/examples/giraffe_13b --layers 1 --context 4096 --scaling linear:8
	build/examples/demo
	$(PYTHON) examples/demo_torch.py
	$(PYTHON) examples/demo_summary.py

test:
	tools/setup docs
	tools/test

# A warning fails the build, and so does a tutorial that fails.
docs: python
	tools/setup docs
	$(PYTHON) -m sphinx --builder html --fail-on-warning --keep-going --quiet docs build/docs
	@echo "docs: build/docs/index.html"

bench: configure
	cmake --build build --target bench_rotate
	build/benchmarks/bench_rotate --benchmark_out=build/bench.json --benchmark_out_format=json $(ARGS)

build: configure
	cmake --build build

python: $(PACKAGE_STAMP)

$(PACKAGE_STAMP): $(PACKAGE_SOURCES) | setup
	rm -rf build/wheels
	CXX=$${CXX:-c++} $(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --no-index \
	    --config-settings=cmake.define.ROPEWALK_WARNINGS_AS_ERRORS=ON --wheel-dir build/wheels .
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-index --force-reinstall build/wheels/*.whl
	touch $@

configure: setup
	cmake --preset release

setup:
	tools/setup

format: python
	$(PYTHON) tools/stubs.py
	tools/sources | xargs $$(tools/llvm clang-format) -i
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

lint: configure
	tools/lint

clean:
	rm -rf build $(PACKAGE_STAMP)
