# The one interface for people and for CI. `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
           --no-emit-package headrace --group build --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help up test check gen lock bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

up: $(VENV)/runtime.stamp ## install what is missing, fetch the models, start the mesh on 127.0.0.1:8080
	@exec $(BIN)/headrace up

test: $(VENV)/dev.stamp ## install what is missing, run every test
	@$(BIN)/python -m pytest

check: $(VENV)/dev.stamp ## linters, types, protos, generated code, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python protos/generate.py --check
	$(BIN)/python protos/lint.py
	$(BIN)/python -m pytest tests/test_architecture.py

gen: $(VENV)/dev.stamp ## regenerate the committed stubs from protos/
	$(BIN)/python protos/generate.py

bench: $(VENV)/dev.stamp ## measure the floors: the gateway against the bare service, the service against bare loops
	@$(BIN)/python -m benchmarks.floors

lock: $(VENV)/dev.stamp ## resolve the dependencies anew
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) --group dev --extra tensorrt-rtx pyproject.toml --output-file requirements-dev.lock

clean: ## remove the environment and every run's state (models and their cache stay)
	rm -rf $(VENV) .headrace .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or later; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# The developers' set is a superset, so an environment that has it serves `up` too.
$(VENV)/runtime.stamp: requirements.lock pyproject.toml clients/python/pyproject.toml | $(BIN)/python
	@echo "Installing Headrace into $(VENV) (about a minute, once) ..."
	$(PIP) install --require-hashes --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable clients/python --editable .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock pyproject.toml clients/python/pyproject.toml | $(BIN)/python
	@echo "Installing Headrace and its developers' tools into $(VENV) (about two minutes, once) ..."
	$(PIP) install --require-hashes --requirement requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation --editable clients/python --editable .
	@touch $@ $(VENV)/runtime.stamp
