# The commands of the project. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# The versions of Python that the project supports.
PYTHONS := 3.11 3.12 3.13
# The interpreter of version $(1), on PATH or pyenv's; empty where there is none. It must start: pyenv
# puts names on PATH of versions that are not selected.
python = $(shell for one in python$(1) $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$(1).*/bin/python; do \
	if "$$one" -c "" 2>/dev/null; then echo "$$one"; break; fi; done)
# The first of them, unless another is named.
PYTHON ?= $(firstword $(foreach version,$(PYTHONS),$(call python,$(version))))
VENV := .venv
SCANNERS := .venv-static
RUN := $(VENV)/bin/python
LAB ?= demo

.PHONY: help demo down env labs check test test-pythons screenshots bench lock policy record-calls test-policy venv scanners hooks reference tables

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

venv: $(VENV)/.installed ## Make the environment from the hashed lock

# A Python that is named and is another version than the environment's makes the environment again.
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(PYTHON) --version 2>/dev/null),$(shell $(RUN) --version 2>/dev/null))
$(VENV)/.installed: other-python
.PHONY: other-python
endif
endif

$(VENV)/.installed: requirements.lock bootstrap.lock
	@python="$(PYTHON)"; "$${python:-none}" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
		|| { echo "No Python 3.11, 3.12 or 3.13 starts as $${python:-python3.11, python3.12 or python3.13}; install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@[ "$$("$(PYTHON)" --version)" = "$$($(RUN) --version 2>/dev/null)" ] || rm -rf $(VENV)
	@echo "==> Environment: $(VENV) from requirements.lock, $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV) || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r bootstrap.lock
	@# Byte code now: Prefect's import takes twice as long if Python may not write it later.
	@VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip sync --quiet --require-hashes --compile-bytecode requirements.lock
	@touch $@

scanners: $(SCANNERS)/.installed ## Make the scanners' environment from its hashed lock

$(SCANNERS)/.installed: tests/static/requirements.lock | $(VENV)/.installed
	@echo "==> Environment: $(SCANNERS) from tests/static/requirements.lock"
	@$(RUN) -m venv --clear --without-pip $(SCANNERS)
	@VIRTUAL_ENV=$(SCANNERS) $(VENV)/bin/uv pip sync --quiet --require-hashes tests/static/requirements.lock
	@touch $@

hooks: venv scanners ## Have git run the hooks of .pre-commit-config.yaml before each commit
	@$(SCANNERS)/bin/pre-commit install

demo: venv ## Set everything up and bring the lab up on the local cloud
	@$(RUN) demo.py --lab $(LAB)

down: venv ## Destroy every local lab, then stop what set-up started
	@$(RUN) -m workstation down

env: venv ## Print what an application needs to call LAB, for eval
	@LAB=$(LAB) $(RUN) -m workstation env

labs: venv ## List the local labs
	@$(RUN) -m workstation labs

check: venv scanners ## Lint, types, layering, scans, tests of units and flows
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy lab adapters tasks flows runner workstation deployments bench demo.py examples/python/ask.py examples/terraform/certificate.py
	@$(VENV)/bin/lint-imports
	@$(RUN) -m pytest -q tests/static tests/unit tests/flows

test: check ## Everything: check, Terraform, the image, its clients, and labs on the local cloud to their ends
	@$(RUN) -m pytest tests/terraform tests/localcloud tests/image tests/clients tests/ui tests/ends

test-pythons: venv ## Run the unit tests on each supported version of Python that the machine has
	@$(MAKE) --no-print-directory --keep-going $(PYTHONS:%=test-python-%)

test-python-%: venv
	@python="$(call python,$*)"; \
	if [ -z "$$python" ]; then echo "==> Python $*: not on this machine, not tested"; exit 0; fi; \
	$(MAKE) --no-print-directory .venv-pythons/$*/.installed; \
	echo "==> Python $*: $$(.venv-pythons/$*/bin/python --version)"; \
	.venv-pythons/$*/bin/python -m pytest -q tests/unit tests/flows

.venv-pythons/%/.installed: requirements.lock
	@echo "==> Environment: $(@D) from requirements.lock"
	@$(call python,$*) -m venv --clear --without-pip $(@D)
	@VIRTUAL_ENV=$(@D) $(VENV)/bin/uv pip sync --quiet --require-hashes requirements.lock
	@touch $@

test-policy: venv ## Run every flow under the deployer's policy, and compare each call with the recording
	@$(RUN) -m pytest tests/policy

record-calls: venv ## Record what the flows call, on a local cloud with no lab in it
	@RECORD=1 $(RUN) -m pytest tests/policy

policy: venv ## Make the deployer's policy from the recording and config/deployer-rights.yaml
	@$(RUN) -m workstation policy

reference: venv ## Write docs/reference.md from the code
	@$(RUN) -m deployments.reference

tables: venv ## Write the tables of inputs and outputs into terraform/README.md
	@$(RUN) -m workstation.terraform_tables

screenshots: venv ## Take the pictures of docs/run.md again, from the browser tests
	@SCREENSHOTS=$(CURDIR)/docs/images $(RUN) -m pytest -q tests/ui

bench: venv ## Measure everything against the reference: under 40 minutes, nothing else may run
	@$(RUN) -m bench

# bootstrap.lock pins uv, which makes the locks, for the environment that runs the project. Every lock
# holds for each version of Python from this one on, with markers where they differ.
LOCK := $(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version $(firstword $(PYTHONS)) --custom-compile-command "make lock"
lock: ## Recompile the hashed locks
	@test -x $(VENV)/bin/uv || { $(PYTHON) -m venv $(VENV) && $(VENV)/bin/pip install --quiet --require-hashes -r bootstrap.lock; }
	$(LOCK) bootstrap.in -o bootstrap.lock
	$(LOCK) --group dev pyproject.toml -o requirements.lock
	$(LOCK) --excludes docker/gateway/excludes.txt docker/gateway/requirements.in -o docker/gateway/requirements.lock
	$(LOCK) bench/seed/requirements.in -o bench/seed/requirements.lock
	$(LOCK) docker/localcloud/requirements.in -o docker/localcloud/requirements.lock
	$(LOCK) tests/static/requirements.in -o tests/static/requirements.lock
