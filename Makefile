# make setup   .venv from the lock; nothing if it is current
# make demo    the whole loop on this machine
# make test    what CI runs; what starts real services runs alone, the rest on two cores
# make check   format, lint, types, layers
# make fuzz    Schemathesis at the published document: in process on var/'s release, or ARGS="--http URL"
# make calibrate   studies of worlds with known answers; goes on where it was stopped
# make clean   caches and the environment; the state in var/ stays
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := setup
.NOTPARALLEL:
.PHONY: setup demo test check fuzz calibrate clean

BIN := .venv/bin

setup:
	@.ci/setup

demo: setup
	@$(BIN)/shelflife demo

test: setup
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not services"
	@$(BIN)/python -m pytest -m services

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

fuzz: setup
	@$(BIN)/python -m benchmarks.schemathesis_run $(or $(ARGS),--in-process var --requests 80000)

calibrate: setup
	@$(BIN)/python -m flows.studies.calibration.run $(ARGS)

clean:
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +
