# `make demo` and `make test` each do all of their own set-up. They write in this folder
# (.venv, .make) and in one cache folder, $XDG_CACHE_HOME/s2netd or ~/.cache/s2netd.
# They need python3 >= 3.11 with venv, make and git. The first run fetches packages with pip.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo known-network test test-fast faults misery outages clock overhead setup setup-training lint format clean

BIN := .venv/bin
PINS := pyproject.toml constraints.txt
# The warning that is ignored says that the installed packages lie in this folder, as they should.
INSTALL = PYTHONWARNINGS='ignore:Editable installation' \
  $(BIN)/python -m pip install --quiet -c constraints.txt -e

# Two processes share the tests, one file at a time, for many tests only wait.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile
FAST := not (slow or kafka or weights or torch or tensorrt_rtx or systemd or rtsp or chromium or gpu)

# Another project's import path (a sourced ROS workspace, say) or pip target must not act here.
unexport PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET
export PIP_CACHE_DIR := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/s2netd/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# pip runs `rustc --version`. Without a toolchain, rustup's stand-in for rustc would make a folder
# in HOME, so it is led to the cache folder.
ifeq ($(wildcard $(HOME)/.rustup),)
export RUSTUP_HOME := $(PIP_CACHE_DIR)/rustup
endif

# The scripts in .venv hold the checkout's path, so a checkout that was moved, or whose .venv was
# deleted, sets everything up again.
ifneq ($(shell { $(BIN)/python -c '' && cat .make/venv; } 2>/dev/null),$(CURDIR))
$(shell rm -rf .make)
endif

help:
	@echo 'make demo [SEED=number]      watch a scene, drawn on the spot, as if by a live camera;'
	@echo '                             print its events beside what happens'
	@echo 'make demo VIDEO=file.mp4     watch a video of your own in the same way'
	@echo 'make demo NETWORK=sal        watch the scene with sal, sdanet, tsc-net, two-stream or s2net,'
	@echo '                             trained here first (PyTorch; long the first time)'
	@echo 'make test [ARGS=...]         run the tests; ARGS go to pytest, as -n 0: in one process'
	@echo 'make test-fast [ARGS=...]    only those that need neither another process nor seconds'
	@echo 'make faults [ROWS=1,6,10]    kill, freeze and cut off daemons and their broker, and check'
	@echo '                             what readers see (half an hour; ARGS=--full: hours)'
	@echo 'make misery [ARGS=--short]   all that one sender can do, done to daemons under systemd, and'
	@echo '                             what the other cameras see of it (half an hour; short: 6 min)'
	@echo 'make outages [ARGS=--short]  take broker, disk and rights away from daemons under systemd'
	@echo '                             (25 min; short: 6 min)'
	@echo 'make clock [ARGS=--days=30]  a month of trouble with clocks, in simulated time, and how far'
	@echo '                             off pictures are dated (minutes; the picture needs matplotlib)'
	@echo 'make overhead                what a camera costs besides decoding and networks, with 1 to 256'
	@echo '                             cameras (4 min)'
	@echo 'make setup                   only set up .venv, with what the tests and checks need'
	@echo 'make setup-training          set it up with PyTorch too (several GB)'
	@echo 'make lint                    formatting, lint, types and import contracts'
	@echo 'make format                  format the code'
	@echo 'make clean                   delete .venv and everything else made here'

demo: $(if $(NETWORK),known-network .make/training,.make/cpu)
	@$(if $(NETWORK),scripts/network-bundle "$(NETWORK)", \
	  $(BIN)/s2netd models pull $(if $(VIDEO),kinetics400,scenes))
	@$(BIN)/s2netd demo $(if $(NETWORK),--bundle "out/networks/$(NETWORK)") \
	  $(if $(VIDEO),"$(VIDEO)",$(addprefix --seed ,$(SEED)))

known-network:
	@scripts/network-bundle --known "$(NETWORK)"

# Without weights, the tests that need them are skipped; with S2NETD_REQUIRE_REAL_PARTS set, missing
# weights are a failure.
test: .make/dev
	@{ $(BIN)/s2netd models pull kinetics400 && $(BIN)/s2netd models pull scenes; } || { \
	  echo 'make test: no weights (the reason is above), so the tests marked "weights" are skipped.'; \
	  [ -z "$$S2NETD_REQUIRE_REAL_PARTS" ]; }
	@$(PYTEST) $(ARGS)

test-fast: .make/dev
	@$(PYTEST) -m '$(FAST)' $(ARGS)

# Needs Java and Maven for the broker (Debian: default-jre-headless, maven).
faults: .make/dev
	@$(BIN)/python -m tests.faults $(if $(ROWS),--rows $(ROWS)) $(ARGS)

# These two need root and systemd besides, and the first a C compiler for calls that hang.
misery: .make/dev
	@$(BIN)/python -m tests.misery $(ARGS)

outages: .make/dev
	@$(BIN)/python -m tests.misery.outages $(ARGS)

# Matplotlib is in the training extra; without it there is no picture.
clock: .make/dev
	@$(BIN)/python -m tests.clock $(ARGS)

overhead: .make/dev
	@$(BIN)/python -m tests.overhead $(ARGS)

setup: .make/dev
	@echo 'Ready: .venv'

setup-training: .make/training
	@echo 'Ready: .venv, with PyTorch'

lint: .make/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .make/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	if [ -d .kafka ]; then scripts/kafka stop; rm -rf .kafka; fi
	rm -rf .venv .make build dist *.egg-info .coverage out
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.make/venv:
	@python=$$(for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && command -v "$$candidate" && break; done); \
	if [ -z "$$python" ]; then \
	  echo "s2netd needs Python 3.11 or newer; found: $$(python3 --version 2>/dev/null || echo none)."; \
	  echo 'Debian 12+, Ubuntu 24.04+: apt install python3 python3-venv. Ubuntu 22.04: apt install'; \
	  echo 'python3.11 python3.11-venv. Installed elsewhere? make PYTHON=/path/to/python3.11 ...'; \
	  exit 1; fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python cannot make virtual environments: its venv module is not installed."; \
	  echo 'Debian, Ubuntu: apt install python3-venv (or pythonX.Y-venv for that version).'; \
	  exit 1; fi; \
	echo "Setting up .venv with $$python ..."; \
	if ! $(BIN)/pip --version >/dev/null 2>&1; then "$$python" -m venv --clear .venv; fi
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@mkdir -p .make && echo '$(CURDIR)' > $@

.make/cpu: $(PINS) | .make/venv
	@echo 'Installing s2netd and its CPU backend ...'
	@$(INSTALL) '.[cpu,scenes]'
	@touch $@

.make/dev: $(PINS) | .make/venv
	@echo 'Installing s2netd, its CPU backend and what its tests need ...'
	@$(INSTALL) '.[cpu,scenes]' --group dev
	@touch $@ .make/cpu

.make/training: $(PINS) | .make/venv
	@echo 'Installing s2netd, its tests, PyTorch (several GB) and TensorRT for RTX ...'
	@$(INSTALL) '.[cpu,scenes,training]' --group dev --group plans
	@touch $@ .make/dev .make/cpu
