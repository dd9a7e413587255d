# Common commands: make demo | test | bench ARGS='--benchmark_filter=...' | bench-plot | tune | evaluate |
# fuzz TARGETS=key SECONDS=60 | python | docs | format | lint | clean

PYTHON := .venv/bin/python
# The package is installed again when one of these files is newer.
PACKAGE_SOURCES := $(shell find include cuda bindings cmake CMakeLists.txt pyproject.toml -type f -not -path '*/__pycache__/*')
PACKAGE_STAMP := .venv/.ropewalk-installed
# The wheel is made in the folder of the CMake build, so that the kernels are compiled once.
INSTALL_PACKAGE = rm -rf build/wheels && \
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --no-index \
	    --config-settings=build-dir=build --wheel-dir build/wheels . && \
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-index --force-reinstall build/wheels/*.whl

SEED := 1
SECONDS := 60
TARGETS := config safetensors expression key c_interface

.PHONY: demo test bench bench-plot tune evaluate giraffe fuzz python docs build configure setup format lint clean

# The times are of two cores of a Zen 4 server. The package in .venv then has the kernels of this machine only.
demo:
	@echo "demo 1/5: install the missing packages (about 60 s on a bare machine)"
	tools/setup demo
	@echo "demo 2/5: compile the kernels, the Python module and two programs (about 60 s)"
	cmake --preset demo >/dev/null
	cmake --build build --target demo giraffe_13b ropewalk_python
	@echo "demo 3/5: install the Python package into .venv (5 s)"
	$(INSTALL_PACKAGE)
	rm -f $(PACKAGE_STAMP)
	@echo "demo 4/5: run one layer of Llama-2-13B, then rotate its queries and keys with each policy (30 s)"
	build/examples/giraffe_13b --layers 1 --context 4096 --scaling linear:8
	build/examples/demo
	@echo "demo 5/5: repeat the rotations from Python and summarise them (20 s)"
	$(PYTHON) examples/demo_python.py
	$(PYTHON) examples/demo_summary.py

test:
	tools/setup docs
	tools/test

# A warning fails the build, and so does a tutorial that fails.
docs: python
	tools/setup docs
	$(PYTHON) -m sphinx --builder html --fail-on-warning --keep-going --quiet docs build/docs
	@echo "docs: build/docs/index.html"

# About 90 seconds on a machine without other work. Writes $(NAME).profile and $(NAME)_tuning.json.
NAME := build/tuned

tune: configure
	cmake --build build --target tune
	build/benchmarks/tune $(NAME)

# Takes 45 minutes on one core. Goes on where it was stopped; remove benchmarks/results/smollm2_*.json to measure again.
evaluate: python
	$(PYTHON) benchmarks/python/evaluate_smollm2.py

bench: configure
	cmake --build build --target bench_rotate
	build/benchmarks/bench_rotate --benchmark_out=build/bench.json --benchmark_out_format=json $(ARGS)

# Plots and pages of the recorded results in benchmarks/results/. It measures nothing.
bench-plot: setup
	$(PYTHON) benchmarks/python/plot_cpu.py benchmarks/results/*_loops_*.json
	$(PYTHON) benchmarks/python/results_page.py

# About 7 to 9 minutes per seed on two free cores. A stopped run continues.
giraffe: python
	$(PYTHON) -m benchmarks.giraffe --seed $(SEED) $(ARGS)

# Each target runs for SECONDS, on one core. tests/fuzz/run.py --help has the other commands.
fuzz: setup
	cmake --preset fuzz -DCMAKE_C_COMPILER=$$(tools/llvm clang) -DCMAKE_CXX_COMPILER=$$(tools/llvm clang++) >/dev/null
	cmake --build build/fuzz --target $(TARGETS:%=fuzz_%)
	$(PYTHON) tests/fuzz/run.py --seconds $(SECONDS) $(TARGETS)

build: configure
	cmake --build build

python: $(PACKAGE_STAMP)

$(PACKAGE_STAMP): $(PACKAGE_SOURCES) | configure
	cmake --build build --target ropewalk_python
	$(INSTALL_PACKAGE)
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
