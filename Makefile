# `make demo` and `make test` do all the set-up themselves; as root on Debian or Ubuntu, system packages included.

BIN := .venv/bin
LAB := demo
LABS := 3
LONGEST := $(patsubst %,tests/lab/test_%.py,uninstall reliability_changes)
MIXED := bullseye,trixie,el9-like

.PHONY: demo test check test-all lint types unit node setup lab-setup lock clean

demo: setup lab-setup  ## The main job on the embedded lab, from nothing to green tables and back to nothing.
	@EXLB=$(BIN)/exlb tools/demo.sh $(LAB)

# One lab test of each kind of fault and promise: the files beside each other, each in a lab of its own; what has a bound
# in seconds afterwards, alone on the machine.
test: check node lab-setup  ## Every check and the tests, lab tests included.
	@tools/setup.sh labs
	$(MAKE) -k -j $(LABS) --output-sync $(patsubst tests/lab/test_%.py,brief-%,$(LONGEST) $(wildcard tests/lab/test_*.py))
	$(BIN)/pytest tests/lab -m "timing and not slow"

check: lint types unit  ## The fast part: under a minute.

# Every row of every fault table; resumes where it stopped. The files beside each other, each in a lab of its own; what
# has a bound in seconds afterwards, alone on the machine.
test-all: check node lab-setup
	@tools/setup.sh labs
	$(MAKE) -k -j $(LABS) --output-sync $(patsubst tests/lab/test_%.py,lab-%,$(wildcard tests/lab/test_*.py)) \
	    $(patsubst tests/lab/test_%.py,mixed-%,$(wildcard tests/lab/test_reliability_*.py))
	$(BIN)/pytest tests/lab --resume --table
	$(BIN)/pytest tests/lab/test_reliability_*.py --resume --table --releases $(MIXED)

# 5: all of a file's tests are for test-all.
brief-%:
	$(BIN)/pytest tests/lab/test_$*.py -m "not slow and not timing" --durations=5 || [ $$? -eq 5 ]

lab-%:
	$(BIN)/pytest tests/lab/test_$*.py --resume -m "not timing"

mixed-%:
	$(BIN)/pytest tests/lab/test_$*.py --resume -m "not timing" --releases $(MIXED)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/shellcheck exlb_fab/node/*.sh exlb_fab/lab/*.sh exlb_fab/lab/el9/*.sh tools/*.sh .ci/run
	$(BIN)/shellcheck --shell=bash env.example.sh

types: setup
	$(BIN)/mypy

unit: setup
	$(BIN)/pytest -n auto tests/unit tests/golden tests/cli --ignore tests/unit/node

node: setup  ## The programs that run on nodes, in a scratch root: every branch, every kill, every full disk.
	@tools/setup.sh node
	$(BIN)/pytest -n auto tests/unit/node

setup:
	@tools/setup.sh dev

lab-setup: setup
	@tools/setup.sh lab

lock:  ## Pin the development install anew: hashes, no addresses.
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet \
	    --upgrade requirements-dev.in -o requirements-dev.lock

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
