# Every command a person types. `make help` lists them.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
# Threads that wait their turn asleep: a server, a job and tests share the cores.
export OMP_WAIT_POLICY ?= passive
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

ARCHIVE ?= model_store/demo.mar
PICTURES ?= 200
DEVICE ?= cpu
ROUNDS ?= 5
MASKS ?= 1000
WORKS ?=
WEIGHTS := jobs/demo/weights.safetensors
# What decides the bytes of an archive, besides handlers/.
BUILDING := $(wildcard archives/building/*.py) $(addprefix archives/,$(addsuffix .py,golden golden_process own_code))

.PHONY: help setup demo demo-weights demo-evaluate serve stop test test-full lint bench bench-serve bench-jobs clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.setup ## make .venv and install what Whybox needs

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make setup needs Python 3.11; '$(PYTHON)' is not there (PYTHON=... names another)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install $(notdir $(PYTHON))-venv" >&2; exit 2; }

$(VENV)/.setup: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV); torch is large, this takes some minutes the first time"
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.setup
	@$(PIP) --editable '.[demo,test,transformers]'
	touch $@

# The server of tests, in front of what is there: it wants older versions of some packages.
$(VENV)/.mlflow: tests/mlflow_server.txt | $(VENV)/.test
	@rm -rf $(VENV)/mlflow
	$(RUN) -m pip --disable-pip-version-check install --quiet --no-deps --no-compile \
	    --target $(VENV)/mlflow --requirement tests/mlflow_server.txt
	touch $@

model_store/demo.mar: $(VENV)/.setup $(WEIGHTS) $(shell find handlers -name '*.py') $(BUILDING)
	@$(RUN) -m archives build --detector fasterrcnn_regnet_small_fpn --weights $(WEIGHTS) \
	    --name demo --version 1.0 --export-path model_store --force

demo: model_store/demo.mar ## see it work: an endpoint and a bulk job explain 200 scenes
	@$(RUN) -m jobs.demo --pictures $(PICTURES)

demo-weights: $(VENV)/.setup ## train the demo's detector anew (up to an hour on two cores)
	@$(RUN) -m jobs.demo.train --output $(WEIGHTS)

demo-evaluate: $(VENV)/.setup ## print the demo detector's AP50 on held-out scenes
	@$(RUN) -m jobs.demo.evaluate --weights $(WEIGHTS)

serve: $(VENV)/.setup $(filter model_store/demo.mar,$(ARCHIVE)) ## start TorchServe with ARCHIVE (the demo's by default) on 127.0.0.1
	@$(RUN) -m archives serve --archive $(ARCHIVE)

stop: $(VENV)/.setup ## stop what `make serve` started
	@$(RUN) -m archives stop

lint: $(VENV)/.test ## ruff and mypy
	@$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Two at once, a file's tests in one process, that of the README first. Threads that wait
# must not keep the other's from a core. A process that crashes ends the run, which names its test:
# with another in its place pytest-xdist 3.8 would wait for ever (its issue 1378).
TEST := OMP_WAIT_POLICY=passive $(RUN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: lint $(VENV)/.mlflow model_store/demo.mar ## what CI runs: lint, types, tests
	@$(TEST) -m 'not full'

test-full: lint $(VENV)/.mlflow model_store/demo.mar ## the long tests as well
	@$(RUN) -m pytest

$(VENV)/.bench: $(VENV)/.setup
	@$(PIP) --editable '.[demo,bench,test,transformers]'
	touch $@

bench: $(VENV)/.bench ## every claim about speed beside the peers: WORKS="ablation drise", ROUNDS, MASKS, DEVICE=cuda
	@$(RUN) -m tests.benchmarks $(WORKS) --rounds $(ROUNDS) --device $(DEVICE) --masks $(MASKS)

bench-serve: $(VENV)/.bench ## what the server adds to calls in one process: latency, throughput
	@$(RUN) -m tests.benchmarks serving --rounds $(ROUNDS)

bench-jobs: $(VENV)/.bench ## what a job adds to its detector: of its throughput behind a slow store; memory
	@$(RUN) -m tests.benchmarks jobs --rounds $(ROUNDS) --device $(DEVICE)

clean: ## remove what the commands made, .venv too
	@if [ -x $(RUN) ]; then $(RUN) -m archives stop || true; fi
	rm -rf $(VENV) model_store demo-output .serve build *.egg-info .mypy_cache .ruff_cache .pytest_cache
