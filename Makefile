# The two commands: `make run` and `make test`. Both install first; that takes a moment only once.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
PAGE := api/web/dist/.tried
PAGE_SOURCES := $(shell find web -name node_modules -prune -o -type f -print 2>/dev/null)

.PHONY: install run test fuzz slow chaos upgrade teeth check bench plot token migrate doctor page

install: .venv/installed $(PAGE)

.venv/installed: pyproject.toml constraints.txt
	@command -v $(firstword $(PYTHON)) >/dev/null || \
		{ echo "$(firstword $(PYTHON)): command not found; name a Python of 3.11 or newer: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make install PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@echo "Installing what is needed into .venv; this may take some minutes."
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,test]'
	touch $@

# The web page, once for each state of its sources. Where it cannot be built, the server does without.
$(PAGE): $(PAGE_SOURCES) | .venv/installed
	@$(BIN)/throughline page || echo "The API works without its page; make page tries again." >&2
	@mkdir -p $(@D) && touch $@

page: .venv/installed
	$(BIN)/throughline page
	@touch $(PAGE)

# Arguments of `throughline dev` go into ARGS: make run ARGS="--port 9000 --workers 2"
run: install
	$(BIN)/throughline dev --follow-parent $(ARGS)

# Most tests wait for processes: some of them at once use two cores well. A file's tests stay together, and files with long
# tests come first (chaos, clients, e2e), as they stand, so that no process is left alone with them at the end.
test: install
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

# What mostly waits: for limits of half a minute, for hundreds of runs. `make test slow` runs every test there is.
slow: install
	$(BIN)/python -m pytest --numprocesses 4 -m slow $(ARGS)

# Every fault at full scale, one after the other, with its figures, seed and log at the end. One: make chaos ARGS="-k paused"
chaos: install
	CHAOS=full EVENT_LOG_EXAMPLES=1000 RUN_MODEL_EXAMPLES=500 $(BIN)/python -m pytest \
		tests/chaos tests/integration/test_event_log_model.py tests/integration/test_run_model.py --timeout 1200 $(ARGS)

# Requests that schemathesis makes of the OpenAPI document, others each time; failures are printed with their seed.
# More for each operation: make fuzz EXAMPLES=5000
EXAMPLES ?= 500
fuzz: install
	FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/integration/test_api_schema.py $(ARGS)

# Replaces every process of an older version by today's under load: make upgrade FROM=v0.1.0
FROM ?= HEAD
upgrade: install
	rm -rf .upgrade && git worktree prune && git worktree add --quiet --detach .upgrade $(FROM)
	CHAOS=full UPGRADE_FROM=.upgrade $(BIN)/python -m pytest tests/chaos/test_rolling_upgrade.py --timeout 1200 $(ARGS); \
		status=$$?; git worktree remove --force .upgrade; exit $$status

# Breaks the guards of tests/teeth/breakages.py one by one, in a copy: a test must fail each time. Takes half an hour.
# One: make teeth ARGS=fence
teeth: install
	$(BIN)/python -m tests.teeth $(ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/throughline page --check

bench: install
	$(BIN)/python -m bench $(ARGS)

# What `make bench` has found, as docs/performance.svg.
plot: install
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[plots]'
	$(BIN)/python -m bench.plot

token: install
	@$(BIN)/throughline token $(ARGS)

migrate: install
	$(BIN)/throughline migrate

# Examines the system that `make run` runs here, or the one that the environment names.
doctor: install
	@$(BIN)/throughline doctor $(ARGS)
