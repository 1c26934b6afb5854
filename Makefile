# make run, make test: everything from a machine with Python 3.11, gcc and make.
# Steps leave stamps in .venv and build, so a second run starts at once.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input install -q --require-hashes
PINS := deploy/requirements
EXT := setup.py $(wildcard ext/c/*.[ch] ext/tbfast/*.pxd ext/tbfast/_ext/*.pyx ext/tbfast/_ext/*.pxd)
JOBS := $(shell nproc 2>/dev/null || echo 1)
BUILT := build/.built$(if $(TBFAST_WERROR),-werror)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Arguments: make run ARGS="--mqtt-port 1884", make test ARGS="-k json".
ARGS ?=
# Test files that run at the same time: one more than processors, as most wait for servers and timers.
AT_ONCE ?= $(shell [ $(JOBS) -lt 4 ] && expr $(JOBS) + 1 || echo 4)
PYTEST := $(PY) -m pytest -n $(AT_ONCE) --dist loadfile --no-loadscope-reorder
# make faults: faults of each kind, and where the random moments come from (0 = a new seed).
ROUNDS ?= 200
SEED ?= 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: run
run: build ## build, then a server with a simulated fleet
	$(PY) -m tbfast demo $(ARGS)

.PHONY: build
build: $(BUILT) ## compile the extensions in place

.PHONY: test
test: build $(VENV)/.test ## unit, property, hostile, fault and end-to-end tests
	$(PYTEST) -m "not interop and not fault_long and not bench" $(ARGS)

.PHONY: faults
faults: build $(VENV)/.test ## kills, failing disks and power cuts for long, the ledger as judge: ROUNDS=200 SEED=1
	TBFAST_TEST_FAULT_ROUNDS=$(ROUNDS) TBFAST_TEST_SEED=$(SEED) $(PY) -m pytest -s -m fault_long tests/fault $(ARGS)

.PHONY: interop
interop: build $(VENV)/.test build/.sdk ## the same server against clients nobody here wrote
	@deploy/packages.sh mosquitto:mosquitto mosquitto_pub:mosquitto-clients curl:curl
	$(PYTEST) -m interop $(ARGS)

.PHONY: bench
bench: build $(VENV)/.test ## micro benches
	$(PY) -m pytest benches -m "bench or not bench" -o python_files='test_bench_*.py' --benchmark-only $(ARGS)

.PHONY: fleet
fleet: build $(VENV)/.test ## tbfast against mosquitto over real sockets; needs a quiet machine
	@deploy/packages.sh mosquitto:mosquitto
	$(PY) -m benches.fleet.run $(ARGS)

.PHONY: lint
lint: build $(VENV)/.dev ## format, lint, types and import rules
	deploy/lint.sh

.PHONY: fuzz
fuzz: ## libFuzzer over ext/c, FUZZ_SECONDS each
	@deploy/packages.sh clang:clang,libclang-rt-14-dev
	deploy/fuzz.sh

.PHONY: sanitize
sanitize: build $(VENV)/.test ## unit, property and hostile tests on an ASan and UBSan build
	deploy/sanitize.sh -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: wheel
wheel: build $(VENV)/.dev ## dist/tbfast-*.whl
	rm -rf dist build/lib*
	TBFAST_TAKE_BUILT=1 $(PY) -m build --wheel --no-isolation --outdir dist .

.PHONY: docs
docs: build ## rewrite the generated tables of README.md
	PYTHONPATH=. $(PY) deploy/docs.py

.PHONY: pins
pins: $(VENV)/.dev ## rewrite the pinned requirements with hashes
	for set in run test dev sdk; do \
	    CUSTOM_COMPILE_COMMAND="make pins" PIP_FIND_LINKS= $(PY) -m piptools compile -q \
	        --generate-hashes --allow-unsafe --strip-extras --no-annotate --no-emit-index-url \
	        --no-emit-find-links --no-emit-trusted-host -o $(PINS)/$$set.txt $(PINS)/$$set.in \
	        || exit 1; \
	done

.PHONY: clean
clean: ## remove what was built, not the data or the environment
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks *.egg-info
	find tbfast tests benches -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	rm -f tbfast/_ext/*.so

.PHONY: distclean
distclean: clean ## also remove the environment
	rm -rf $(VENV)

$(VENV)/.created: deploy/bootstrap.sh
	deploy/bootstrap.sh $(VENV)
	@touch $@

$(VENV)/.run: $(PINS)/run.txt $(VENV)/.created
	$(PIP) -r $<
	@touch $@

$(VENV)/.test: $(PINS)/test.txt $(VENV)/.run
	$(PIP) -r $<
	@touch $@

$(VENV)/.dev: $(PINS)/dev.txt $(VENV)/.test
	$(PIP) -r $<
	@touch $@

# ThingsBoard's SDK replaces paho-mqtt, so it must not share a directory with it.
build/.sdk: $(PINS)/sdk.txt $(VENV)/.run
	rm -rf build/sdk
	$(PIP) --target build/sdk -r $<
	@touch $@

$(BUILT): $(EXT) $(VENV)/.run
	@mkdir -p build
	$(PY) setup.py -q build_ext --inplace --parallel $(JOBS)
	@touch $@
