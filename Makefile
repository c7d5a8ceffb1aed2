# `make help` lists the targets. Set variables on the command line: make demo SONOTAG_RECIPE=…
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# make's path functions split at spaces, so an absolute path is used as it is.
export SONOTAG_STORE := $(if $(filter /%,$(firstword $(SONOTAG_STORE))),$(SONOTAG_STORE),$(CURDIR)/$(or $(SONOTAG_STORE),store))
export SONOTAG_RECIPE := $(or $(SONOTAG_RECIPE),demo)
export DAGSTER_HOME := $(or $(DAGSTER_HOME),$(SONOTAG_STORE)/dagster)
# Suppresses Dagster's notice on every call that `dg launch` supersedes `dagster job execute`; both work.
export PYTHONWARNINGS := ignore::FutureWarning:click.core,$(PYTHONWARNINGS)

PYTHON := python3
BIN := .venv/bin
READY := .venv/installed
DEV := .venv/installed-dev
# pip checks every file against its hash and builds nothing from source.
PIP_INSTALL := $(BIN)/pip install --quiet --require-hashes --only-binary :all:
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
    --no-annotate --no-header

.PHONY: help install install-dev instance demo phantom ui mlflow lint types test test-unit test-integration test-slow test-ui bench lock sbom wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install: $(READY)  ## install sonotag for use in .venv, from requirements.txt

install-dev: $(DEV)  ## add tests, linters and benchmarks, from constraints.txt

$(READY): pyproject.toml requirements.txt
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): constraints.txt $(READY)
	$(PIP_INSTALL) --requirement constraints.txt
	@touch $@

lock: $(DEV)  ## rewrite constraints.txt and requirements.txt from pyproject.toml, with hashes; keeps pins that fit
	$(UV_COMPILE) --all-extras --output-file constraints.txt pyproject.toml
	$(UV_COMPILE) --extra s3 --extra postgres --constraint constraints.txt --output-file requirements.txt pyproject.toml

sbom: $(DEV)  ## write dist/sbom.cdx.json: a CycloneDX bill of what `make install` installs
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml --mc-type application \
	    --output-file dist/sbom.cdx.json requirements.txt

instance: $(READY)  # phony: a make target cannot contain a space, a % or a #
	@test "$$DAGSTER_HOME/dagster.yaml" -nt dagster.yaml || $(BIN)/python -m resources.instance dagster.yaml

phantom: $(READY)  ## write the recipe's simulated clinic into the store
	$(BIN)/python -m pipeline.phantom "$$SONOTAG_STORE/phantom" --recipe "$$SONOTAG_RECIPE"

# The demo recipe's tasks come from the phantom: skip it only for your own archive with your own recipe.
demo: $(READY) instance $(if $(and $(SONOTAG_ARCHIVE),$(filter-out demo,$(SONOTAG_RECIPE))),,phantom)  ## run everything, from DICOM files to the results table
	$(BIN)/dagster job execute -m assets.definitions -j demo
	@$(BIN)/python -m pipeline.evaluation
	@echo "Dagster's web server:  make ui       http://127.0.0.1:3000"
	@echo "MLflow's runs:         make mlflow   http://127.0.0.1:5000"

ui: $(READY) instance  ## start Dagster's web server and daemon on http://127.0.0.1:3000
	@$(BIN)/python -c "import assets.definitions"  # prints one sentence if the recipe is invalid
	$(BIN)/python -m resources.ui --port 3000

mlflow: $(READY)  ## start MLflow's server on the store's database, http://127.0.0.1:5000
	@$(BIN)/python -m resources.mlflow_server --port 5000

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

# Two processes, since one leaves a core idle; tests of one file share fixtures, so a file stays in one process. In their
# order, so that the files that run whole jobs, which come first, are not the last ones to end.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint  ## run lint, types, unit tests and one run from end to end; 5 to 6 minutes on 2 cores
	@$(MAKE) --no-print-directory --jobs 2 types test-unit  # mypy runs on one core

test-unit: $(DEV)
	$(PYTEST) -m "not integration and not ui and not slow"

test-integration: $(DEV)  ## run what CI adds to `make test`: whole jobs, servers, killed processes, web pages
	$(PYTEST) -m "(integration or ui) and not slow"

test-slow: $(DEV)  ## run the tests marked slow: fuzzing, repeated kills, 10,000 instances
	$(BIN)/pytest -m "slow and not ui"

test-ui: $(DEV)  ## run the tests of the web pages, in Chromium
	$(BIN)/pytest -m ui

bench: $(DEV)  ## run the benchmarks: ratios to a peer in the same run
	$(BIN)/python -m benchmarks

wheel: $(READY)  ## build a wheel in dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## delete the environment and the store
	rm -rf .venv store dist build *.egg-info
