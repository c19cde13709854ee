# napari-nucseg: everything from a fresh clone. `make help` lists the targets.

# An interpreter of your choice (3.11 or newer); by default the first that is found.
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help env run test lint format bench system clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(VENV)/.installed ## Make the Python environment in .venv

$(VENV)/.installed: pyproject.toml constraints.txt scripts/environment.sh
	@PYTHON="$(PYTHON)" bash scripts/environment.sh "$(VENV)"

run: env ## Open napari with a sample image and the NucSeg panel; without a display, segment it headless
	@bash scripts/system.sh run
	@$(BIN)/napari-nucseg demo

test: env ## Run all the tests, windows on a virtual screen; ARGS="-k tiling" picks some
	@bash scripts/system.sh test
	@QT_QPA_PLATFORM=$${QT_QPA_PLATFORM:-xcb} $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: env ## Check style, formatting and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: env ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: env ## Measure the whole pipeline against plain alternatives, then every part of it
	@$(BIN)/python -m benchmarks.pipeline
	@$(BIN)/python -m benchmarks.suite

system: ## Install the system libraries that napari's window and the tests need
	@bash scripts/system.sh test

clean: ## Remove the environment, the caches and the build outputs
	rm -rf $(VENV) build dist results nucseg-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find src train tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
