# finestep: `make demo` runs the main job on the shipped model and data, `make test` the tests; both set everything up.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv/.ready-docs
TRACKERS_READY := .venv/.ready-trackers
RAY_READY := .venv/.ready-ray
# One test process a core, at least two and at most eight.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -ge 2 ] || n=2; [ $$n -le 8 ] || n=8; echo $$n)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Compiled once: many tests start a process of Python.
export PYTHONDONTWRITEBYTECODE :=
CODE := src tests benchmarks scripts

.PHONY: demo test test-long test-ray check docs serve dist bench exports clean

demo: $(READY)
	$(BIN)/finestep tune --out demo

test: $(READY)
	$(PYTEST) -m 'not long'

# The tests that take minutes: random kills, signals, a browser, the real trackers, and many more architectures.
test-long: $(READY) $(TRACKERS_READY)
	$(PYTEST) -m long

# The executor on a Ray cluster of this machine; in `make test` and `make test-long` its tests are skipped until Ray is here.
test-ray: $(READY) $(RAY_READY)
	$(BIN)/python -m pytest -q -p no:xdist tests/executors/test_conformance.py tests/cluster -k 'ray or cluster'

# Everything but the tests: format, lint, types, the examples in docstrings, and the site.
check: $(READY) docs
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy --strict
	$(BIN)/python -m pytest -q -p no:xdist --doctest-modules --doctest-ignore-import-errors scripts/make_reference.py benchmarks/pages.py src

# The site in site/. It is built without a network; a dead link ends the build.
docs: $(DOCS_READY)
	$(BIN)/python scripts/make_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

serve: $(DOCS_READY)
	$(BIN)/python scripts/make_reference.py
	$(BIN)/mkdocs serve

# Wheel and source archive in dist/.
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*

bench: $(READY)
	$(BIN)/python -m benchmarks.step_time

exports: $(READY)
	$(BIN)/python scripts/check_exports.py

$(READY): pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) -e '.[train,dev]'
	touch $(READY)

$(DOCS_READY): $(READY)
	$(PIP) -e '.[docs]'
	touch $(DOCS_READY)

# The packages of the five trackers; without them their tests are skipped, and the others run.
$(TRACKERS_READY): $(READY)
	if $(PIP) -e '.[trackers]'; then touch $@; else echo 'the trackers could not be installed: their tests are skipped'; fi

$(RAY_READY): $(READY)
	$(PIP) -e '.[ray]'
	touch $@

clean:
	rm -rf .venv demo build dist site docs/reference .pytest_cache .mypy_cache .ruff_cache
