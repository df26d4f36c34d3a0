# Linux, Python >= 3.11 and make are all that this needs: .venv is made and filled on demand.
PYTHON ?= python3
BIN := .venv/bin
DEV := .venv/.dev
DEMO := .venv/.demo
BENCH := .venv/.bench
DOCS := docs/api.md docs/codes.md docs/commands.md docs/config-build.md docs/config-train.md docs/formats.md docs/layouts.md docs/losses.md
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo paper test quick stress check fmt golden bench clean
.DEFAULT_GOAL := help

help:  ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(DEMO)  ## Raw files to a trained policy, on a real model (about ten minutes on two cores)
	$(BIN)/python pipelines/quickstart/run.py

paper: $(DEMO)  ## The paper's frontier of reward against KL, all methods (up to three hours on two cores)
	$(BIN)/python -m pipelines.paper.sentiment.run

test: check  ## Everything that CI runs but the demo
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal

quick: $(DEV)  ## The tests that run in one process: about two minutes
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal -m "not slow and not stress and not crash"

stress: $(DEV)  ## The tests that count cases, at the counts that docs/reliability.md states (over an hour)
	STRESS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal -m "stress or crash"

check: $(DEV)  ## Lint, format, types, import arrows, generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m cogapp --check $(DOCS)

fmt: $(DEV)  ## Format, and write what is generated: schemas, docs
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m prefdata.schemas schemas
	$(BIN)/python -m dpo.schemas schemas
	$(BIN)/python -m cogapp -r $(DOCS)

golden: $(DEV)  ## Write the golden files anew; a change to one needs its reason in the commit
	GOLDEN=write $(BIN)/python -m pytest -q tests/test_golden.py

bench: $(BENCH)  ## How the benchmarks are run
	@cat bench/README.md

clean:  ## Remove what was made here; models and runs too
	rm -rf .venv .models runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv .venv

# torch first and alone, so that no other requirement chooses its version
.venv/.torch: constraints.txt | $(BIN)/python
	$(INSTALL) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(DEV): pyproject.toml .venv/.torch
	$(INSTALL) -e '.[train,dev,quickstart]'
	@touch $@

$(DEMO): pyproject.toml .venv/.torch
	$(INSTALL) -e '.[train,quickstart]'
	@touch $@

$(BENCH): pyproject.toml .venv/.torch
	$(INSTALL) -e '.[train,dev,quickstart,bench]'
	@touch $@
