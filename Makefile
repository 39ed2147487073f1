# edgenext_tvm: `make demo` compiles, runs and verifies; `make test` tests. Both install into .venv first.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
DEMO   := out/demo
IMAGE  := examples/ship.ppm

# The kernels' threads come from the tests themselves; a thread pool per library only fights over the cores.
export OMP_NUM_THREADS ?= 1
# One process a core, a file's tests in one of them: they share its builds. More would want too much memory.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile

.PHONY: help install demo test test-slow lint clean

help:
	@echo "make demo       compile EdgeNeXt-XXS for this machine, run it on an image, verify it"
	@echo "make test       run the tests (without the slow ones)"
	@echo "make test-slow  run every test"
	@echo "make lint       ruff and mypy"
	@echo "make clean      remove build outputs and caches (keeps .venv)"

install: $(STAMP)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: '$(PYTHON)' not found; install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 10) else "error: $(PYTHON) is Python %d.%d, edgenext_tvm needs 3.10 or newer; name another: make PYTHON=/path/to/python3" % v[:2])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot create a virtual environment; on Debian: apt install python3-venv" >&2; exit 2; }
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(VENV)/bin/edgenext-tvm compile edgenext_xx_small --board host --out $(DEMO)
	$(VENV)/bin/edgenext-tvm run $(DEMO) $(IMAGE)
	$(VENV)/bin/edgenext-tvm verify $(DEMO) --limit 8
	$(VENV)/bin/edgenext-tvm bench $(DEMO)

test: $(STAMP)
	$(PY) -m pytest $(PARALLEL)

test-slow: $(STAMP)
	$(PY) -m pytest -m "" $(PARALLEL)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
