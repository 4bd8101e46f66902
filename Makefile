# Needs make and Python 3.11 or newer; everything else is set up here. `make help` lists the targets.

.PHONY: help install run test lint format bench lock clean
.DEFAULT_GOAL := help

# The first interpreter that is new enough. Choose another with `make run PYTHON=/path/to/python`.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p $(NEW_ENOUGH) >/dev/null 2>&1 && { echo $$p; break; }; done)

VENV := .venv/bin
ARGS ?=

# Processes the tests are spread over: one more than cores, as many tests wait for a server or a child. Each of them
# reads the whole suite first, so a great many do not pay.
TEST_PROCESSES ?= $(shell $(or $(PYTHON),true) -c 'import os; print(min(os.cpu_count() + 1, 8))')

# Tests and tools start hundreds of interpreters, and each would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

define bootstrap
@test -n "$(PYTHON)" || { echo "Millrace needs Python 3.11 or newer, and none was found on PATH."; exit 1; }
@$(PYTHON) bootstrap.py $(1)
endef

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Set up .venv with what running needs
	$(call bootstrap,run)

run: ## Start everything (PostgreSQL, Valkey, API, worker) and serve until Ctrl-C; ARGS="--port 9000" and the like
	$(call bootstrap,run)
	@exec $(VENV)/millrace dev $(ARGS)

test: ## Run the whole test suite; ARGS="tests/unit -k name" and the like
	$(call bootstrap,dev)
	@exec $(VENV)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal $(ARGS)

lint: ## Check style, types and the direction of imports
	$(call bootstrap,dev)
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/pyright
	PYTHONPATH=. $(VENV)/lint-imports

format: ## Reformat the code
	$(call bootstrap,dev)
	$(VENV)/ruff format
	$(VENV)/ruff check --fix-only

bench: ## Measure on this machine; see bench/README.md
	$(call bootstrap,dev)
	@exec $(VENV)/python -m bench $(ARGS)

lock: ## Write both lock files anew, keeping versions that still fit; ARGS=--upgrade takes the newest
	$(call bootstrap,dev)
	$(VENV)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header $(ARGS) \
	  pyproject.toml -o requirements.lock
	$(VENV)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header $(ARGS) \
	  -c requirements.lock --group dev pyproject.toml -o requirements-dev.lock

clean: ## Remove the virtual environment and caches (not .millrace, which holds data)
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache
