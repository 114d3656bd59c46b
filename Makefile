# Every target works from a clean clone on Debian 12, as root and as an ordinary user. What it needs
# and the machine lacks is installed first (scripts/setup) or named in one line.

.PHONY: build wheel test torture load bench bench-micro demo schedules fuzz lint clean setup

# Everything runnable in target/release: zenith and, beside it, what it starts and loads.
build: setup
	@scripts/build

# The Python package, in target/wheels, and installed in target/venv.
wheel: setup
	@scripts/wheel

# All tests: the crates' own and the suite in test_runner. ARGS='-k branch' picks some of the latter.
test:
	@scripts/test $(ARGS)

# The random workload: SEED=123 does that one again, MINUTES=60 new ones for an hour. STEPS says how
# long one is.
torture:
	@scripts/torture $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS)) \
		$(if $(MINUTES),--minutes $(MINUTES))

# What must hold under concurrent load, for SECONDS (60) each: pages of the past with caches of all sizes, and
# restarts of the page server that no client notices. Part of make test, for a few seconds.
load:
	@ZENITH_LOAD_SECONDS=$(or $(SECONDS),60) scripts/pytest \
		test_runner/regress/test_reads_under_load.py test_runner/regress/test_page_server_restart.py

# Measures beside stock PostgreSQL, and prints one table (test_runner/bench/README.md). ONLY names a part.
bench:
	@scripts/bench $(ONLY) $(if $(BRANCHES),--branches $(BRANCHES)) $(if $(SCALE),--scale $(SCALE)) \
		$(if $(TRANSACTIONS),--transactions $(TRANSACTIONS))

# Micro-benchmarks, with criterion: ONLY names one of lookups, redo, decode, ingest, page_service.
bench-micro: setup
	@scripts/bench-micro $(ONLY)

# The whole idea on a real database, in a scratch folder. DEMO_KEEP=1 leaves it running,
# DEMO_SCALE sets pgbench's scale.
demo: build
	@scripts/demo

# PostgreSQL's own regression and isolation schedules on a compute beside a stock server: their results
# must be the same. PG_SOURCE=DIR is a source tree of PostgreSQL 15, which is not part of this repository.
schedules: build
	@scripts/schedules "$(PG_SOURCE)"

# One fuzz target under libFuzzer, for SECONDS (60). make fuzz lists them. Needs cargo-fuzz.
fuzz:
	@scripts/fuzz $(TARGET) $(SECONDS)

lint: setup
	@scripts/lint

setup:
	@scripts/setup

clean:
	cargo clean
