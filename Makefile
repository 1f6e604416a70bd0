# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
# Options for pytest: `make test PYTEST="-k narrowing"`.
PYTEST ?= -n 4 --dist worksteal --durations 30
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint docs reference check wheel clean

demo: $(VENV)/.installed
	$(BIN)/orchestrate run examples/digits.yaml

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in site/index.html; a warning, or a generated page that is out of date, is an error
# (with --quiet mkdocs would not count warnings).
docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The generated pages anew: every key of a sweep file, every command's help.
reference: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py

check: lint docs test

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel --no-isolation

# Debian's python3 comes without ensurepip: there the venv gets its pip from the system's.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) 2>/dev/null || ( \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(VENV)/bin/python install pip )

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist site
