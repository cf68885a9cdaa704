# What a developer types. Needs make and Python 3.11 or newer; brings everything else.
#
#   make run      the project on this machine: starts it all, plays the demo, stays (ONCE=1: leaves)
#   make test     lint, then every test
#   make lint     ruff and mypy
#   make bench    the numbers of tests/bench
#   make chaos    breaks everything at random and counts what was lost or doubled (SEEDS="1 2" SUBMITS=1000 ...)
#   make setup    only install
#   make package  what is deployed: the app, its packages for Azure's Python, byte code
#   make smoke    looks whether a deployment works (URL=... TOKEN=...)
#   make clean    forget everything that was installed or stored here

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
AZURITE := .local/azurite/.installed

# The first that really runs: pyenv leaves names on the PATH behind which there is no Python.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$name; break; fi; \
	done)

.PHONY: run test lint bench chaos setup package smoke clean

run: setup
	@$(BIN)/python -m local.up $(if $(filter-out 0,$(ONCE)),--once)

test: lint $(AZURITE)
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: setup
	@$(BIN)/python -m tests.bench

chaos: setup
	@$(BIN)/python -m tests.chaos

package: $(STAMP)
	@$(BIN)/python scripts/package.py --zip .local/graphpost.zip

# The token goes through the environment: arguments can be seen by everybody on the machine.
smoke:
	@if [ -z "$(URL)" ]; then echo "make smoke URL=https://... [TOKEN=...]" >&2; exit 2; fi
	@GRAPHPOST_TOKEN="$(TOKEN)" $(PYTHON) scripts/smoke.py "$(URL)"

setup: $(STAMP) $(AZURITE)

clean:
	rm -rf $(VENV) .local .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.11 or newer is needed; none was found on the PATH (or name one: make PYTHON=...)" >&2; exit 1; fi
	@echo "making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# The packages of requirements-dev.txt. Order-only on python: its time stamp is that of the system's.
$(STAMP): requirements.txt requirements-dev.txt | $(BIN)/python
	@echo "installing the Python packages (once, one or two minutes) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements-dev.txt
	@touch $@

$(AZURITE): | $(STAMP)
	@$(BIN)/python -m local.services install
