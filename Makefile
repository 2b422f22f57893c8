PYTHON ?= python3
RUN ?= quickstart
SEEDS ?= 1
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
PYTEST := $(BIN)/python -m pytest -q --numprocesses 2 --dist loadscope

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests quickstart real chaos test test-nightly check warmstart clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Create .venv with everything pinned; does nothing when nothing changed.
	@$(PYTHON) launch/setup_environment.py

quickstart: setup ## Train the small agent of the embedded world and report (RUN=name).
	@LZERO_SETUP_SECONDS="$$(cat .venv/.lzero-setup-seconds)" \
		$(BIN)/lzero train launch/presets/quickstart.toml --name "$(RUN)" --keep-old

real: RUN = real
real: setup ## Bring a pretrained model, warm it up, train and report (MODEL=path, RUN=name).
	@LZERO_SETUP_SECONDS="$$(cat .venv/.lzero-setup-seconds)" \
		$(BIN)/lzero real --name "$(RUN)" $(if $(MODEL),--model "$(MODEL)")

chaos: setup ## The quickstart with somebody killed every 30 s, beside one left alone (SEEDS=1,2,3).
	@$(BIN)/python -m benchmarks.chaos --seeds "$(SEEDS)" --json runs/chaos.json

setup-tests: ## The same, with what tests and checks need.
	@$(PYTHON) launch/setup_environment.py --tests

test: setup-tests ## Run the tests.
	@$(PYTEST) -m "not gpu and not nightly" tests

test-nightly: setup-tests ## Run every test, also the long ones.
	@LZERO_FAULTS_JSON="$${LZERO_FAULTS_JSON:-runs/fault_suite.json}" $(PYTEST) -m "not gpu" tests

check: setup-tests ## Lint, formatting, types and the import rules.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

warmstart: setup ## Make the shipped warm-start checkpoint again from nothing.
	@$(BIN)/python -m launch.data.warmstart

clean: ## Remove the environment and the caches; runs/ is kept.
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m actors.kernels.runtime --remove || true; fi
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
