# Everything goes through .venv, which `make setup` builds from the locked, hashed requirements.
SHELL := /bin/bash
PYTHON ?= $(shell python3 requirements/interpreter.py)
RUST := $(shell python3 requirements/rust.py)
VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/runtime.txt requirements/dev.txt requirements/data.txt
FUZZ := requirements/fuzz.txt
PEERS_LOCK := requirements/peers.txt
COMPILE := $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.DEFAULT_GOAL := help
.PHONY: help setup engine demo test check bench bench-latency bench-herd bench-growth bench-memory bench-recovery chaos simulate soak fuzz lock format picture clean

help:  ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 24

setup: $(VENV)/.ready $(if $(RUST),$(VENV)/.engine)  ## make .venv with a working .venv/bin/streamseg

# A distribution's Python may come without ensurepip; then another one's pip installs into the environment.
PIP = $$($(BIN)/python -m pip --version >/dev/null 2>&1 && echo $(BIN)/python -m pip || echo python3 -m pip --python $(BIN)/python)
INSTALL = $(PIP) --disable-pip-version-check install -q

$(VENV)/.ready: $(LOCKS) pyproject.toml
	@test -x $(BIN)/python || { python="$(PYTHON)"; test -n "$$python" && echo "making $(VENV) with $$python" && \
		{ "$$python" -m venv $(VENV) >/dev/null 2>&1 || "$$python" -m venv --clear --without-pip $(VENV); }; }
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@$(INSTALL) --require-hashes --no-deps -r requirements/data.txt
	@$(INSTALL) --no-build-isolation --no-deps -e .
	@touch $@

# The compiled core needs Rust. Without it the worker runs in pure Python: slower, and to the same bytes.
engine: $(VENV)/.engine  ## build the compiled core into .venv (with Rust's cargo; `make setup` does it where there is one)

$(VENV)/.engine: $(VENV)/.ready engine/Cargo.toml engine/Cargo.lock engine/streamseg_engine.pyi $(wildcard engine/src/*.rs)
	@cd engine && ../$(BIN)/maturin build -q --release --locked --out target/wheels
	@$(INSTALL) --no-deps --force-reinstall engine/target/wheels/*.whl
	@touch $@

demo: setup  ## the whole thing on this machine, on 69,659 real purchases; ends by itself
	$(BIN)/streamseg demo

test: setup  ## all tests, on a real Kafka and Redis that they start themselves (JOBS=2 at a time; PYTEST="tests/core -x")
	$(BIN)/python -m pytest --numprocesses $(or $(JOBS),2) --dist loadfile $(PYTEST)

check: setup  ## linters, types, import contracts, freshness of the locks
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python requirements/freshness.py
	$(if $(RUST),$(if $(shell cargo clippy --version 2>/dev/null),cd engine && cargo fmt --check && cargo clippy -q --locked -- -D warnings))

bench: setup  ## speed of replay and worker beside plain decoding (EVENTS=1000000); beside peers: PEERS=all REPEAT=3 REPORT=1
	$(BIN)/python -m $(if $(PEERS),benchmarks.comparison --peers "$(PEERS)" --repeat $(or $(REPEAT),1) $(if $(REPORT),--report) \
		--events $(or $(EVENTS),2000000),benchmarks.bench --events $(or $(EVENTS),1000000))

bench-latency: setup  ## from an event to its change and to Redis, at several rates (SECONDS=60 RATE=20000 REPORT=1)
	$(BIN)/python -m benchmarks.latency --seconds $(or $(SECONDS),60) $(if $(RATE),--rate $(RATE)) $(if $(REPORT),--report)

bench-herd: setup  ## many deadlines in one second, while other customers go on (CUSTOMERS=100000 REPORT=1)
	$(BIN)/python -m benchmarks.herd --customers $(or $(CUSTOMERS),100000) $(if $(REPORT),--report)

bench-growth: setup  ## CPU of an event as everything grows (ONLY="customers windows" EVENTS=100000 QUICK=1 REPEAT=3 REPORT=1)
	$(BIN)/python -m benchmarks.growth $(if $(ONLY),--only "$(ONLY)") $(if $(EVENTS),--events $(EVENTS)) $(if $(QUICK),--quick) $(if $(REPEAT),--repeat $(REPEAT)) $(if $(REPORT),--report)

bench-memory: setup  ## bytes of a customer, by part, and the formula of docs/operating.md (CUSTOMERS=3000000 QUICK=1 REPORT=1)
	$(BIN)/python -m benchmarks.memory $(if $(CUSTOMERS),--customers "$(CUSTOMERS)") $(if $(QUICK),--quick) $(if $(REPORT),--report)

bench-recovery: setup  ## a worker that starts on a full changelog, beside Faust's own recovery (CUSTOMERS=1000000)
	$(BIN)/python -m benchmarks.recovery --customers $(or $(CUSTOMERS),1000000)

chaos: setup  ## every fault in turn, a table in docs/chaos.md (ONLY="T1 T6" SEED=7 for a part; SHORT=1)
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),1) $(if $(ONLY),--only "$(ONLY)",$(if $(SHORT),,--report)) $(if $(SHORT),--short)

simulate: setup  ## thousands of simulated stories with faults at any step (SEEDS=10000; SEED=7 with its trace; BROKEN=all)
	$(BIN)/python -m tests.simulator $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000)) $(if $(BROKEN),--broken "$(BROKEN)") \
		$(if $(REPORT),--report)

soak: setup  ## steady load with deaths: memory, files, lag, and what became of it all (MINUTES=30, RATE=300)
	$(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),30) --rate $(or $(RATE),300) --seed $(or $(SEED),1)

fuzz: setup  ## inputs made by what they reach in the code (SECONDS=60 TARGET=event|definitions|state)
	@$(INSTALL) --require-hashes -r $(FUZZ)
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(if $(TARGET),--target $(TARGET))

lock:  ## compile the locks anew (UPGRADE=--upgrade for newer versions)
	$(COMPILE) $(UPGRADE) --extra local --extra rocksdb pyproject.toml -o requirements/runtime.txt
	$(COMPILE) $(UPGRADE) --extra local --extra rocksdb --extra parquet --group dev pyproject.toml -o requirements/dev.txt
	$(COMPILE) $(UPGRADE) --universal --group pyproject.toml:fuzz -o $(FUZZ)
	$(COMPILE) $(UPGRADE) --universal --group pyproject.toml:peers -o $(PEERS_LOCK)
	$(BIN)/python requirements/freshness.py --write

format: setup  ## format the code
	$(BIN)/ruff check -q --fix-only .
	$(BIN)/ruff format -q .

clean:  ## remove what was built, and all data of local services
	rm -rf $(VENV) .streamseg .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -prune -exec rm -rf {} +
