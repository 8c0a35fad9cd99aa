# Works with GNU make 3.81, the one that macOS ships.
#
# Everything is installed into .venv with the exact versions of constraints.txt.
#   PYTHON=python3.12          another interpreter (3.11 or newer)
#   PIP_ARGS="..."             more arguments for pip; on Linux without a GPU use
#                              PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
#   PYTEST_ARGS="..."          more arguments for pytest
#   JOBS=4                     processes that share the tests; 0 runs them in one
#   BENCH_ARGS="..."           more arguments for bench-analyze; BENCH_ARGS=--help lists them

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
JOBS ?= 2
BENCH_ARGS ?=

PARALLEL := -n $(JOBS) --dist loadfile
# What other versions of a dependency would not change: studies, benchmarks, the documentation, and
# what stands on Python, torch, or numpy's whole numbers, alone.
UNCHANGED := $(foreach it,readme studies compress_studies certify_studies coder_study benchmarks engine edges,--ignore=tests/test_$(it).py) \
  $(foreach it,shrink prune scores allocate regularize measures search certify compress,--ignore=tests/stages/$(it)) \
  $(foreach it,train noise incremental polish sparse split,--ignore-glob='tests/stages/test_$(it)*') \
  $(foreach it,compress certify verify,--ignore=tests/shell/test_cli_$(it).py) \
  --ignore=tests/numerics/coding --ignore=tests/numerics/bounds/test_validity.py
BIN := .venv/bin
LOWEST := .venv-lowest
BENCH := .venv-bench

# Silences a banner of mkdocs-material about its successor.
export NO_MKDOCS_2_WARNING := 1

.PHONY: help demo test check docs test-lowest format clean bench-demo bench-analyze bench-coverage \
	bench-scaling bench-published bench-tables bench-train bench-compress bench-certify studies
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

demo: .venv/demo.stamp ## run the whole loop on an embedded data set; open runs/demo/report.html
	$(BIN)/tailor demo --out runs/demo

test: .venv/dev.stamp ## run every test, doctests and the README included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

check: .venv/dev.stamp ## lint, format, types, import layers, README commands, documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict src
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_readme.py -k "not guides"
	$(BIN)/mkdocs build --strict --quiet

docs: .venv/dev.stamp ## build the documentation into site/
	$(BIN)/mkdocs build --strict

test-lowest: $(LOWEST)/test.stamp ## run the tests with the oldest dependencies we promise
	$(LOWEST)/bin/tailor demo --out $(LOWEST)/demo
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=brief \
	  $(LOWEST)/bin/python -m pytest $(PARALLEL) -m "not browser and not slow" $(UNCHANGED) $(PYTEST_ARGS)

bench-demo: .venv/demo.stamp ## the demo over five seeds; rewrites benchmarks/results/demo_seeds.json
	$(BIN)/python benchmarks/demo_seeds.py

bench-coverage: .venv/demo.stamp ## how often the intervals hold; rewrites benchmarks/results/coverage.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/coverage.py

bench-scaling: .venv/demo.stamp ## cost of large checkpoints; rewrites results/scaling.json, rehearsal.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scaling.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rehearsal.py

bench-analyze: $(BENCH)/bench.stamp ## speed beside WeightWatcher; rewrites benchmarks/results/analyze.json
	$(BENCH)/bin/python -m benchmarks.analyze $(BENCH_ARGS)

bench-published: .venv/dev.stamp ## exponents of Clauset et al. (2009); needs DATA=FOLDER
	$(BIN)/python benchmarks/published.py $(DATA)

bench-tables: .venv/dev.stamp ## equality with WeightWatcher; needs PAIRS="CHECKPOINT=TABLE ..."
	$(BIN)/python benchmarks/tables.py $(PAIRS)

bench-train: .venv/dev.stamp ## cost of penalties, noise and balance; rewrites three files in benchmarks/results/
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train.penalties
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train.sampler
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train.balance

bench-compress: .venv/dev.stamp ## size and speed of compression; rewrites five files in benchmarks/results/
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.compress.coder
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.compress.shrink
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.compress.sparse
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.compress.demo_network
	$(BIN)/python -m benchmarks.compress.fuzz

bench-certify: .venv/dev.stamp ## what each kind of certificate reaches, some hours; DATA=FOLDER with MNIST and the others
	for it in weights gibbs picks measures registered; do \
	  OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.certify.$$it --data $(DATA) || exit 1; done
	for it in digits mnist; do \
	  OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.certify.learned --data $(DATA) --sample $$it || exit 1; done
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.certify.text --data $(DATA) --work runs/text
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.certify.validity

studies: .venv/dev.stamp ## the studies of docs/findings on digits, an hour or two; MNIST=FOLDER, TEXT=FILE for more
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train.xiao
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train.certified
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train.balance_study
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train.wan $(if $(MNIST),--data $(MNIST))
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train.lee $(if $(MNIST),--data $(MNIST))
	$(if $(MNIST),$(BIN)/python -m benchmarks.compress.barsbey_networks --data $(MNIST) --cache runs/barsbey)
	$(if $(MNIST),$(BIN)/python -m benchmarks.compress.barsbey --data $(MNIST) --cache runs/barsbey)
	$(if $(TEXT),$(BIN)/python -m benchmarks.compress.allocation --text $(TEXT) --folder runs/charlm)

format: .venv/dev.stamp ## format the code and repair what ruff can repair
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove environments, caches, runs/demo and built files
	rm -rf .venv $(LOWEST) $(BENCH) runs/demo site dist build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +


# The environments. A stamp is newer than what it was installed from.

%/created.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tailor needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $*
	@touch $@

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/created.stamp
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[demo]'
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/created.stamp
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch .venv/demo.stamp $@  # dev contains demo

# The oldest direct dependencies; everything else as in constraints.txt.
$(LOWEST)/test.stamp: pyproject.toml constraints-lowest.txt constraints.txt | $(LOWEST)/created.stamp
	awk -F '==' 'NR == FNR { old[$$1]; print; next } !($$1 in old)' \
	  constraints-lowest.txt constraints.txt > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install $(PIP_ARGS) -c $(LOWEST)/constraints.txt -e '.[test]'
	@touch $@

# What analyze is compared with, which tailor itself never imports.
$(BENCH)/bench.stamp: pyproject.toml constraints-bench.txt constraints.txt | $(BENCH)/created.stamp
	$(BENCH)/bin/python -m pip install $(PIP_ARGS) -c constraints.txt -c constraints-bench.txt \
	  -e . weightwatcher powerlaw
	@touch $@

.PRECIOUS: %/created.stamp
