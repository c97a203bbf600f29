# make demo · make test · make check · make test-slow · make test-newest · make parity · make sweep · make contract · make axe · make docs · make lock · make format · make clean
# Each works on a fresh checkout with Python 3.11+: what it needs goes into .venv first.

PYTHON ?= python3
VENV   := .venv
NEWEST := .venv-newest
BIN    := $(VENV)/bin
# Whether pip takes torch's CPU or its CUDA build is a matter of pip's own configuration.
PIP    := -m pip install -qq --disable-pip-version-check --root-user-action ignore
PYTEST  = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: setup demo test test-slow test-newest score parity sweep contract axe docs check lock format clean

setup: $(VENV)/installed-dev

demo: $(VENV)/installed
	@$(BIN)/python tools/demo.py

test: $(VENV)/installed-dev
	$(PYTEST) -m 'not slow'

test-slow: $(VENV)/installed-dev
	$(PYTEST) -m slow

# The newest release of every package but torch; their warnings, too, are errors.
test-newest: BIN := $(NEWEST)/bin
test-newest: $(NEWEST)/bin/python
	$(BIN)/python $(PIP) --upgrade --upgrade-strategy eager -e '.[dev]' "$$(grep '^torch==' constraints.txt)"
	$(PYTEST) -m 'not slow' -W error

score: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.score $(ARGS)

# Real Whisper models against transformers: make parity PARTS=DIR DATA=MANIFEST, and more of benchmarks/parity.py as ARGS.
parity: $(VENV)/installed-dev
	$(BIN)/python benchmarks/parity.py $(PARTS) $(DATA) $(ARGS)

# Tiny models of every LLM family of transformers in every use; writes the table of docs/llms.md.
sweep: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sweep.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/encoders.py

# The server against its own description, by schemathesis in a virtual environment of its own; its options as ARGS.
contract: $(VENV)/installed-dev build/schemathesis/bin/schemathesis
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/server_contract.py build/schemathesis/bin/schemathesis $(ARGS)

build/schemathesis/bin/schemathesis:
	$(PYTHON) -m venv build/schemathesis
	build/schemathesis/bin/python $(PIP) schemathesis==4.32.5

# The server's page by the rules of axe-core, which npm fetches, in Debian's chromium.
axe: $(VENV)/installed-dev build/axe/package/axe.min.js
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/server_axe.py build/axe/package/axe.min.js

build/axe/package/axe.min.js:
	mkdir -p build/axe
	cd build/axe && npm pack --silent axe-core@4.10.3 && tar -xzmf axe-core-4.10.3.tgz

# The documentation as a site of static files in build/site, by Zensical in a virtual environment of its own.
docs: $(VENV)/installed build/docs/bin/zensical
	rm -rf build/pages build/site
	mkdir -p build/pages
	git ls-files --cached --others --exclude-standard '*.md' docs | xargs cp --parents -t build/pages
	$(BIN)/python -m typer kikitori.cli utils docs --name kikitori --output build/pages/docs/command_line.md
	build/docs/bin/zensical build --strict

build/docs/bin/zensical:
	$(PYTHON) -m venv build/docs
	build/docs/bin/python $(PIP) zensical==0.0.73 mkdocstrings-python==2.0.11 "$$(grep '^ruff==' constraints.txt)"

check: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src

# Every package that `demo` and `test` install, at its newest; torch alone stays (tool.uv in pyproject.toml). torch's CPU
# build needs no CUDA packages, and its CUDA build names theirs exactly.
lock: build/uv/bin/uv
	build/uv/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --fork-strategy fewest \
	    --upgrade --no-header --no-annotate -q -o build/lock.txt
	( echo '# What `make demo` and `make test` install, on any Python from 3.11 on; made by `make lock`.'; \
	    grep -Ev '^(nvidia-|cuda-|triton=)' build/lock.txt ) > constraints.txt

build/uv/bin/uv:
	$(PYTHON) -m venv build/uv
	build/uv/bin/python $(PIP) uv==0.13.9

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python $(NEWEST)/bin/python:
	$(PYTHON) -m venv $(@:/bin/python=)

# With the test extras everything is there that the demonstration needs. Of the packages' 11,000 modules it imports a tenth:
# these alone are compiled, when they are.
$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'setting up $(VENV): minutes where nothing is cached, most of them for torch'
	@$(BIN)/python tools/install.py --no-compile -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'setting up $(VENV): minutes where nothing is cached, most of them for torch'
	@$(BIN)/python tools/install.py -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/installed
