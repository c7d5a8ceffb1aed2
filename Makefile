# Every command a person needs; `make help` lists them. Variables can be set from outside: make demo SONOTAG_RECIPE=…
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# An absolute path as it is, spaces and all, which make's own functions would take for several paths.
export SONOTAG_STORE := $(if $(filter /%,$(firstword $(SONOTAG_STORE))),$(SONOTAG_STORE),$(CURDIR)/$(or $(SONOTAG_STORE),store))
export SONOTAG_RECIPE := $(or $(SONOTAG_RECIPE),demo)
export DAGSTER_HOME := $(or $(DAGSTER_HOME),$(SONOTAG_STORE)/dagster)
# Dagster says on every call that `dg launch` supersedes `dagster job execute`; both work.
export PYTHONWARNINGS := ignore::FutureWarning:click.core,$(PYTHONWARNINGS)

PYTHON := python3
BIN := .venv/bin
READY := .venv/installed
DEV := .venv/installed-dev
# Every file is checked against the hash in the list, and none is built from source.
PIP_INSTALL := $(BIN)/pip install --quiet --require-hashes --only-binary :all:
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
    --no-annotate --no-header

.PHONY: help install install-dev instance demo phantom ui mlflow lint types test test-slow test-ui bench lock sbom wheel clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install: $(READY)  ## what a user needs, in .venv, from requirements.txt

install-dev: $(DEV)  ## and what tests, linters and benchmarks need, from constraints.txt

$(READY): pyproject.toml requirements.txt
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): constraints.txt $(READY)
	$(PIP_INSTALL) --requirement constraints.txt
	@touch $@

lock: $(DEV)  ## constraints.txt and requirements.txt anew from pyproject.toml, with hashes; pins that fit stay
	$(UV_COMPILE) --all-extras --output-file constraints.txt pyproject.toml
	$(UV_COMPILE) --extra s3 --extra postgres --constraint constraints.txt --output-file requirements.txt pyproject.toml

sbom: $(DEV)  ## dist/sbom.cdx.json: what `make install` installs, as CycloneDX
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml --mc-type application \
	    --output-file dist/sbom.cdx.json requirements.txt

instance: $(READY)  # not a rule for its file: make cannot name a path with a space, a % or a #
	@test "$$DAGSTER_HOME/dagster.yaml" -nt dagster.yaml || $(BIN)/python -m resources.instance dagster.yaml

phantom: $(READY)  ## the phantom clinic of the recipe, in the store
	$(BIN)/python -m pipeline.phantom "$$SONOTAG_STORE/phantom" --recipe "$$SONOTAG_RECIPE"

# The demo recipe's tasks are the phantom's, so that only an own archive with an own recipe goes without it.
demo: $(READY) instance $(if $(and $(SONOTAG_ARCHIVE),$(filter-out demo,$(SONOTAG_RECIPE))),,phantom)  ## from DICOM files to the results table
	$(BIN)/dagster job execute -m assets.definitions -j demo
	@$(BIN)/python -m pipeline.evaluation
	@echo "Dagster's web server:  make ui       http://127.0.0.1:3000"
	@echo "MLflow's runs:         make mlflow   http://127.0.0.1:5000"

ui: $(READY) instance  ## Dagster's web server and daemon, http://127.0.0.1:3000
	@$(BIN)/python -c "import assets.definitions"  # what is wrong with the recipe is one sentence here
	$(BIN)/python -m resources.ui --port 3000

mlflow: $(READY)  ## MLflow's server on the store's database, http://127.0.0.1:5000
	@$(BIN)/python -m resources.mlflow_server --port 5000

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

# Two workers, since the suite of one process leaves a core idle; a file's tests share their fixtures.
test: lint types  ## lint, types and all tests but the slow ones: what CI runs
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(DEV)  ## the tests that take minutes
	$(BIN)/pytest -m "slow and not ui"

test-ui: $(DEV)  ## the web pages, in Chromium
	$(BIN)/pytest -m ui

bench: $(DEV)  ## benchmarks, each a ratio to a peer in the same run
	$(BIN)/python -m benchmarks

wheel: $(READY)  ## a wheel in dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## removes the environment and the store
	rm -rf .venv store dist build *.egg-info
