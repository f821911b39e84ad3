# Each target sets up what it needs (a virtual environment in $(VENV)) and can be run again.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := decloud_trainer tests .ci

.PHONY: help demo test check format bench chaos soak reconcile program clean

help:
	@echo "make demo     watch a round earn its reward on a local network"
	@echo "make test     run all tests"
	@echo "make check    lint, types, import rules (edits nothing)"
	@echo "make format   format the code"
	@echo "make bench    measure; run by hand"
	@echo "make chaos    kill daemons at 3,000 random points; run by hand"
	@echo "make soak     one daemon through 2,000 rounds; run by hand"
	@echo "make reconcile  book 200 rounds against the chain; run by hand"
	@echo "make program  build the on-chain program of the local network (needs clang-14)"
	@echo "make clean    remove what the other targets made"

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: $(VENV)/installed
	$(BIN)/decloud-trainer demo

test: $(VENV)/installed
	$(BIN)/python -m pytest

check: $(VENV)/installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

format: $(VENV)/installed
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks

chaos: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.chaos --seeds 1000

soak: $(VENV)/installed
	$(BIN)/python -m tests.soak --rounds 2000 --real 20

reconcile: $(VENV)/installed
	$(BIN)/python -m tests.reconciliation 200

program: $(VENV)/installed
	$(BIN)/python -m decloud_trainer.localnet.program.build

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find decloud_trainer tests -name __pycache__ -type d -prune -exec rm -rf {} +
