# The one interface for people and for CI. `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
           --no-emit-package headrace --no-emit-package xds-protos --custom-compile-command "make lock"

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
	$(COMPILE) --group build pyproject.toml --output-file requirements.lock
	$(COMPILE) --group build --group dev --extra tensorrt-rtx pyproject.toml --output-file requirements-dev.lock
	printf 'xds-protos==1.85.0\n' | $(subst --no-emit-package xds-protos,,$(COMPILE)) --no-deps - --output-file requirements-xds.lock

clean: ## remove the environment and every run's state (models and their cache stay)
	rm -rf $(VENV) .headrace .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or later; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# xds-protos brings older copies of files that opentelemetry-proto and googleapis-common-protos own, so it goes first and
# they overwrite them. The developers' set is a superset, so an environment that has it serves `up` too.
define install
	$(PIP) install --require-hashes --no-deps --requirement requirements-xds.lock
	$(PIP) install --require-hashes --requirement $(1)
	$(PIP) install --no-deps --no-build-isolation --editable clients/python --editable .
endef
PROJECTS := pyproject.toml clients/python/pyproject.toml requirements-xds.lock

$(VENV)/runtime.stamp: requirements.lock $(PROJECTS) | $(BIN)/python
	@echo "Installing Headrace into $(VENV) (about a minute, once) ..."
	$(call install,requirements.lock)
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(PROJECTS) | $(BIN)/python
	@echo "Installing Headrace and its developers' tools into $(VENV) (about two minutes, once) ..."
	$(call install,requirements-dev.lock)
	@touch $@ $(VENV)/runtime.stamp
