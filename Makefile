PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# curvlinops without the torchvision that backpack-for-pytorch lists: neither imports it, and it has no build
# for every torch
CURVLINOPS := curvlinops-for-pytorch backpack-for-pytorch einconv einops jaxtyping linear-operator opt-einsum \
	tqdm unfoldnd wadler-lindig
STAMP := $(VENV)/.installed

.PHONY: demo study test test-slow lint format docs serve-docs notebooks bench table recompile clean help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: needs Python 3.11; say make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation -e '.[dev,docs,scip,gurobi]'
	$(PIP) --no-deps $(CURVLINOPS)
	touch $@

demo: $(STAMP)  ## train the digits network, prune it with every method, write runs/
	$(BIN)/cbs prune

study: $(STAMP)  ## run a study of five minutes, exact against heuristic selection, and write its page
	mkdir -p runs
	$(BIN)/cbs study run studies/quick.toml --store runs/study.sqlite --report runs/study.html

test: $(STAMP)  ## the default test run
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-slow: $(STAMP)  ## the tests that take minutes, or need the data folder named by CBS_DATA
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)  ## formatting, lint rules and types
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

format: $(STAMP)  ## reformat, and repair what the linter can
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: $(STAMP)  ## build the documentation into site/; a broken link is an error
	$(BIN)/python -m mkdocs build --strict

serve-docs: $(STAMP)  ## show the documentation in a browser while it is written
	$(BIN)/python -m mkdocs serve

notebooks: $(STAMP)  ## run the notebooks anew, and keep what they show
	$(BIN)/python -m nbconvert --to notebook --execute --inplace docs/notebooks/*.ipynb

bench: $(STAMP)  ## time every solver on fixed instances, and the parts that wide rows take
	$(BIN)/python -m pytest benchmarks/bench_*.py --benchmark-only

table: $(STAMP)  ## rerun the README's table of methods
	$(BIN)/cbs study run experiments/methods_table/study.toml
	$(BIN)/cbs study show experiments/methods_table/study.toml --write

recompile:  ## forget compiled code: for a change to a compiled function that other modules call
	find solvers cbs -name '*.nb[ic]' -delete

clean:  ## remove the environment and every cache
	rm -rf $(VENV) site .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
