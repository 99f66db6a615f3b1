# Needs Python 3.11 or newer (with venv) and make; everything else goes into environments of the
# project's own: .venv-demo (core and report only), .venv (everything), and for older versions of
# TensorFlow .venv-tensorflow-*.

PYTHON ?= python3
DEMO := .venv-demo
DEV := .venv
BIN := $(DEV)/bin
WORKERS ?= 2
OLDER := .venv-tensorflow-2.15 .venv-tensorflow-2.18

.DEFAULT_GOAL := help
.PHONY: help demo test test-tensorflow bench docs lint constraints clean

help:  ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(DEMO)/.stamp  ## Record a real model on a real series; needs no deep-learning framework.
	$(DEMO)/bin/everystate demo --output demo_output

test: $(DEV)/.stamp  ## Run all tests.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS)

test-tensorflow: $(OLDER:=/.stamp)  ## Run what concerns TensorFlow on 2.15 and 2.18 (Python 3.11).
	for older in $(OLDER); do OMP_NUM_THREADS=1 $$older/bin/pytest -n $(WORKERS) \
		tests/frameworks/tensorflow tests/recording tests/storage || exit 1; done

bench: $(DEV)/.stamp  ## Print how fast recording is, as ratios to the plain forward pass.
	$(BIN)/python -m benchmarks

docs: $(DEV)/.stamp  ## Build the documentation into site/; a broken link is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: $(DEV)/.stamp  ## Check style, types and import directions.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

constraints: $(DEV)/.stamp  ## Write the versions installed in .venv to constraints.txt.
	@sed -n '/^#/p' constraints.txt > constraints.new
	@$(BIN)/pip freeze --all | grep -v -E '^(#|-e|pip=)' | sed -E 's/(==[^+]+)\+.*/\1/' \
		| LC_ALL=C sort -f >> constraints.new
	@mv constraints.new constraints.txt

clean:  ## Remove the environments and what the other commands wrote.
	rm -rf $(DEMO) $(DEV) $(OLDER) demo_output site

# Their own dependencies, NumPy 1 among them, are not the ones of constraints.txt.
.venv-tensorflow-%/.stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
		"tensorflow==$*.*" --editable . hypothesis pytest pytest-xdist
	@touch $@

# The stamps are as old as the last successful installation: a second run re-uses it, and a
# change of what is needed installs again.
$(DEMO)/.stamp: EXTRAS := report
$(DEV)/.stamp: EXTRAS := dev
$(DEMO)/.stamp $(DEV)/.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' || { \
		echo "everystate needs Python 3.11 or newer with venv; '$(PYTHON)' is" \
		"$$($(PYTHON) --version 2>&1). Say which to use: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing into $(@D), which takes a minute or two ..."
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@
