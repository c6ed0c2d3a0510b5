# Two commands set up a fresh machine: `make demo` and `make test`. Both work in .venv, which they make themselves.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Processes that test side by side, a file each, in order: the long ones are not the last
WORKERS ?= 2

.PHONY: demo test fuzz matrix gpu lint clean

demo: $(VENV)/.ready
	$(BIN)/python -m recipes.glue.demo

test: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not matrix" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Older and newer Python, torch and transformers, an environment each under .matrix: half an hour and 30 GB
matrix: $(VENV)/.ready
	$(BIN)/python -m benchmarks.matrix --jobs $(WORKERS) --json benchmarks/results/matrix.json

# The properties of tests/fuzz on more than 10,000 cases; another SEED draws others
SEED ?= 0
fuzz: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) tests/fuzz --hypothesis-profile long --hypothesis-seed $(SEED) \
		--tally benchmarks/results/fuzz.json

# On a machine with a GPU: the tests that need one, and the figures for benchmarks/results. Where there is an environment
# already, with pytest and numpy, and nothing can be installed: make gpu BIN=/its/bin -o .venv/.ready
gpu: $(VENV)/.ready
	$(BIN)/python -m pytest -q -m gpu tests/engine/triton tests/bench/test_timing.py tests/recipes/test_vit_augment.py
	for shapes in bert-base gpt2-large llama-1b; do for dtype in float32 bfloat16; do \
		$(BIN)/python -m hf_winopt bench adamw_win adan lamb_win adamw_agr --shapes $$shapes --dtype $$dtype \
			--json benchmarks/results/gpu_$${shapes}_$$dtype.json || exit 1; \
	done; done
	$(BIN)/python -m benchmarks.plain_loops --json benchmarks/results/gpu_plain_loops.json

lint: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch by itself and first: its version decides what else is fetched. torchao and bitsandbytes beside the others: where
# transformers finds them it imports them, which takes time and prints, and only the tests of Win around them ask for that
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --target $(VENV)/beside torchao bitsandbytes
	touch $@

clean:
	rm -rf $(VENV) .matrix build dist *.egg-info runs
