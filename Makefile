.DEFAULT_GOAL := help
.PHONY: help java run queries test check notebook bench test-yarn test-reliability test-spark35 test-spark41 clean

PYTHON ?= python3
BIN := .venv/bin
LAKE ?= lake
JRE := openjdk-17-jre-headless

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

run: java .venv/run ## run the job on the sample: data/ to lake/
	$(BIN)/python etl.py
	@$(BIN)/python queries/show.py --lake lake at_a_glance weekly_listeners

queries: .venv/run ## the team's questions and the lake's answers (LAKE=lake)
	@$(BIN)/python queries/show.py --lake "$(LAKE)"

test: java .venv/dev ## the tests (10 to 20 minutes on 2 cores)
	$(BIN)/python -m pytest tests -m "not long" --ignore=tests/yarn -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebook: java .venv/dev ## open the notebook in JupyterLab
	$(BIN)/jupyter lab --allow-root etl.ipynb

bench: java .venv/bench ## the benchmark (15 minutes)
	$(BIN)/python bench/bench.py

test-yarn: java .venv/dev ## the job on a real YARN on this machine
	$(BIN)/python -m pytest tests/yarn -m "not long"

test-reliability: java .venv/dev ## the long versions of the reliability tests (25 minutes on 2 slow cores)
	$(BIN)/python -m pytest tests -m long --ignore=tests/yarn -n 2 --dist loadfile

test-spark35: java .venv35/dev ## the tests of the job itself on Spark 3.5
	.venv35/bin/python -m pytest $$(cat tests/spark35.txt)

test-spark41: java .venv41/dev ## the tests of the job itself on Spark 4.1
	.venv41/bin/python -m pytest $$(cat tests/spark35.txt)

clean: ## remove what make made
	rm -rf .venv .venv35 .venv41 lake

java:
	@found=$$("$${JAVA_HOME:+$$JAVA_HOME/bin/}java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p'); \
	if [ "$${found:-0}" -ge 17 ] && [ "$$found" -lt 24 ]; then exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends $(JRE) >/dev/null; \
	else echo "Java 17 or 21 is needed: install it (Debian, Ubuntu: sudo apt-get install $(JRE))"; exit 1; fi

.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/run: requirements.txt queries/requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install -q -r requirements.txt -r queries/requirements.txt
	@touch $@

.venv/dev: requirements.txt queries/requirements.txt requirements-dev.txt | .venv/bin/python
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	@touch $@ .venv/run

.venv35/dev: tests/requirements-spark35.txt queries/requirements.txt
	$(PYTHON) -m venv .venv35
	.venv35/bin/python -m pip install -q -r tests/requirements-spark35.txt
	@touch $@

.venv41/dev: tests/requirements-spark41.txt queries/requirements.txt
	$(PYTHON) -m venv .venv41
	.venv41/bin/python -m pip install -q -r tests/requirements-spark41.txt
	@touch $@

.venv/bench: .venv/dev bench/requirements.txt
	$(BIN)/python -m pip install -q -r bench/requirements.txt
	@touch $@
