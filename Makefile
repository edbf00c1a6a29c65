# The same commands as in README.md, in a virtual environment of the project's own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check cifar clean

demo: $(VENV)/installed
	$(BIN)/lcnet-rl demo

test: $(VENV)/installed
	$(BIN)/pytest -n auto

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto

cifar: $(VENV)/installed
	$(BIN)/lcnet-rl data cifar10
	$(BIN)/pytest -m "cifar or every_run"

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
