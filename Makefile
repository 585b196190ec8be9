# tg-supervisor: `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.
#
# Each client library has an environment of its own, for the two install the same import name. Each is made from its
# lock at first use, and anew when the lock changes. Nothing is needed but make and Python 3.11 to 3.14.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CLIENTS := pyrogram kurigram
VENV := .venv-
P := $(VENV)pyrogram
K := $(VENV)kurigram

# The Python that makes the environments: the first of these that runs and is neither too old nor too new.
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c '$(SUITABLE)' >/dev/null 2>&1 && echo $$python && break; done)

PACKAGES := supervisor tests $(wildcard benchmarks) docs/man/generate.py docs/pictures/make.py

PIP := -m pip --quiet --quiet --disable-pip-version-check --no-input
UV := uv==0.13.9

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- What a newcomer runs ------------------------------------------------------------------------

.PHONY: demo
demo: $(P)/.ready ## the whole thing against a built-in local Telegram, faults included; no account, no network
	@$(P)/bin/tg-supervisor demo

.PHONY: test
test: test-pyrogram ## the tests, on Pyrogram

# --- What must pass before a commit lands (.ci/run runs all of it) ---------------------------------

.PHONY: check
check: lint types contracts package test-all ## everything that CI checks

.PHONY: test-all
test-all: ## the tests on Pyrogram, then on Kurigram, and how much of the code they cover together
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory test-pyrogram COVER=yes
	@$(MAKE) --no-print-directory test-kurigram COVER=yes
	@$(P)/bin/coverage combine --quiet
	$(P)/bin/coverage report
	$(P)/bin/coverage report --include='supervisor/core/*' --fail-under=100

# Where it counts, each run leaves its figures beside the others': .coverage.*
PYTEST = $(VENV)$*/bin/python -m $(if $(COVER),coverage run -m )pytest

# Most of what the tests of whole daemons do is wait, so three go side by side; where tight bars are held, nothing does.
# A time that was measured while others had the processor says little: what failed is run once more, with nothing beside
# it, and has to pass then. Both runs are shown.
AGAIN = $(PYTEST) --last-failed --last-failed-no-failures=none
.PHONY: test-pyrogram test-kurigram
test-pyrogram test-kurigram: test-%: $(VENV)%/.ready
	$(PYTEST) --numprocesses=3 --dist=loadscope -m 'not alone' tests || $(AGAIN) -m 'not alone' tests
	$(PYTEST) -m alone tests || $(AGAIN) -m alone tests

.PHONY: lint
lint: $(P)/.ready ## ruff: rules and layout
	$(P)/bin/ruff check .
	$(P)/bin/ruff format --check .

.PHONY: format
format: $(P)/.ready ## lay the code out, mend what can be mended without thought
	$(P)/bin/ruff check --fix-only .
	$(P)/bin/ruff format .

.PHONY: types
types: $(P)/.ready $(K)/.ready ## mypy --strict, against each client library
	$(P)/bin/mypy --cache-dir=.mypy_cache/pyrogram $(PACKAGES)
	$(K)/bin/mypy --cache-dir=.mypy_cache/kurigram $(PACKAGES)

.PHONY: contracts
contracts: $(P)/.ready ## who may import whom
	$(P)/bin/lint-imports --no-logo

.PHONY: package
package: $(P)/.ready ## build the wheel, and see that every file of ours is in it
	@rm -rf dist
	$(P)/bin/python $(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@find supervisor -type f ! -path '*/__pycache__/*' | LC_ALL=C sort > dist/tree
	@$(P)/bin/python -m zipfile --list dist/*.whl | awk '$$1 ~ /^supervisor\// { print $$1 }' | LC_ALL=C sort > dist/wheel
	diff dist/tree dist/wheel

# --- What is run now and then --------------------------------------------------------------------

.PHONY: man
man: $(P)/.ready ## write the manual page anew, from what the commands say of themselves
	$(P)/bin/python docs/man/generate.py > docs/man/tg-supervisor.1

.PHONY: pictures
pictures: $(P)/.ready ## take the pictures of README.md and docs/ anew; needs Chromium
	$(P)/bin/python docs/pictures/make.py

.PHONY: bench
bench: $(P)/.ready $(K)/.ready ## the benchmarks, on both client libraries; BENCH=--quick for a minute each
	@for client in $(CLIENTS); do $(VENV)$$client/bin/python -m benchmarks $(BENCH) || exit 1; done
	@$(P)/bin/python -m benchmarks.record $(BENCH)

.PHONY: soak
soak: $(P)/.ready $(K)/.ready ## five minutes of random faults on each client library; SEED=n for the same ones again
	@for client in $(CLIENTS); do SOAK_SECONDS=$(or $(SECONDS),300) SOAK_SEED=$(or $(SEED),$$(date +%s)) \
		$(VENV)$$client/bin/python -m pytest tests/integration/test_soak.py || exit 1; done

# `make lock` keeps what is pinned and still fits; `make lock UPGRADE=yes` takes the newest.
COMPILE := pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command 'make lock'

.PHONY: lock
lock: .venv-lock/.ready ## write requirements/*.txt anew from pyproject.toml
	@mkdir -p requirements
	.venv-lock/bin/uv $(COMPILE) $(if $(UPGRADE),--upgrade) --group build --output-file requirements/build.txt >/dev/null
	for client in $(CLIENTS); do \
		.venv-lock/bin/uv $(COMPILE) $(if $(UPGRADE),--upgrade) --constraint requirements/build.txt --extra $$client \
			--group dev --output-file requirements/$$client.txt pyproject.toml >/dev/null || exit 1; \
	done

.PHONY: clean
clean: ## remove the environments and everything that tools left behind
	rm -rf $(P) $(K) .venv-lock build dist htmlcov .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find supervisor tests $(wildcard benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +

# --- The environments ----------------------------------------------------------------------------

# .locked: what the lock says is installed. .ready: so is this tree, as it stands (editable).

$(P)/.ready $(K)/.ready: %/.ready: %/.locked pyproject.toml
	@$*/bin/python $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(P)/.locked $(K)/.locked: $(VENV)%/.locked: requirements/build.txt requirements/%.txt
	@$(or $(PYTHON),false) -c '$(SUITABLE)' || { echo >&2 \
		'Python 3.11 to 3.14 with its venv module is needed$(if $(PYTHON),; $(PYTHON) is not). Name one: make PYTHON=…'; exit 1; }
	@echo '$(VENV)$*: installing what requirements/$*.txt locks, once'
	@rm -rf $(VENV)$*
	@$(PYTHON) -m venv $(VENV)$*
	@$(VENV)$*/bin/python $(PIP) install --require-hashes -r requirements/build.txt
	@$(VENV)$*/bin/python $(PIP) install --require-hashes --no-build-isolation -r requirements/$*.txt
	@touch $@

.venv-lock/.ready: Makefile
	@rm -rf .venv-lock
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python $(PIP) install $(UV)
	@touch $@
