# `make demo` and `make test` do all the set-up on a fresh machine. PYTHON needs 3.11 or later.
# TORCH_INDEX: where pip takes torch from, for the CPU build on Linux (see README); empty for pip's default.
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
OUT ?= runs/demo
BIN := $(VENV)/bin

.PHONY: demo test check install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install -q -c constraints.txt -e ".[train,dev]"
	touch $@

demo: install
	$(BIN)/skystill demo --out $(OUT)

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) runs
