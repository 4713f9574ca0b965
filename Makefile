# The two commands: `make run` and `make test`. Both install first; that takes a moment only once.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: install run test check bench token migrate

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@command -v $(firstword $(PYTHON)) >/dev/null || \
		{ echo "$(firstword $(PYTHON)): command not found; name a Python of 3.11 or newer: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make install PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,test]'
	touch $@

# Arguments of `throughline dev` go into ARGS: make run ARGS="--port 9000 --workers 2"
run: install
	$(BIN)/throughline dev --follow-parent $(ARGS)

# Most tests wait for processes: three of them at once use two cores well. A file's tests stay together.
test: install
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m bench $(ARGS)

token: install
	@$(BIN)/throughline token $(ARGS)

migrate: install
	$(BIN)/throughline migrate
