# finestep: `make demo` runs the main job on the shipped model and data, `make test` the tests; both set everything up. `make test-long` runs the tests that take minutes.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-long check bench exports clean

demo: $(READY)
	$(BIN)/finestep tune --out demo

test: $(READY)
	$(PYTEST) -m 'not long'

test-long: $(READY)
	$(PYTEST) -m long

check: $(READY)
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/mypy
	$(PYTEST)

bench: $(READY)
	$(BIN)/python -m benchmarks.step_time

exports: $(READY)
	$(BIN)/python scripts/check_exports.py

$(READY): pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	touch $(READY)

clean:
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache
