# s2sr. `make demo` and `make test` do all the set-up themselves; a second call costs seconds.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup system demo test test-all test-faults test-otb test-similarity lint check-core check-qgis check-similarity \
  bench bench-similarity models package check-package install clean

PYTHON ?= python3
QGIS_PYTHON ?= /usr/bin/python3
OTB_PYTHON ?= /usr/bin/python3
PROFILE ?= $(HOME)/.local/share/QGIS/QGIS3/profiles/default
DATA ?= ../shared/data
MARKERS ?= not slow
FAULTS ?= 300
SEED ?=
BIN := .venv/bin
SIMILARITY_PIP = .venv-similarity/bin/python -m pip install -q --disable-pip-version-check
PEER_PIP = .venv-peer/bin/python -m pip install -q --disable-pip-version-check
TORCH = torch==2.13.0$(if $(filter Linux,$(shell uname)),+cpu)
TORCH_PEERS = piq==0.8.0 opensr-test==1.3.3 satalign==0.1.17 mpltern==1.0.5
QGIS_ENV = QT_QPA_PLATFORM=offscreen S2SR_PYTHON="$(CURDIR)/$(BIN)/python"

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

system:
	@PYTHON="$(PYTHON)" QGIS_PYTHON="$(QGIS_PYTHON)" sh tools/setup_qgis.sh

.venv/.base: pyproject.toml | system
	@echo "s2sr: the worker's environment, .venv ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "s2sr: $(PYTHON) is older than 3.10; name another with make PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/.train: .venv/.base
	@echo "s2sr: TensorFlow and the tools, .venv ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[train,dev]'
	@touch $@

# The QGIS bindings belong to the system's Python, so the tests of the plugin need an environment of that one.
.venv-qgis/.done: Makefile | system
	@echo "s2sr: the environment of the plugin's tests, .venv-qgis ..."
	@$(QGIS_PYTHON) -m venv --system-site-packages .venv-qgis
	@.venv-qgis/bin/python -m pip install -q --disable-pip-version-check 'pytest>=8,<10' 'pytest-qgis>=5,<6' 'pytest-timeout>=2.3,<3'
	@touch $@

# Orfeo ToolBox's bindings are built for the system's Python and for NumPy 1.
.venv-otb/.done: Makefile pyproject.toml
	@echo "s2sr: the environment of the tests with Orfeo ToolBox, .venv-otb ..."
	@$(OTB_PYTHON) -m venv .venv-otb
	@.venv-otb/bin/python -m pip install -q --disable-pip-version-check -e '.[otb]' 'numpy>=1.26,<2' 'onnx>=1.16,<2' 'pytest>=8,<10' 'pytest-timeout>=2.3,<3'
	@touch $@

# image-similarity-measures asks for an OpenCV with windows, NumPy 1 and a scikit-image that ends at Python 3.11.
.venv-similarity/.done: tests/similarity/requirements.txt
	@echo "s2sr: the environment of the peers of the similarity measures, .venv-similarity ..."
	@$(PYTHON) -m venv .venv-similarity
	@$(SIMILARITY_PIP) --only-binary numpy,scipy,scikit-image -r tests/similarity/requirements.txt
	@$(SIMILARITY_PIP) --no-deps image-similarity-measures==0.3.6
	@touch $@

# PyPI has PyTorch for Linux with CUDA only (3 GB), so where PyTorch's own index is out of reach its tests are skipped.
.venv-similarity/.torch: tests/similarity/requirements-torch.txt .venv-similarity/.done
	@echo "s2sr: PyTorch and its measures, .venv-similarity ..."
	@$(SIMILARITY_PIP) --no-deps --extra-index-url https://download.pytorch.org/whl/cpu $(TORCH) \
	  && $(SIMILARITY_PIP) $(TORCH) -r tests/similarity/requirements.txt -r tests/similarity/requirements-torch.txt \
	  && $(SIMILARITY_PIP) --no-deps $(TORCH_PEERS) \
	  && touch $@ || echo "s2sr: PyTorch cannot be installed here; the tests that need it are skipped"

# Of the package's own list its sharpening needs these two; the rest is gigabytes.
.venv-peer/.done: Makefile
	@echo "s2sr: the environment of the peer remote_sensing_processor, .venv-peer ..."
	@$(PYTHON) -m venv .venv-peer && rm -f .venv-peer/reason.txt
	@$(PEER_PIP) --extra-index-url https://download.pytorch.org/whl/cpu $(TORCH) 'scikit-image>=0.22,<1' 2>.venv-peer/pip.txt \
	  && $(PEER_PIP) --no-deps remote_sensing_processor==0.2.1 2>>.venv-peer/pip.txt \
	  && touch $@ || { tail -n 1 .venv-peer/pip.txt > .venv-peer/reason.txt; }

setup: .venv/.train .venv-qgis/.done  ## everything that the tests and a training need

demo: .venv/.base  ## super-resolve the sample with QGIS, compare, write demo/
	@$(BIN)/python tools/demo.py

lint: .venv/.train  ## ruff, format, mypy, bandit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -s B404 -r s2sr_qgis training_cli

check-core: .venv/.train
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:pytest_qgis -m "$(MARKERS)" tests/core

check-qgis: .venv/.train .venv-qgis/.done
	$(QGIS_ENV) .venv-qgis/bin/python -m pytest -q -m "$(MARKERS)" tests/qgis tests/e2e

check-similarity:
	@if $(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))'; then \
	  $(MAKE) -s .venv-similarity/.done && .venv-similarity/bin/python -m pytest -q tests/similarity; \
	else echo "s2sr: image-similarity-measures 0.3.6 needs Python 3.10 or 3.11; tests/similarity is left out"; fi

test: check-core check-qgis check-similarity  ## style, types and all tests but the slow ones

test-all: MARKERS = slow or not slow
test-all: check-core check-qgis test-similarity  ## the slow tests too, and those against PyTorch's measures

test-similarity:  ## similarity measures against image-similarity-measures, sewar, piq, torchmetrics, opensr-test
	@$(MAKE) -s .venv-similarity/.done
	@$(MAKE) -s .venv-similarity/.torch
	.venv-similarity/bin/python -m pytest -q tests/similarity

test-otb:  ## all tests that need real Orfeo ToolBox, installed and built once (Debian 12)
	@OTB_PYTHON="$(OTB_PYTHON)" sh tools/setup_otb.sh
	@$(MAKE) -s .venv-otb/.done
	@. "$${XDG_CACHE_HOME:-$$HOME/.cache}/s2sr/otb/env.sh" && .venv-otb/bin/python -m pytest -q -m otb tests/otb tests/core

test-faults: .venv/.train  ## random faults: signals, full disks, limits, lying servers; FAULTS=300 SEED=random
	@seed="$(SEED)"; seed="$${seed:-$$(date +%s)}"; echo "s2sr: $(FAULTS) faults, SEED=$$seed"; \
	  FAULTS="$(FAULTS)" SEED="$$seed" $(BIN)/python -m pytest -q -p no:pytest_qgis --tb=short tests/faults

bench: .venv/.train  ## our models beside DSen2 and bicubic, and the picture; DATA=folder of the test scenes
	@$(MAKE) -s .venv-peer/.done
	$(BIN)/python benchmarks/run.py $(if $(wildcard $(DATA)),--data "$(DATA)")

bench-similarity: .venv-similarity/.done  ## measure the similarity measures beside image-similarity-measures
	.venv-similarity/bin/python benchmarks/similarity.py

models: .venv/.train  ## train the bundled models again; DATA=folder of the scenes, WEIGHTS=published weights
	$(BIN)/python tools/train_models.py --data "$(DATA)" $(if $(WEIGHTS),--weights "$(WEIGHTS)")

package:  ## the plugin as dist/s2sr_qgis.VERSION.zip, from committed files
	@$(PYTHON) tools/package.py build

check-package: package .venv/.train  ## the rules of plugins.qgis.org on the packed zip
	@$(BIN)/python tools/package.py check

install: package  ## install the plugin into PROFILE of QGIS
	@$(PYTHON) tools/package.py install --profile "$(PROFILE)"

clean:  ## remove environments, builds and the demo's results
	rm -rf .venv .venv-qgis .venv-otb .venv-similarity .venv-peer build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache
