# `make demo` and `make test` do all the set-up themselves; as root on Debian or Ubuntu, system packages included.

BIN := .venv/bin
LAB := demo
LABS := 3
BESIDE = $(BIN)/pytest -n $(LABS) --dist loadfile
MIXED := bullseye,trixie,el9-like
RELIABILITY := tests/lab/test_reliability_*.py
EXAMPLES := exlb

# Compiled once, not by each of the processes that tests start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check test-all lint types unit cli node browser setup lab-setup lock clean

demo: setup lab-setup  ## The main job on the embedded lab, from nothing to green tables and back to nothing.
	@EXLB=$(BIN)/exlb tools/demo.sh $(LAB)

# One lab test of each kind of fault and promise: several labs beside each other; what has a bound in seconds afterwards,
# alone on the machine.
test: check cli node browser lab-setup  ## Every check and the tests, lab tests included.
	@tools/setup.sh labs
	$(BESIDE) tests/lab -m "not slow and not timing" --durations=10
	$(BIN)/pytest tests/lab -m "timing and not slow"

check: lint types unit  ## The fast part: under a minute.

# Every row of every fault table; resumes where it stopped. Several labs beside each other; afterwards, alone on the
# machine, what has a bound in seconds, and once more what has failed beside others. What fails then has failed.
test-all: EXAMPLES := thorough
test-all: check cli node browser lab-setup
	@tools/setup.sh labs
	-$(BESIDE) tests/lab -m "not timing" --resume
	-$(BESIDE) $(RELIABILITY) -m "not timing" --resume --releases $(MIXED)
	$(BIN)/pytest tests/lab --resume --table
	$(BIN)/pytest $(RELIABILITY) --resume --table --releases $(MIXED)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/shellcheck exlb_fab/node/*.sh exlb_fab/lab/*.sh exlb_fab/lab/el9/*.sh tools/*.sh .ci/run
	$(BIN)/shellcheck --shell=bash env.example.sh

types: setup
	$(BIN)/mypy

# More workers than cores: many tests wait for a process.
unit: setup
	$(BIN)/pytest -n 4 --hypothesis-profile $(EXAMPLES) tests/unit tests/golden --ignore tests/unit/node

cli: setup  ## Every command as it is typed, against nodes that are played.
	$(BIN)/pytest -n 4 tests/cli

node: setup  ## The programs that run on nodes, in a scratch root: every branch, every kill, every full disk.
	@tools/setup.sh node
	$(BIN)/pytest -n 4 tests/unit/node

browser: setup  ## The page of verify in a real browser.
	@tools/setup.sh browser
	$(BIN)/pytest -n auto tests/browser

setup:
	@tools/setup.sh dev

lab-setup: setup
	@tools/setup.sh lab

lock:  ## Pin the development install anew: hashes, no addresses.
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet \
	    --upgrade requirements-dev.in -o requirements-dev.lock

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
