# `make demo` and `make test` do everything on a fresh Debian machine, as root. See README.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON := /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
APT := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

# What the product itself stands on, for the demonstration.
BASE_PACKAGES := python3-venv sqlite3 zstd
# What the tests need beside it: filesystems, a booted host, real peers.
TEST_PACKAGES := python3-systemd systemd systemd-container mmdebstrap xfsprogs btrfs-progs e2fsprogs \
    openssh-client netcat-openbsd util-linux iproute2 strace gzip git nodejs node-express nginx-light
# What the benchmarks measure against, beside what is there already.
PEER_PACKAGES := logrotate restic

.PHONY: help demo test gates unit integration trees hosttest host lint faults soak coverage bench docs lock wheel clean

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

define install_packages
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  missing=$$(comm -13 <({ dpkg-query -W -f='$${Package} $${Status}\n' $(1) 2>/dev/null || true; } | awk '/ok installed/{print $$1}' | sort) \
	    <(printf '%s\n' $(1) | sort)); \
	  if [ -n "$$missing" ]; then echo "installing $$missing"; apt-get update -qq && $(APT) $$missing >/dev/null; fi; \
	fi
endef

$(VENV)/product: pyproject.toml
	$(call install_packages,$(BASE_PACKAGES))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/tests: $(VENV)/product requirements/dev.txt
	$(call install_packages,$(TEST_PACKAGES))
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements/dev.txt
	@# python3-systemd is the distribution's; one link shows it to this environment, and nothing else of the system.
	ln -sfn /usr/lib/python3/dist-packages/systemd $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/systemd
	touch $@

$(VENV)/peers: $(VENV)/tests requirements/peers.txt
	$(call install_packages,$(PEER_PACKAGES))
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements/peers.txt
	touch $@

demo: $(VENV)/product ## The main job on an embedded site with a live writer; cleans up (under two minutes)
	$(BIN)/python demo/demo.py

test: $(VENV)/tests ## All tests and static gates
	@# What the hosts are made of is fetched while the gates compute.
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target gates trees
	@$(MAKE) --no-print-directory integration hosttest

gates: lint unit

trees: $(VENV)/tests
	$(BIN)/python -m tests.host.trees

unit: $(VENV)/tests ## Tests that take seconds
	$(BIN)/python -m pytest -q tests/unit

integration: $(VENV)/tests ## Real SQLite files, processes and filesystems
	$(BIN)/python -m pytest -q -n 2 tests/integration

hosttest: $(VENV)/tests ## Booted Debian hosts, deployed by the real playbook
	@# Each host is one process: they run side by side.
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target hosttest-bookworm hosttest-trixie

hosttest-%: $(VENV)/tests
	$(BIN)/python -m pytest -q tests/host -k $*

host: $(VENV)/tests ## Leave a deployed host running to look at
	$(BIN)/python -m tests.host.hostctl

lint: $(VENV)/tests ## Static gates: ruff, mypy, ansible-lint, systemd-analyze
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	.ci/units
	.ci/ansible

faults: $(VENV)/tests ## Each system call fails or kills, disks are full, sites are hostile: all cases (an hour and a half)
	FAULTS_EVERY=1 FULL_DISK_PASSES=200 $(BIN)/python -m pytest -q -s -n 2 --dist worksteal \
	  tests/integration/faults tests/integration/hostile tests/integration/rotation/test_rotation_killed.py tests/integration/restore/test_killed.py tests/integration/test_requests.py

soak: $(VENV)/tests ## Random kills, checkpoints and VACUUMs beside the archive; the model (SECONDS_LONG=600)
	ARCHIVE_SECONDS=$(or $(SECONDS_LONG),600) $(BIN)/python -m pytest -q -s -m soak tests/integration/archive tests/integration/increment \
	  tests/integration/model

coverage: $(VENV)/tests ## Which branches the tests of processes take, those of booted hosts not counted
	@# Whoever a process steps down to writes there as well. Its own system calls are not to be among those that fail.
	data=$$(mktemp -d) && trap 'rm -rf $$data' EXIT && chmod 1777 $$data && export COVERAGE_FILE=$$data/coverage && \
	  $(BIN)/coverage run -m pytest -q -n 2 tests/unit tests/integration \
	    --deselect tests/integration/faults/test_faults.py::test_whatever_fails_is_told_and_nothing_is_lost && \
	  $(BIN)/coverage combine --quiet && $(BIN)/coverage report

bench: $(VENV)/peers ## Side by side with the usual tools (an hour; QUICK=1: small, some minutes)
	@# The page shows what was measured, also where one benchmark failed.
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) || failed=1; $(BIN)/python -m benchmarks.page; exit $${failed:-0}

docs: $(VENV)/tests ## Write the reference pages from the code, the benchmarks' page from their results
	$(BIN)/python -m docs.generate
	$(BIN)/python -m benchmarks.page

lock: $(VENV)/tests ## Pin what is deployed, with hashes
	$(BIN)/python requirements/wheelhouse.py lock

wheel: $(VENV)/tests ## Build the wheel
	$(BIN)/python -m build --wheel --outdir dist .

clean: ## Remove what was built
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
