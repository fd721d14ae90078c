# Needs only Python 3.11, pip, git and make. `make demo` and `make test` set up .venv themselves.

PYTHON ?= $(shell command -v python3.11 || echo python3)
TORCH := torch==2.13.0
BIN := .venv/bin
# One test process per core; the tests of a file stay together, because they share what is costly to make.
PARALLEL := --numprocesses=auto --dist=loadfile
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The stamp's name holds the digest of what decides the installation: the same inputs install nothing twice, whatever
# the files' dates, and other inputs install anew.
KEY := $(shell cat requirements.lock requirements-comparators.lock pyproject.toml | $(PYTHON) -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])')
STAMP := .venv/.installed-$(KEY)-$(TORCH)

.PHONY: install demo test check bench-attacks bench-data bench-memorization bench-recorder bench-zk lock format clean distclean
.DEFAULT_GOAL := check

install: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; give it as make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	rm -f .venv/.installed-*
	$(PIP) install --quiet $(TORCH)
	@# the lock is complete; a resolver would look at newer versions, which have no hash in it, and give up
	$(PIP) install --quiet --no-deps --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --require-hashes -r requirements-comparators.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP)
	$(BIN)/pot demo

# Style, types, import direction, unit tests and vectors: the minute before every commit.
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q $(PARALLEL) tests/unit tests/vectors

# Everything, in about twenty minutes on two cores.
test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q $(PARALLEL) tests

# What things cost: a table, benchmarks/out/NAME.json, and exit code 0 only if every goal is met.
bench-data: $(STAMP)
	$(BIN)/python benchmarks/data.py

bench-attacks: $(STAMP)
	$(BIN)/python benchmarks/attacks.py

bench-memorization: $(STAMP)
	$(BIN)/python benchmarks/memorization.py

bench-recorder: $(STAMP)
	$(BIN)/python benchmarks/recorder.py

bench-zk: $(STAMP)
	$(BIN)/python benchmarks/step_proof.py $(if $(QUICK),--quick)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Hashes, and no registry's address: which registry is used is the machine's matter.
lock: $(STAMP)
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
		--output-file requirements.lock requirements.in
	@# torch and what its builds for accelerators bring are installed by themselves, see TORCH
	awk '/^[a-z0-9]/ {drop = /^(torch|triton)==/ || /^(nvidia|cuda)-/} !drop' requirements.lock > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf build dist demo demo-[0-9]* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -type d -name __pycache__ -print0 | xargs -0 rm -rf

distclean: clean
	rm -rf .venv
