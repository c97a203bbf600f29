# make demo · make test · make check · make test-slow · make format · make clean
# Each works on a fresh checkout with Python 3.11+: what it needs goes into .venv first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# constraints.txt pins torch; whether pip takes its CPU or its CUDA build is a matter of pip's own configuration.
PIP    := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip install -qq -c constraints.txt
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: setup demo test test-slow score check format clean

setup: $(VENV)/installed-dev

demo: $(VENV)/installed
	@$(BIN)/python -m kikitori.demo

test: $(VENV)/installed-dev
	$(PYTEST) -m 'not slow'

test-slow: $(VENV)/installed-dev
	$(PYTEST) -m slow

score: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.score

check: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# With the test extras everything is there that the demonstration needs.
$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/installed
