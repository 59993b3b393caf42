# `make demo` and `make test` do all the set-up on a fresh machine. PYTHON needs 3.11 or later.
# TORCH_INDEX: where pip takes torch from, for the CPU build on Linux (see README); empty for pip's default.
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
OUT ?= runs/demo
SITE ?= site
BIN := $(VENV)/bin

.PHONY: demo test test-foreign test-old-runtime fuzz check docs install install-foreign install-old-runtime install-fuzz clean
FOREIGN ?= .venv-foreign
OLD_RUNTIME ?= .venv-old-runtime
FUZZ ?= .venv-fuzz
SECONDS ?= 3600
FUZZ_OUT ?= runs/fuzz

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt packages/skystill-web/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install -q -c constraints.txt -e packages/skystill-web -e ".[train,pretrained,html,dev,docs]"
	touch $@

demo: install
	$(BIN)/skystill demo --out $(OUT)

# Two test processes of one thread each: two threads in one would wait for each other most of the time. One that dies
# ends the tests: where it is started again, pytest-xdist may wait for its tests for ever.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

install-foreign: $(FOREIGN)/.installed

test-foreign: install-foreign
	OMP_NUM_THREADS=1 $(FOREIGN)/bin/python -m pytest tests/foreign

# Borrows the packages of the main environment, and adds those that would break it (tests/foreign/README.md).
$(FOREIGN)/.installed: $(VENV)/.installed tests/foreign/requirements.txt
	$(PYTHON) -m venv $(FOREIGN)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > "$$($(FOREIGN)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth"
	$(FOREIGN)/bin/pip install -q --no-deps -r tests/foreign/requirements.txt
	touch $@

install-old-runtime: $(OLD_RUNTIME)/.installed

# The files are written by the main environment, and run by the old one (tests/old_runtime/README.md).
test-old-runtime: install install-old-runtime
	OMP_NUM_THREADS=1 OLD_RUNTIME_PYTHON=$(abspath $(OLD_RUNTIME))/bin/python $(BIN)/python -m pytest tests/old_runtime

$(OLD_RUNTIME)/.installed: tests/old_runtime/requirements.txt
	$(PYTHON) -m venv $(OLD_RUNTIME)
	$(OLD_RUNTIME)/bin/pip install -q --no-deps -r tests/old_runtime/requirements.txt
	touch $@

install-fuzz: $(FUZZ)/.installed

# Damaged inputs for SECONDS, each that fails in FUZZ_OUT (tests/fuzz/README.md).
fuzz: install-fuzz
	OMP_NUM_THREADS=1 $(FUZZ)/bin/python -m tests.fuzz.hours --seconds $(SECONDS) --out $(FUZZ_OUT)

# Borrows the packages of the main environment. Without a wheel of atheris, inputs are drawn and not guided.
$(FUZZ)/.installed: $(VENV)/.installed tests/fuzz/requirements.txt
	$(PYTHON) -m venv $(FUZZ)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > "$$($(FUZZ)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth"
	$(FUZZ)/bin/pip install -q --no-deps -r tests/fuzz/requirements.txt || echo "no atheris here: new seeds are drawn"
	touch $@

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Strict: a broken link, a missing anchor or a page outside the navigation fails. The variable hides a banner.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir $(SITE)

clean:
	rm -rf $(VENV) $(FOREIGN) $(OLD_RUNTIME) $(FUZZ) $(SITE) runs
