# make demo: the whole story on a small data set. make test: the tests. make lint: the linters.
# make mutate: small changes to what decides a verdict must make a test fail (half an hour).
# Each sets up .venv first. Where pip can see a CPU build of the pinned torch, it is taken and no CUDA packages come.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What decides a verdict is run by its own tests, branch by branch: 99.5% of it when this was written.
COVERAGE := --cov=ticketguard.verification --cov=ticketguard.credentials --cov-branch --cov-report= --cov-fail-under=99
READY := $(VENV)/.ready

.PHONY: demo test lint mutate dist clean

demo: $(READY)
	$(BIN)/ticketguard demo --out demo-output

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(COVERAGE)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

mutate: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,mutate]'
	nice $(BIN)/python -m benchmarks.mutants

dist: $(READY)
	$(BIN)/python -m build --no-isolation

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("ticketguard needs Python 3.11 or newer: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf dist build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
