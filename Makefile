# Linux, Python >= 3.11 and make are all that this needs: .venv is made and filled on demand.
PYTHON ?= python3
BIN := .venv/bin
DEV := .venv/.dev
DEMO := .venv/.demo
BENCH := .venv/.bench
PPO := .venv/.ppo
CLUSTER := .venv/.cluster
DOCS := docs/api.md docs/codes.md docs/commands.md docs/config-build.md docs/config-train.md docs/formats.md docs/layouts.md docs/losses.md
LOWEST := .lowest
RELEASE := .release
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo paper test quick stress cluster lowest check fmt golden bench ppo dist clean
.DEFAULT_GOAL := help

help:  ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(DEMO)  ## Raw files to a trained policy, on a real model (about ten minutes on two cores)
	$(BIN)/python pipelines/quickstart/run.py

paper: $(BENCH) $(PPO)  ## The paper's frontier of reward against KL, all methods (up to three hours on two cores)
	$(BIN)/python -m pipelines.paper.sentiment.run

test: check  ## Everything that CI runs but the demo
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal

quick: $(DEV)  ## The tests that run in one process: about two minutes
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal -m "not slow and not stress and not crash"

stress: $(DEV)  ## The tests that count cases, at the counts that docs/reliability.md states (over an hour)
	STRESS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal -m "stress or crash"

cluster: $(CLUSTER)  ## The tests of Ray clusters and of S3, for which it installs ray, moto and s3fs
	$(BIN)/python -m pytest -q tests/prefdata/engine tests/prefdata/hub/test_s3.py

lowest:  ## The tests of `make quick` with the lowest versions that pyproject.toml allows, in .lowest
	$(PYTHON) -m venv $(LOWEST)
	grep -oE '"[A-Za-z0-9_-]+>=[0-9][0-9.]*' pyproject.toml | sed 's/"//; s/>=/==/' | sort -u > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet -c $(LOWEST)/constraints.txt -e '.[train,dev,quickstart]'
	$(LOWEST)/bin/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal -m "not slow and not stress and not crash"

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

ppo: $(PPO)  ## Install TRL 1.12, whose PPO `make paper` runs, in a directory of its own

dist:  ## Wheel and sdist in dist/, equal when built again from the sdist, and their SBOM in .release
	rm -rf dist $(RELEASE)
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet -c constraints.txt hatchling hatch-fancy-pypi-readme twine cyclonedx-bom
	$(RELEASE)/bin/python -m hatchling build -d dist
	mkdir $(RELEASE)/sdist && tar -xzf dist/*.tar.gz -C $(RELEASE)/sdist --strip-components 1
	cd $(RELEASE)/sdist && ../bin/python -m hatchling build -d ../again
	diff -r dist $(RELEASE)/again
	$(RELEASE)/bin/twine check --strict dist/*
	$(PYTHON) -m venv $(RELEASE)/user
	$(RELEASE)/user/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	$(RELEASE)/bin/cyclonedx-py environment $(RELEASE)/user/bin/python --pyproject pyproject.toml \
		--output-reproducible --output-file $(RELEASE)/sbom.cdx.json

clean:  ## Remove what was made here; models and runs too
	rm -rf .venv .lowest .release dist .models runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

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

$(CLUSTER): pyproject.toml $(DEV)
	$(INSTALL) -e '.[ray]' 'ray[client]' 'moto[server]' s3fs
	@touch $@

# the last release that has PPO; alone, since .venv has the TRL of RLOO
$(PPO): | .venv/.torch
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/ppo trl==1.12.0
	@touch $@
