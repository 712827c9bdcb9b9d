# Every target sets up what it needs in .venv; none needs a service or sudo.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for processes of their own: on two cores three run side by side, each with servers of its own.
TESTS := $(BIN)/pytest --numprocesses=3 --dist=worksteal
READY := $(VENV)/.ready
# All tests have passed for the files as they are: `make check` does not repeat what `make test` has just done.
TESTED := $(VENV)/.tested$(CI)
FILES := $(shell find . -name '.[!.]*' -prune -o -name __pycache__ -prune -o -type f -print)

.DEFAULT_GOAL := help
.PHONY: help demo test chaos check up fmt

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Run the main job on this machine: statistics of Python's standard library.
	@$(BIN)/jobrunner demo

up: $(READY) ## Run broker, tracker and worker on this machine until Ctrl-C.
	@$(BIN)/jobrunner up

test: $(READY) ## Run all tests.
	@rm -f $(TESTED)
	@$(MAKE) --no-print-directory $(TESTED)

chaos: $(READY) ## Run the tests that kill and freeze for minutes, on every database and broker.
	@$(TESTS) -m chaos

check: $(READY) ## Everything CI runs: format, lint, types, import rules, tests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory $(TESTED)

fmt: $(READY) ## Format the code and fix what can be fixed.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

$(TESTED): $(READY) $(FILES)
	$(TESTS)
	@touch $@

$(READY): pyproject.toml
	@echo "Setting up $(VENV) (once) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@
