# `make` alone prints this list. Everything stays in this folder: .venv/ has the packages, run/ the data of Ratchet.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
RATCHET := $(BIN)/ratchet
CYCLES ?=
ROUNDS ?= 1000
JOURNAL ?= build/chaos
TESTS ?= tests
# Two test processes per core, since tests often wait for other processes. They take the files in conftest's order.
JOBS ?= $(shell cores=$$(nproc 2>/dev/null || echo 1); echo $$((cores < 4 ? 2 * cores : 8)))
SIDE_BY_SIDE = $(if $(filter-out 1,$(JOBS)),-n $(JOBS) --dist loadfile --no-loadscope-reorder)
CODE := shared services tests scripts benchmarks
# Tests start hundreds of processes, each of which would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: install ## Start everything and show it live; CYCLES=6 ends after six judged checkpoints
	@$(RATCHET) run $(if $(CYCLES),--cycles $(CYCLES))

.PHONY: stop
stop: ## Stop what `make run` started, from another terminal
	@[ ! -x $(RATCHET) ] || $(RATCHET) stop

.PHONY: reset
reset: ## Delete run/ (asks first): checkpoints, ledger, queue and all
	@[ ! -x $(RATCHET) ] || $(RATCHET) reset

.PHONY: install
install: ## Create .venv with what `make run` needs; instant if it exists
	@scripts/install run

.PHONY: install-dev
install-dev: ## Create .venv with what tests and checks need as well
	@scripts/install dev

.PHONY: test
test: install-dev ## All tests that need no container; TESTS=tests/unit/cli for some
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -m "not containers and not pretrained and not vllm" $(SIDE_BY_SIDE) $(TESTS)

.PHONY: test-pretrained
test-pretrained: install-dev ## The loop on a real pretrained model with rows of its own: a few minutes
	@HF_HUB_OFFLINE=1 $(BIN)/pytest -m pretrained tests/pretrained

.PHONY: test-vllm
test-vllm: install-dev ## The contract of serving with a real vLLM: RATCHET_TEST_VLLM=FOLDER/bin/vllm
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -m vllm tests/vllm

.PHONY: test-containers
test-containers: install-dev ## Tests with real containers, where there is a Docker engine; DRILLS=1 kills and stops some too
	@HF_HUB_OFFLINE=1 $(BIN)/pytest -m "containers$(if $(DRILLS),, and not drill)" tests/containers

.PHONY: chaos
chaos: install-dev ## Faults by the thousand against a running loop: ROUNDS=1000; goes on where JOURNAL=build/chaos ended
	@$(BIN)/python -m benchmarks.chaos.run --rounds $(ROUNDS) --journal $(JOURNAL)

.PHONY: check
check: format-check lint types imports test ## All that CI runs without containers

.PHONY: format
format: install-dev ## Format the code
	@$(BIN)/ruff format $(CODE)

.PHONY: format-check
format-check: install-dev ## Fail if `make format` would change something
	@$(BIN)/ruff format --check $(CODE)

.PHONY: lint
lint: install-dev ## Lint the code
	@$(BIN)/ruff check $(CODE)

.PHONY: types
types: install-dev ## Check the types, strictly
	@$(BIN)/mypy
	@$(BIN)/mypy -p benchmarks

.PHONY: imports
imports: install-dev ## Check the rules for imports
	@$(BIN)/lint-imports --no-logo

.PHONY: docs
docs: install-dev ## Update the generated parts of the docs
	@$(BIN)/python scripts/embed.py

.PHONY: dashboards
dashboards: install-dev ## Update Grafana's dashboards from scripts/dashboards
	@$(BIN)/python -m scripts.dashboards

.PHONY: screenshots
screenshots: install-dev ## Take the pictures of the docs from a real run; needs Chromium and five minutes
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m scripts.screenshots

.PHONY: compose
compose: install-dev ## Update the workers' services of the compose files from the systems' declarations
	@$(BIN)/python -m scripts.compose

.PHONY: pins
pins: install-dev ## Write constraints.txt from what is installed
	@$(BIN)/python scripts/pins.py
