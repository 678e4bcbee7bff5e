# Two commands matter: `make demo` and `make test`. All they need is Python 3.11 or later, git and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LANGCHAIN := $(VENV)/langchain
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
JOBS   ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint types walls tests bench mutants scoreboard gateways soak stack reference format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/run.stamp ## see it work: 120 prompts through six keys of an emulated Gemini, under a minute
	@$(BIN)/headgate demo

test: lint types walls tests ## everything that CI runs

lint: $(VENV)/dev.stamp ## style and banned calls
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp ## mypy --strict over src and bench
	$(BIN)/mypy

walls: $(VENV)/dev.stamp ## the layers of docs/architecture.md, checked by import-linter
	$(BIN)/lint-imports

tests: $(VENV)/dev.stamp $(VENV)/system.stamp $(LANGCHAIN)/stamp ## pytest alone
	$(BIN)/pytest -q -n $(JOBS)

bench: $(VENV)/dev.stamp ## the micro benchmarks and the ledger at scale; writes bench/results
	-$(BIN)/python -m bench.install
	$(BIN)/python -m bench.micro
	$(BIN)/python -m bench.scale

mutants: $(VENV)/dev.stamp ## break the ledger on purpose, one fault at a time: every fault must be caught
	$(BIN)/python -m tests.mutants.run

scoreboard: $(VENV)/dev.stamp ## quotas used and refusals drawn, against other routers; takes 35 minutes
	-$(BIN)/python -m bench.install
	$(BIN)/python -m bench.quota

gateways: $(VENV)/dev.stamp ## the gateway beside nginx, TensorZero, Portkey and LiteLLM; ten minutes
	-$(BIN)/python -m bench.rivals.gateway.install
	$(BIN)/python -m bench.rivals.gateway

soak: $(VENV)/dev.stamp ## ten minutes of a gateway under load and faults: fails if anything grows
	$(BIN)/python -m bench.soak --minutes 10

stack: $(VENV)/dev.stamp $(VENV)/system.stamp ## three content services, a Valkey, nginx and Prometheus on loopback
	$(BIN)/python -m tools.stack

reference: $(VENV)/dev.stamp ## write the generated pages of docs/reference anew
	$(BIN)/python -m tools.reference
	$(BIN)/python -m headgate.telemetry.metrics.reference > docs/reference/metrics.md
	$(BIN)/python -m headgate.gateway.manage.reference > docs/reference/management-api.md

format: $(VENV)/dev.stamp ## write the code as `make lint` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/dev.stamp ## resolve requirements/*.in anew, with hashes
	$(PIP) uv
	PATH="$(CURDIR)/$(BIN):$$PATH" requirements/lock.sh

clean: ## remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist

$(LANGCHAIN)/stamp: requirements/langchain.txt | $(VENV)/pip.stamp
	@$(PYTHON) -m venv $(LANGCHAIN)
	@$(LANGCHAIN)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/langchain.txt
	@touch $@

$(VENV)/system.stamp: requirements/system.sh | $(VENV)/pip.stamp
	@requirements/system.sh
	@touch $@

$(VENV)/pip.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Headgate needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.11"; exit 1; }
	@echo "Making $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(VENV)/pip.stamp
	@echo "Installing what the demo needs …"
	@$(PIP) --require-hashes -r requirements/run.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(VENV)/pip.stamp
	@echo "Installing what the tests need …"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@
