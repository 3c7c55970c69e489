# Tasks for developers. Everything runs in .venv, which is made with the python3 on the path.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 5000
ARGS ?=
JOBS ?= 7
SECONDS ?= 30
CLIENTS ?= 100
ROOMS ?= 10
SEED ?=
CHAOS ?= 1
CASES ?=
BUILDS ?=
RUNS ?= 1
PATIENCE ?= 1

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PACKAGING := setup.cfg setup.py pyproject.toml $(wildcard wsthreads/_native/*.[ch])

.DEFAULT_GOAL := help
.PHONY: help run test test-freethreaded stress bench conformance sanitize fuzz client screenshots lint docs dist clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "variables: run HOST PORT; test ARGS JOBS; stress SECONDS CLIENTS ROOMS SEED CHAOS=0; sanitize SANITIZER ARGS;"
	@echo "  test-freethreaded FREETHREADED JOBS ARGS SANITIZER=thread;"
	@echo "  bench ONLY SERVERS ROUNDS SECONDS BEFORE QUICK PUBLISH; conformance CASES BUILDS RUNS PATIENCE PYTHON27;"
	@echo "  fuzz TARGET SECONDS"

HANDLERS := $(patsubst %,examples/%.js,chat rooms game poll cursors accounts)
run: $(VENV)/installed ## serve the examples and their pages: a chat at http://127.0.0.1:5000/, and /game/, /poll/, /cursors/, /accounts/
	@exec $(BIN)/wsthreads run $(HANDLERS) --history-messages 1000 --static examples/public --serve-client --host $(HOST) --port $(PORT)

test: $(VENV)/installed-test ## run the tests; for example ARGS="-k browser -x"
	@$(BIN)/python -m tests $(JOBS) $(ARGS)

test-freethreaded: ## run the core of the tests in a Python without a GIL; without python3.13t, builds one, which takes minutes
	@JOBS=$(JOBS) ARGS="$(ARGS)" SANITIZER=$(SANITIZER) tests/freethreaded.sh build/freethreaded

stress: $(VENV)/installed-test ## run the threaded stress test, with injected faults
	@CHAOS=$(CHAOS) $(BIN)/python -m tests.stress --seconds $(SECONDS) --clients $(CLIENTS) --rooms $(ROOMS) \
		$(if $(SEED),--seed $(SEED))

bench: $(VENV)/bin/python ## run the benchmark; for example ONLY=echo-100 ROUNDS=5
	@$(BIN)/python -m tests.bench

conformance: $(VENV)/installed-test ## run the Autobahn Testsuite; for example CASES="1.* 7.1.6" BUILDS="c python" RUNS=10
	@$(BIN)/python -m tests.conformance --runs $(RUNS) --patience $(PATIENCE) \
		$(if $(CASES),--cases "$(CASES)") $(if $(BUILDS),--builds "$(BUILDS)")

# These targets build the C modules with other flags, so they work in a copy.
COPY = rm -rf $(1) && mkdir -p $(1) && \
	cp -r wsthreads tests examples setup.py setup.cfg pyproject.toml README.rst LICENSE $(1) && find $(1) -name '*.so' -delete

# A failed build leaves a C module out, and then an installed one would be tested. So check that they exist.
BUILT = ls wsthreads/_native/_speedups.*.so wsthreads/_native/_bridge.*.so >/dev/null

# Leak detection is off, because Python itself leaks at exit. With SANITIZER=thread, all is slower and a fork hangs. Its
# deadlock detector is off: it aborts if a thread holds more than 64 locks, such as those of a room's members.
SANITIZER ?= address,undefined
sanitize: $(VENV)/installed-test ## test the C modules with SANITIZER=address,undefined, or thread
	@$(call COPY,build/sanitize)
	@cd build/sanitize && CFLAGS="-fsanitize=$(SANITIZER) -fno-sanitize-recover=undefined -g -O1" \
		$(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace && $(BUILT)
	@cd build/sanitize && ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=detect_deadlocks=0 WSTHREADS_TEST_SCALE=5 setarch --addr-no-randomize \
		env LD_PRELOAD="$$($${CC:-cc} -print-file-name=$(if $(filter thread,$(SANITIZER)),libtsan.so,libasan.so))" \
		$(CURDIR)/$(BIN)/python -m pytest -q --capture=sys tests/_native/test_speedups.py tests/javascript/test_bridge.py \
		tests/javascript/test_inbox.py tests/monitoring/test_metrics.py tests/_native/test_rlock.py $(if $(filter thread,$(SANITIZER)),tests/protocol/test_outbox.py tests/rooms/test_rooms.py -k "not forked") $(ARGS)

TARGETS := decode receive handshake script bridge session
fuzz: SECONDS = 60
fuzz: $(VENV)/installed-fuzz ## fuzz each target for SECONDS; for example TARGET="decode receive"
	@command -v clang >/dev/null || { echo "make fuzz needs clang and its runtime: apt-get install clang libclang-rt-14-dev" >&2; exit 1; }
	@$(call COPY,build/fuzz/tree) && mkdir -p build/fuzz/crashes
	@cd build/fuzz/tree && CC=clang LDSHARED="clang -shared" CFLAGS="-fsanitize=address,fuzzer-no-link -g -O1" \
		$(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace && $(BUILT) || \
		{ echo "make fuzz needs clang's runtime: apt-get install libclang-rt-14-dev" >&2; exit 1; }
	@cd build/fuzz/tree && for target in $(or $(TARGET),$(TARGETS)); do \
		echo "== $$target for $(SECONDS) s" && mkdir -p ../corpus/$$target && \
		ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=32 \
		LD_PRELOAD="$$($(CURDIR)/$(BIN)/python -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so" \
		$(CURDIR)/$(BIN)/python -m tests.fuzz $$target -max_total_time=$(SECONDS) -timeout=20 -rss_limit_mb=4096 \
		-artifact_prefix=../crashes/$$target- -verbosity=0 -print_final_stats=1 \
		../corpus/$$target tests/fuzz/corpus/$$target || exit 1; done

screenshots: $(VENV)/installed-test ## update the pictures in examples/pictures, with Chromium; takes two minutes
	@$(BIN)/python -m tests.screenshots

client: $(VENV)/installed-test ## make wsthreads.min.js, which servers serve, after a change of wsthreads.js
	@$(BIN)/python -m tests.client.minify

lint: $(VENV)/installed-lint ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy

docs: $(VENV)/installed-docs ## build the documentation in build/docs; a warning is an error
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs

dist: $(VENV)/installed-dist ## build the sdist and a wheel, and try the wheel in an empty environment
	@$(BIN)/python -m tests.distribution

clean: ## remove all files that other targets have made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("wsthreads needs Python 3.10 or later; choose one with make PYTHON=...") \
		if sys.version_info < (3, 10) else 0'
	@$(PYTHON) -m venv $(VENV)

# Stamp files, one for each set of dependencies. A change of the packaging files makes them outdated.
$(VENV)/installed: $(VENV)/bin/python $(PACKAGING)
	@echo "installing wsthreads into $(VENV)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo "installing what the tests need"
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/installed-fuzz: $(VENV)/installed-test
	@echo "installing atheris"
	@$(PIP) --editable '.[fuzz]'
	@touch $@

$(VENV)/installed-lint: $(VENV)/installed-test
	@echo "installing ruff and mypy"
	@$(PIP) --editable '.[lint]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed-test
	@echo "installing sphinx and furo"
	@$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/installed-dist: $(VENV)/installed-test
	@echo "installing build and twine"
	@$(PIP) --editable '.[dist]'
	@touch $@
