# Every target sets itself up: a clone, Python 3.11+ and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest --quiet --dist loadfile
# Test processes at a time: on two cores five, as half of the tests wait.
WORKERS ?= 4
# What has been installed: Lexora alone, which is all that the demo needs, and the development tools. Python compiles what it
# imports, so pip need not compile all of them.
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
# gen/ is made by an old generator in an environment of its own, so that clients may have protobuf 5, 6 or 7: its code is for
# 5.26.1, while that of later ones refuses all but two major versions. Its wheels end at Python 3.12.
GEN := .venv-gen
GEN_STAMP := $(GEN)/.stamp
# What the benchmark compares with; it stays out of the other environments.
PEERS := .venv-bench

# Where containers set this, each start would compile all that is imported.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-long test-real fuzz soak lint gen bench bench-docs bench-classify lock audit image clean

help: ## Show the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(RUN): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Lexora needs Python 3.11 or newer; name one: make PYTHON=python3.12") if sys.version_info < (3, 11) else 0'
	@echo "1/2 making $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "2/2 installing Lexora and what it runs on ..."
	@$(PIP) --no-compile --editable .
	@touch $@

$(DEV): $(RUN)
	@echo "installing the development tools ..."
	@$(PIP) --upgrade 'pip>=25.1'
	@$(PIP) --no-compile --group dev
	@touch $@

setup: $(DEV) ## Make .venv with Lexora and the development tools in it.

demo: $(RUN) ## Start a simulated engine and the gateway; print the lines to try.
	@$(BIN)/lexora demo

# Those that wait most come first, so that there is work left for all to the end. A failure of the first part does not keep the
# second from running.
test: $(DEV) ## Run all tests, as CI does.
	@failed=0; \
	$(PYTEST) -n $(WORKERS) --no-loadscope-reorder -m "not serial" tests/chaos tests/e2e tests/contract tests/fuzz tests/unit || failed=1; \
	$(PYTEST) -m serial tests/chaos tests/e2e tests/fuzz || failed=1; \
	exit $$failed

test-fast: $(DEV) ## Run the unit and contract tests.
	@$(PYTEST) -n $(WORKERS) tests/unit tests/contract

test-long: $(DEV) ## Run the property tests with many random examples.
	@$(PYTEST) -n $(WORKERS) --hypothesis-profile long --timeout 1800 -m hypothesis tests/unit

test-real: $(DEV) ## Run the end-to-end tests against a real engine: make test-real ENGINE_URL=http://host:8000
	@test -n "$(ENGINE_URL)" || { echo "usage: make test-real ENGINE_URL=http://host:8000 [ENGINE_MODEL=name]"; exit 2; }
	@ENGINE_URL="$(ENGINE_URL)" ENGINE_MODEL="$(ENGINE_MODEL)" $(PYTEST) -m real tests/e2e

# 25,000 requests, messages and connections, and as many inputs for each reader of bytes; the seeds are new in each run.
fuzz: $(DEV) ## Send made-up requests, messages and bytes to a gateway and to all that reads them, many of them.
	@$(PYTEST) --hypothesis-profile fuzz --timeout 3600 tests/fuzz

soak: $(DEV) ## A minute of random faults at half load: nothing may leak.
	@$(PYTEST) -m soak tests/chaos

lint: $(DEV) ## Lint, types, import rules, dependencies, the contract.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry .
	@$(BIN)/buf lint

$(GEN_STAMP): | $(DEV)
	@$(PYTHON) -c 'import sys; sys.exit("make gen needs Python 3.11 or 3.12; name one: make gen PYTHON=python3.12") if sys.version_info >= (3, 13) else 0'
	@test -x $(GEN)/bin/python || $(PYTHON) -m venv --without-pip $(GEN)
	@$(BIN)/python -m pip --python $(GEN)/bin/python install --quiet --disable-pip-version-check 'grpcio-tools==1.64.3' 'setuptools<81'
	@touch $(GEN_STAMP)

# The folder in which gen/ is made.
GEN_OUT := .

gen: $(DEV) $(GEN_STAMP) ## Generate gen/ from proto/.
	@$(BIN)/buf generate --output $(GEN_OUT)
	@cd $(GEN_OUT)/gen/lexora && touch v1/py.typed v1/__init__.py  # lexora itself is a namespace: the client is another part

bench: $(DEV) $(PEERS)/.stamp ## Measure CPU, latency, memory and start beside nginx, vllm-router and a bare relay.
	@$(BIN)/python -m tests.bench

bench-docs: $(DEV) $(PEERS)/.stamp ## The same, longer; its tables and plot go into docs/ (FROM=results.json: those of a saved run).
	@$(BIN)/python -m tests.bench --docs $(if $(FROM),--from $(FROM),--thorough)

# What makes and checks the lock file of an image.
LOCKER := .venv-lock
LOCK := deploy/requirements.lock

lock: $(DEV) $(LOCKER)/.stamp ## Write deploy/requirements.lock (all that an image installs, with hashes) and the licences of it.
	@$(LOCKER)/bin/uv --quiet pip compile pyproject.toml --extra otel --generate-hashes --universal --python-version 3.11 \
		--no-header --no-emit-index-url --upgrade --output-file $(LOCK)
	@echo hatchling | $(LOCKER)/bin/uv --quiet pip compile - --generate-hashes --universal --python-version 3.11 \
		--no-header --no-emit-index-url --no-annotate --upgrade --output-file deploy/docker/build.lock
	@$(PIP) --no-compile --no-deps --require-hashes --requirement $(LOCK)
	@$(BIN)/python tools/licences.py

audit: $(LOCKER)/.stamp ## Look for known vulnerabilities in deploy/requirements.lock.
	@$(LOCKER)/bin/pip-audit --strict --no-deps --disable-pip --requirement $(LOCK)

# What builds the image: docker, podman or buildah. The last two keep a health check in Docker's format only.
ENGINE ?= docker
IMAGE ?= spirrow-lexora
# The base to build on, where it is not the Dockerfile's, and further options.
BASE ?=
BUILD_OPTIONS ?=

image: ## Build the image: make image [ENGINE=buildah] [IMAGE=name]
	@$(ENGINE) build $(if $(filter docker,$(ENGINE)),,--format docker) --file deploy/docker/Dockerfile --tag $(IMAGE) $(BUILD_OPTIONS) \
		$(if $(BASE),--build-arg BASE=$(BASE)) --build-arg SOURCE_COMMIT="$$(git describe --always --dirty --abbrev=12 --exclude='*')" .

$(LOCKER)/.stamp:
	@test -x $(LOCKER)/bin/python || $(PYTHON) -m venv $(LOCKER)
	@$(LOCKER)/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9' 'pip-audit>=2.9'
	@touch $@

$(PEERS)/.stamp:
	@echo "installing what Lexora is measured beside ..."
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check 'vllm-router==0.1.17' || echo "vllm-router is not to be had here: measuring without it"
	@touch $@

bench-classify: $(DEV) ## Measure how well and how fast each classifier sorts labelled tasks.
	@$(BIN)/python -m tests.bench.classify

clean: ## Remove what setup made.
	@rm -rf $(VENV) $(GEN) $(PEERS) $(LOCKER)
