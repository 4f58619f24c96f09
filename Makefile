# make train   sets everything up, once, and starts the Ant tutorial
# make test    the same set-up, then the tests
# make demo    a set-up without test tools, then a trained ant is evaluated and compared with its card
#
# Variables: VENV (where the virtual environment goes), OUT (where a run writes), ARGS (more flags for the tutorial),
#            DEMO (which policy of projects/gym_baselines/checkpoints),
#            JOBS (how many processes the tests are spread over),
#            PYTHON (an interpreter to use instead of the first one found).

VENV ?= .venv
OUT ?= experiment_output
ARGS ?=
DEMO ?= ant-modern
JOBS ?= 2
CANDIDATES := $(PYTHON) python3.11 python3.12 python3.13 python3 python

export PYTHONPATH := .

.PHONY: train demo test check lint test-learning test-browser test-faults tutorials format clean setup
.DEFAULT_GOAL := train

train: setup
	$(VENV)/bin/python allenact/main.py gym_mujoco_tutorial -b projects/tutorials -m 8 -o $(OUT) -s 0 -e $(ARGS)

test: setup
	$(VENV)/bin/python -m pytest -q -n $(JOBS) --dist worksteal

demo: $(VENV)/.base
	$(VENV)/bin/python -m scripts.shipped_checkpoints evaluate $(DEMO)

check: lint
	$(VENV)/bin/python -m pytest -q -n $(JOBS) --dist worksteal --durations=10

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python scripts/literate.py --check

test-learning: setup
	$(VENV)/bin/python -m pytest -q -m "learning or slow"

test-browser: setup
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[browser]"
	$(VENV)/bin/python -m pytest -q -rs -m browser

# Injects every fault that docs/reliability.md speaks of, prints what happened, and renews the table there.
test-faults: setup
	FAULT_TABLE=docs/reliability.md $(VENV)/bin/python -m pytest -q -m faults

tutorials: setup
	$(VENV)/bin/python scripts/literate.py

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The stamps are younger than the files that say what to install, so a second call goes straight to work.
setup: $(VENV)/.installed

$(VENV)/.installed: $(VENV)/.base
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[dev,box2d,minigrid]"
	@touch $@

$(VENV)/.base: pyproject.toml constraints.txt setup.py
	@set -e; \
	for python in $(CANDIDATES); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then \
	    echo "setting up $(VENV) with $$("$$python" --version) ($$(command -v "$$python"))"; \
	    "$$python" -m venv $(VENV); \
	    found=yes; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "No Python 3.11, 3.12 or 3.13 with the venv module was found." >&2; \
	  echo "  tried: $(CANDIDATES)" >&2; \
	  echo "  do:    install one (Debian, Ubuntu: apt install python3.11 python3.11-venv), or name it: make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi
	@echo "installing packages: several minutes, most of them for torch"
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
