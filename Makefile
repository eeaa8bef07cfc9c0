# make run    from a book to a served model, in some minutes
# make test   format, lint and the tests, in some minutes
# make test-slow   kills, devices, full disks, whole notebooks
# make notebooks   run all notebooks again, with their full settings
# make nightly     what takes longer than a test may: 100 kills, 10,000 random cases of every property, texts of 2 GB
# make audit       known vulnerabilities of the installed packages, asked of PyPI (AUDIT=osv: of osv.dev)
PYTHON ?= python3
BIN := .venv/bin
AUDIT ?= pypi

.PHONY: run test test-slow notebooks nightly audit format clean

run: .venv/ready
	$(BIN)/python -m pipeline demo kjv-words

test: .venv/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: .venv/ready-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

notebooks: .venv/ready-dev
	$(BIN)/python notebooks/run.py $(wildcard notebooks/0*.py)

nightly: .venv/ready-dev
	$(BIN)/python -m tests.survival --kills 100
	$(BIN)/python -m pytest -n 2 tests/test_random.py --hypothesis-profile=nightly --durations=0 --durations-min=1
	$(BIN)/python -m pytest -m nightly -s

# --strict: a package that the service does not know is a failure, not a package without vulnerabilities.
# pip itself comes with Python, and is as old.
audit: .venv/ready-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip-audit --strict --local --progress-spinner=off --vulnerability-service=$(AUDIT)

format: .venv/ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "make: $$($(PYTHON) --version) is not supported, 3.11 to 3.13 are: try make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/ready: .venv/python requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
