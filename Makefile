# make demo: install, run the pipeline on handwritten digits, show the result.   make test: install, run the tests.
PYTHON ?= python3
BIN := .venv/bin
# Stages run as `python -m stages.NAME`, so that the environment's python must come first.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: setup demo test test-slow test-pipeline check format bench wheel clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	dvc repro
	vqlcmd report

test: setup
	pytest --numprocesses auto --dist loadfile -m "not slow"

test-slow: setup
	pytest

# What takes minutes and guards most: several processes, a run across edits, the wheel, the quality of samples, and DVC's
# repro, experiments and queue.
test-pipeline: setup
	pytest -m slow tests/runtime/test_launcher.py tests/runtime/artefacts tests/stages/test_parallel.py tests/training/test_stage.py
	pytest -m slow tests/stages/test_nothing_held_out.py tests/stages/test_vqgan.py
	pytest -m slow tests/runtime/test_edited_code.py tests/repository/test_wheel.py tests/stages/test_quality.py
	pytest -m slow tests/repository/test_dvc.py -k "nothing_to_do or does_not_compute or trains_nothing or queued_rows"

check: setup
	ruff format --check .
	ruff check .
	basedpyright --warnings
	pytest --numprocesses auto --dist loadfile -m "not slow"

format: setup
	ruff format .
	ruff check --fix .

# How fast it is, as ratios to what cannot be done without: docs/benchmarks.md.
bench: setup
	python -m benchmarks

wheel: setup
	python -m build --wheel

clean:
	rm -rf .venv build dist *.egg-info
