# `make` lists what there is. Every target works on a fresh clone: each sets up `.venv` first if that is missing.
#
#   PYTHON=python3.13 make setup     with another Python (3.11 or newer)
#   make up ARGS="--port 9000"       with arguments for the command behind the target

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
READY_TO_DEPLOY := .venv-deploy/.ready
PACKAGES := libs/contracts libs/chassis libs/sdk services/auth services/metering services/billing services/notifier deploy/nats deploy/standalone
CODE := libs services deploy tests
# Processes with servers of their own, unless a NATS server is given: its streams are deleted before every test. Three on
# two cores, for each waits now and then; four on more. What measures how long a start takes comes after them, alone.
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
SIDE_BY_SIDE := $(if $(ARAGORA_TEST_NATS_URL),,-n $(if $(filter 1 2,$(CORES)),3,4) --dist loadfile --no-loadscope-reorder)

# Python keeps what it has compiled, also where the shell says not to: each of the many processes would compile it anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup up demo test test-long check check-deploy format bench verify lock api-docs prometheus-rule \
  compose-up compose-down compose-logs images test-compose restore-drill clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## Make .venv with the pinned requirements and this code; quick when nothing changed
	@echo "Ready. Next: make up"

up: $(READY)  ## Run the whole platform on this machine, until Ctrl-C
	@$(BIN)/aragora up $(ARGS)

demo: $(READY)  ## Show it working: sample organizations and live traffic
	@$(BIN)/aragora demo $(ARGS)

test: $(READY)  ## Run all tests, on real Postgres and NATS (embedded, or containers where Docker answers)
	@$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),\
	  $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not long and not compose and not alone" && \
	  $(BIN)/python -m pytest -m "alone and not long" tests/system tests/faults)

test-long: $(READY)  ## Run the long tests: a million events, a thousand lives at Stripe, a year of invoices, every crash
	@$(BIN)/python -m pytest -m long $(ARGS)

check: $(READY)  ## Check style, types, imports, house rules and committed documents; changes nothing
	@$(BIN)/python -m ruff check $(CODE)
	@$(BIN)/python -m ruff format --check $(CODE)
	@$(BIN)/python -m mypy $(CODE)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_requirements.py tests/contracts

check-deploy: $(READY_TO_DEPLOY)  ## Check what is deployed: manifests, Dockerfile, alert rules. Needs kubectl and promtool
	@sh deploy/check.sh

compose-up:  ## Run the whole platform in containers. Needs Docker alone; ARGS=--simulate-stripe, --observability
	@sh deploy/docker/up.sh $(ARGS)

compose-down:  ## Stop it; the data stays, in volumes (ARGS=--volumes deletes it)
	@docker compose --profile '*' down --remove-orphans $(ARGS)

compose-logs:  ## Follow its logs (ARGS=metering-worker for one)
	@docker compose logs --follow --tail 100 $(ARGS)

images:  ## Build every image (ARAGORA_VERSION=1.2.3 names them)
	@sh deploy/docker/images.sh $(ARGS)

test-compose: $(READY)  ## Run the system tests against containers, and kill each of them
	@$(BIN)/python -m pytest -m compose --timeout 3600 tests/compose tests/system $(ARGS)

restore-drill:  ## Back up the platform in containers, restore it beside, verify and compare
	@sh deploy/docker/restore-drill.sh $(ARGS)

format: $(READY)  ## Format the code and mend what can be mended
	@$(BIN)/python -m ruff check --fix-only $(CODE)
	@$(BIN)/python -m ruff format $(CODE)

bench: $(READY)  ## Measure, and write docs/benchmarks.md
	@$(BIN)/aragora bench --report-dir docs $(ARGS)

verify: $(READY)  ## Fold the log of the running platform again and compare it with the projections
	@$(BIN)/aragora verify $(ARGS)

lock: $(READY)  ## Pin the requirements anew, by version and hash
	@$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" $(ARGS) -o requirements/runtime.txt requirements/runtime.in
	@$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" $(ARGS) -c requirements/runtime.txt -o requirements/dev.txt requirements/dev.in
	@for image in auth billing build metering nats notifier; do \
	  $(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" $(ARGS) -c requirements/dev.txt \
	    -o requirements/images/$$image.txt requirements/images/$$image.in || exit 1; done
	@$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" $(ARGS) -o requirements/deploy.txt requirements/deploy.in

api-docs: $(READY)  ## Write docs/api and the JSON Schemas anew from the code
	@PYTHONPATH=tests $(BIN)/python -m contracts.export

prometheus-rule:  ## Write the PrometheusRule for Kubernetes anew from deploy/observability/rules
	@sh deploy/kubernetes/components/monitoring/rules.sh

clean:  ## Remove .venv and every cache; the data in .data stays
	@rm -rf .venv .venv-deploy .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find $(CODE) -type d -name __pycache__ -prune -exec rm -rf {} +

$(READY): requirements/dev.txt $(PACKAGES:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is not: try PYTHON=python3.13 make $(MAKECMDGOALS)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv || { \
	  echo "Python cannot make a virtual environment here; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing what the platform and its tests need into .venv (once; a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(PACKAGES:%=--editable ./%)
	@touch $@

$(READY_TO_DEPLOY): requirements/deploy.txt
	@echo "Installing what checks a deployment into .venv-deploy (once; a minute) ..."
	@$(PYTHON) -m venv .venv-deploy
	@.venv-deploy/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/deploy.txt
	@touch $@
