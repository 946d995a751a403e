# make run            a native echo server on port 8080
# make test           style, types and the whole test suite
# make bench          native against pure, and all against the rivals
# make soak           the long forms of the tests
# make sanitize       the native tests under AddressSanitizer and UBSan
# make test-versions  the suite on every CPython from 3.11 up that this machine has, and once without extensions
# make docs           the site in build/docs: how-to pages, reference, glossary, tour
# make dist           sdist and wheel in dist/
# make clean          remove what make made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py $(shell find csrc src -name '*.h' -o -name '*.pyx' -o -name '*.pxd')
PYTEST := $(BIN)/python -m pytest
ARGS ?=

.PHONY: run test lint bench soak sanitize test-versions docs dist clean build

run: build
	$(BIN)/fastnet echo --port 8080 $(ARGS)

build: $(VENV)/.built

# pip reads pyproject.toml, so only a change there installs again; the extensions are then built in place.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"fastnet needs Python 3.11 or newer; try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	{ echo "on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install -q 'setuptools>=77' 'Cython>=3.1'
	FASTNET_NO_NATIVE=1 $(BIN)/python -m pip install -q --no-build-isolation -e '.[test,docs]'
	touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Four processes on two processors: most tests wait for another process.
test: lint
	$(PYTEST) -n 4 -m 'not soak' $(ARGS)

soak: build
	$(PYTEST) -m soak --timeout 1800 $(ARGS)

bench: build
	$(PYTEST) bench --benchmark-only --benchmark-group-by=group $(ARGS)
	$(BIN)/python -m bench.run

sanitize: build
	$(PYTHON) tools/run_sanitized.py

test-versions:
	$(PYTHON) tools/run_versions.py

# -W: a broken link, a page in no table of contents or a name without its docstring fails the build.
docs: build
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

dist: build
	$(BIN)/python -m pip install -q build
	$(BIN)/python -m build --no-isolation --outdir dist .

clean:
	rm -rf $(VENV) .venvs build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find src -name '*.so' -delete
	rm -f src/fastnet/_native_build.json
