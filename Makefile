# make help lists the commands. Variables: PYTHON (an interpreter to try first), JOBS (test processes),
# ARGS (more arguments for the tool that a command runs, as in: make test ARGS='-k scan').

JOBS ?= 2
VENV := .venv
RUN := $(VENV)/bin/python

# Modules are compiled once, when they are first imported: not all at installation, and not in every process again.
INSTALL := $(RUN) -m pip --disable-pip-version-check --no-input install --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench fuzz test-matrix clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-20s %s\n", $$1, $$2 }'

demo: $(VENV)/.installed-demo ## train on digits, simulate spiking networks; dumps and drawings go to demo/
	$(RUN) examples/digits_gru.py $(ARGS)
	$(RUN) examples/spiking_demo.py $(ARGS)

test: $(VENV)/.installed-dev ## run the tests
	$(RUN) -m pytest -n $(JOBS) --dist worksteal -m "not docs" $(ARGS)

lint: $(VENV)/.installed-dev ## ruff and mypy
	$(RUN) -m ruff check .
	$(RUN) -m mypy

docs: $(VENV)/.installed-dev ## execute the examples of the documents and docstrings
	$(RUN) -m pytest -n $(JOBS) --doctest-modules tests/test_docs.py stategraph $(ARGS)

bench: $(VENV)/.installed-bench ## measure against plain JAX, BrainState, Flax and Brian 2
	$(RUN) benchmarks/run.py $(ARGS)

fuzz: $(VENV)/.installed-dev ## run random programs in every way, ten minutes of them: ARGS='--seconds 60 --seed 1'
	$(RUN) tests/fuzz/run.py --seconds 600 $(ARGS)

test-matrix: ## run the core tests on every supported Python/JAX pair that is here
	JOBS=$(JOBS) tools/test_matrix.sh all $(ARGS)

clean: ## remove what the commands wrote, except .venv and .venvs
	rm -rf build dist demo stategraph.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find stategraph tests tools examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# One environment; each set of extras is installed when it is first needed and when pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml | $(RUN)
	$(INSTALL) --editable '.[$*]'
	@touch $@

$(RUN):
	@python=$$(PYTHON='$(PYTHON)' tools/python.sh) && echo "creating $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)
