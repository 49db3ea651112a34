# Everything a fresh machine with Python 3.12 and make needs: `make demo`, `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo-out
TOOLS := slurm-wlm munge openssh-server
export LSDASK_DATA ?= $(abspath ../shared/data)

.DEFAULT_GOAL := help
.PHONY: help setup cluster-tools demo test test-slow lint format docs notebooks wheel lock bench benchmarks clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# The environment is made again only when the lock or the package's metadata changes.
$(VENV)/.installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "lsdask needs Python 3.12 or newer. Got no $(PYTHON). Install it, or pass PYTHON=/path/to/python3.12."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || { echo "lsdask needs Python 3.12 or newer. Got $$($(PYTHON) --version). Pass PYTHON=/path/to/python3.12."; exit 1; }
	@[ -x $(BIN)/uv ] || { $(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet --disable-pip-version-check uv; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

setup: $(VENV)/.installed ## make the environment (.venv)

cluster-tools: ## a SLURM and an SSH server for the tests that start them: Debian's packages, as root
	@dpkg --status $(TOOLS) >/dev/null 2>&1 || { \
	apt-get -qq update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq install --no-install-recommends $(TOOLS) >/dev/null; }

demo: setup ## scenes in, landslide map and inventory out, in demo-out/
	$(BIN)/lsdask demo --out $(DEMO)

test: setup ## the tests, under ten minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: setup ## the long tests too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not gpu"

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## this project's site, in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -n -q -d docs/_build/trees docs docs/_build/html

notebooks: setup ## write the notebooks from their scripts
	$(BIN)/jupytext --quiet --to ipynb --update --set-kernel python3 examples/notebooks/0*.py

wheel: setup ## wheel and sdist, in dist/
	$(BIN)/uv build --quiet --out-dir dist

lock: setup ## pin every version again, names and versions only
	$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --all-extras --no-emit-index-url --no-header --python-version 3.12 -o requirements.lock

bench: setup ## this machine's limits, lsdask, and the usual; kept in benchmarks/results/
	$(BIN)/lsdask bench --full --out benchmarks/results --plot benchmarks/results/roofline.png

benchmarks: setup ## every benchmark script, one JSON line each; an hour or so
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/evaluate.py
	$(BIN)/python benchmarks/vectorize.py
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/compression.py
	$(BIN)/python benchmarks/mosaic.py
	$(BIN)/python benchmarks/kmeans.py
	$(BIN)/python benchmarks/predict.py --rivals
	$(BIN)/python benchmarks/training.py --sides 64 --tiles 1280 --rounds 2
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/scaling.py --seconds 3

clean: ## remove what make made
	rm -rf $(VENV) $(DEMO) dist docs/_build docs/reference .mypy_cache .ruff_cache .pytest_cache .hypothesis
