# Python 3.11 or newer, make and git are all that is needed; everything else comes from PyPI into VENV.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo demo-s3 test lint judges bench bench-read scale setup clean

help:
	@echo "make demo     set up, make a small data set, build, verify, catalog and open its cube"
	@echo "make demo-s3  the same on an S3 server of this machine: build, verify, copy, open without credentials"
	@echo "make test     set up everything the tests need, then run them"
	@echo "make lint     ruff, mypy, import contracts, bandit, notes of changes"
	@echo "make judges   the long tests, and those that judge from outside"
	@echo "make bench    the figures of docs/performance.md"
	@echo "make bench-read   reading, against other loaders"
	@echo "make scale    the true number of files and patches, end to end with tiny pixels"

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed: make PYTHON=/path/to/python' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"

$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.everything: $(VENV)/.runtime
	$(PIP) install --quiet --constraint constraints.txt --group test --group lint
	@touch $@

setup: $(VENV)/.everything

demo: $(VENV)/.runtime
	$(BIN)/cube demo

demo-s3: setup
	PYTHONPATH=tests $(BIN)/python tests/integration/demo_s3.py

# One process more than there are cores: tests wait for servers, workers and disks.
test: setup
	$(BIN)/python -m pytest -m "not judges" --numprocesses $$($(BIN)/python -c "import os; print(min(4, (os.cpu_count() or 1) + 1))") \
	  --dist loadfile --durations 20

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive cube
	$(BIN)/towncrier build --draft --version next >/dev/null

judges: setup
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium)
	$(BIN)/python -m pytest -m judges --numprocesses auto --maxprocesses 2 --dist loadfile --durations 20

bench: setup
	$(BIN)/python benchmarks/convert.py

bench-read: setup
	$(PIP) install --quiet --no-deps --constraint constraints.txt --group bench
	$(BIN)/python benchmarks/read.py

scale: setup
	$(BIN)/python benchmarks/fullsize.py
	$(BIN)/python benchmarks/endtoend.py

clean:
	rm -rf .venv .venv-newest cube-demo dist build benchmarks/out
