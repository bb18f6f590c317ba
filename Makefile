# make app     the page at http://127.0.0.1:7860 (first time: creates .venv and installs)
# make test    style, types and all tests, browser included
# make bench   the benchmarks; ratios on screen and as JSON
PYTHON ?= python3
PY := .venv/bin/python
ARGS ?=
# Test processes; the browser tests mostly wait. Files start in the order of their names: by number of tests, as is usual, the
# longest ones, which hold one test each, would come last and leave the other process idle.
JOBS ?= 2

# No hub, no telemetry; the program needs neither.
export HF_HUB_OFFLINE := 1
export GRADIO_ANALYTICS_ENABLED := False

.PHONY: app test lint types bench constraints clean

app:
	@$(PYTHON) scripts/setup_env.py
	@$(PY) app.py $(ARGS)

test:
	@$(PYTHON) scripts/setup_env.py --dev
	@$(PY) scripts/ensure_browser.py
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@env -u OMP_NUM_THREADS $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint:
	$(PY) -m ruff check .

types:
	$(PY) -m mypy saadi $(if $(wildcard ui/*.py),ui) $(wildcard app.py)

bench:
	@$(PYTHON) scripts/setup_env.py
	@$(PY) -m saadi bench $(ARGS)

# After a change of requirements*.txt: install, then write down what pip resolved.
constraints:
	@{ head -2 constraints.txt; $(PY) -m pip freeze | sed -E 's/\+(cpu|cu[0-9]+)$$//; s/ @ .*//'; } > constraints.tmp
	@mv constraints.tmp constraints.txt

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
