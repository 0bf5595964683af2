# The product's front door. Every target sets up what it needs; nothing is installed outside .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo serve new-key benchmark chaos test lint types contracts check lock clean

help:
	@echo "make demo    train a model, make it forget over HTTP, check the evidence"
	@echo "make test    run the test suite on a real PostgreSQL and a real Redis-protocol server"
	@echo "make serve   start the service here and leave it running"
	@echo "make new-key   another API key for 'make serve', in the place of a lost one"
	@echo "make check   what CI runs: lint, types, import contracts, tests"
	@echo "make chaos   kill the service KILLS times (SEED=7), then check what is left; FAULT= breaks it first"
	@echo "make benchmark   how well each method forgets, in minutes; BENCHMARK= for the whole grid"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lethe needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt examples/pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) (about a gigabyte with PyTorch; once)"
	$(INSTALL) --editable '.[worker,embedded]' --editable examples
	@touch $@

# All at once where nothing is installed yet: pip's own work takes longer than a test of ours.
$(VENV)/.installed-dev: pyproject.toml constraints.txt examples/pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) (about a gigabyte with PyTorch; once)"
	$(INSTALL) --editable '.[worker,embedded,dev]' --editable examples
	@touch $(VENV)/.installed $@

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

demo: install
	$(BIN)/python -m lethe_examples.demo $(DEMO)

serve: install
	$(BIN)/python -m embedded serve

new-key: install
	$(BIN)/python -m embedded new-key

BENCHMARK ?= --quick
benchmark: install
	$(INSTALL) --editable '.[benchmarks]'
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.forgetting $(BENCHMARK) --report build/forgetting/report.md

test: install-dev
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

KILLS ?= 50
SEED ?= 7
chaos: install-dev  ## KILLS=500 takes about twenty minutes; a run with FAULT= has to fail
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m tests.chaos --kills $(KILLS) --seed $(SEED) $(if $(FAULT),--fault $(FAULT))

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/mypy

contracts: install-dev
	$(BIN)/lint-imports

check: lint types contracts test

lock: install-dev  ## write down what is installed now
	(head -n 1 constraints.txt; $(PIP) freeze --exclude-editable | sed "s/+cpu//") > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build *.egg-info examples/*.egg-info .mypy_cache .ruff_cache .pytest_cache
