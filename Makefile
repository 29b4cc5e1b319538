# The two commands of a new user: `make demo` and `make test`. Everything else is for people who change the code.
PYTHON ?= python3.11
BIN := .venv/bin
WORKERS ?= 2
STORE ?= folder
KILLS ?= 300

.PHONY: help env demo test torture check clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

env: .venv/ready ## create .venv with the pinned versions (a C compiler is needed for PyRadiomics)

# PyRadiomics 3.0.1 is built from source and needs what it builds with to be there already.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c requirements.lock setuptools wheel numpy cython versioneer
	$(BIN)/python -m pip install -q --no-build-isolation -r requirements.lock
	$(BIN)/python -m pip install -q --no-build-isolation --no-deps -e .
	$(BIN)/python -m pip check
	touch $@

demo: env ## the main job end to end, on a phantom cohort made on the spot
	$(BIN)/asdeg demo

test: env ## all tests: side by side on WORKERS cores, then those that use the cores themselves
	$(BIN)/python -m pytest -m "not cores" -n $(WORKERS) --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m cores

torture: env ## kill writers, extractors and the optimiser of one store 300 times, count what was lost; STORE=s3: on S3
	$(BIN)/python -m tests.torture --store $(STORE) --kills $(KILLS)

check: env ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove the environment and the demo's store
	rm -rf .venv demo-store
