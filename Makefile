# The commands of this project; `make` alone lists them. Needs python3 (3.11 or newer) and make.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# One thread a process: the tests and the trials run side by side on few cores.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test fuzz check bench learn kltarget decisions faults soak lint types layers format clean

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r command what; do printf '%-14s %s\n' "$$command" "$$what"; done

setup: $(INSTALLED)  ## make .venv and install the pinned packages and easyds-tune into it
	@echo "Ready: $(BIN)/easyds-tune"

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
		f"Python must be 3.11 or newer, got {v.major}.{v.minor} from $(PYTHON); " \
		"name another one: make setup PYTHON=python3.12")'
	@echo "Preparing .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo "Installing the packages of requirements.lock (minutes the first time)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(INSTALLED)  ## run the demo: eight PPO trials of a tiny tutor, two or three minutes
	@if [ -e results/demo ]; then \
		echo "Removing results/demo, the last demo's results"; rm -rf results/demo; fi
	$(BIN)/easyds-tune sweep ppo.yaml --set name=demo

# Two at a time; the tests of one file share what their fixtures made.
test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

fuzz: $(INSTALLED)  ## random and adversarial specs and data, over 10,000 cases of each (some 20 minutes)
	EASYDS_FUZZ_EXAMPLES=1500 $(BIN)/python -m pytest -m fuzz --timeout 3600 \
		--hypothesis-show-statistics

# One after another: each of them wants the machine for itself.
bench: $(INSTALLED)  ## time warm workers, one more trial, a step, PPO against TRL; watch memory; read a large journal (some 45 minutes)
	@for name in warm_workers marginal_cost step_time memory ppo_vs_trl journal_speed; do \
		echo "== $$name"; \
		$(BIN)/python tests/benchmarks/$$name.py --out results/benchmarks || exit 1; \
	done

learn: $(INSTALLED)  ## PPO on the demo, three seeds and three KL targets (some 40 minutes)
	$(BIN)/python tests/benchmarks/ppo_learning.py --out results/benchmarks

# It trains each of 108 configurations twice, with this checkout and with KL_BEFORE.
KL_STORIES ?= ../shared/models/stories260k
KL_BEFORE ?= 3e8720c
kltarget: $(INSTALLED)  ## PPO's KL target on other models and reward scales, beside an earlier commit (some five hours)
	$(BIN)/python -m tests.benchmarks.kl_target.run --stories $(KL_STORIES) --before $(KL_BEFORE) \
		--out results/benchmarks/kl_target

decisions: $(INSTALLED)  ## our decisions against Ray's and Optuna's own, on curves whose truth is known (some 16 minutes)
	$(BIN)/python -m tests.benchmarks.decisions.decide --seeds 20 --out results/benchmarks

# Each in processes of its own; row 15 mounts a small disk and needs root.
faults: $(INSTALLED)  ## the 22 faults a sweep must survive, ours beside plain Ray Tune (an hour)
	$(BIN)/python -m tests.benchmarks.faults.run --out results/benchmarks

soak: $(INSTALLED)  ## 200 trials through 20 kills, twice; what fsync costs (half an hour)
	$(BIN)/python -m tests.benchmarks.faults.soak --out results/benchmarks
	$(BIN)/python -m tests.benchmarks.faults.fsync --out results/benchmarks

check: lint types layers  ## everything CI checks besides the tests

lint: $(INSTALLED)  ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## mypy, strict on the light layers
	$(BIN)/mypy

layers: $(INSTALLED)  ## imports run one way, downwards
	$(BIN)/lint-imports

format: $(INSTALLED)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and every tool's cache; results/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
