# Every target does its own set-up. PYTHON: 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
READY := $(VENV)/.ready
ETCD_DIR := .cache/etcd
KUBECTL_DIR := .cache/kubectl
POSTGRESQL_DIR := .cache/postgresql
APISERVERS_DIR := .cache/apiservers
SUITES_DIR := .cache/suites
SEED ?= 0
SEEDS ?= 20
# make interop-apiservers FOR=30s: a quick try
FOR ?= 10m
# make compare-apiservers QUESTIONS=1000: so many to each
QUESTIONS ?= 250
# make sim FAULTS="clean drop": only these
FAULTS ?=

export BTREECACHE_VERIFY ?= 1
export BTREECACHE_ETCD_DIR ?= $(ETCD_DIR)
export BTREECACHE_KUBECTL_DIR ?= $(KUBECTL_DIR)
export BTREECACHE_POSTGRESQL_DIR ?= $(POSTGRESQL_DIR)
export BTREECACHE_APISERVERS_DIR ?= $(APISERVERS_DIR)

# make bench SIZES=10000: only these; bench-compare REF=main: the commit to compare with
SIZES ?= 10000 100000 1000000
REF ?= main

.PHONY: check test lint type fmt interop interop-apiservers compare-apiservers interop-suites sim machines bench bench-apiservers bench-etcdsim bench-archive bench-compare bench-plots bench-reads bench-lists bench-transcode fuzz fuzz-wire load constraints \
	clean help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): setup.cfg pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --quiet --editable '.[dev]' --constraint .ci/constraints.txt
	@touch $@

check: $(READY) ## the main job: every snapshot of a simulated history against its ground truth
	@echo 'seed $(SEED)' >&2
	BTREECACHE_VERIFY=0 $(BIN)/btreecache check --sim kubernetes --seed $(SEED)

test: $(READY) ## every test that needs no server, in under 3 minutes
	$(BIN)/pytest -m 'not interop' --numprocesses 3

lint: $(READY) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY) ## mypy --strict
	$(BIN)/mypy

fmt: $(READY) ## format in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

interop: $(READY) ## the tests that speak to a real etcd, kubectl and PostgreSQL, installed into .cache
	.ci/install-etcd $(ETCD_DIR)
	.ci/install-kubectl $(KUBECTL_DIR)
	.ci/install-postgresql $(POSTGRESQL_DIR)
	$(PIP) install --quiet --quiet --editable '.[interop]' --constraint .ci/constraints.txt
	$(BIN)/pytest -m interop --numprocesses 2 --dist loadfile

# Not in CI: the servers are built first, which takes minutes and 5 GB for a while.
interop-apiservers: $(READY) ## real API servers on a real etcd and on etcdsim: make interop-apiservers FOR=30s
	.ci/install-etcd $(ETCD_DIR)
	.ci/install-apiservers $(APISERVERS_DIR)
	$(BIN)/python -m tests.apiservers --for $(FOR) --seed $(SEED)

# Not in CI, for the same reason.
compare-apiservers: $(READY) ## the same questions to real API servers and to btreecache serve, on one etcd
	.ci/install-etcd $(ETCD_DIR)
	.ci/install-apiservers $(APISERVERS_DIR)
	$(BIN)/python -m tests.apiservers.comparing --questions $(QUESTIONS) --seed $(SEED)

bench-apiservers: $(READY) ## what a list costs real API servers and us, on one etcd
	.ci/install-etcd $(ETCD_DIR)
	.ci/install-apiservers $(APISERVERS_DIR)
	@BTREECACHE_VERIFY=0 $(BIN)/python -m tests.apiservers.lists

# Not in CI: two minutes, and some of the tests measure time, which a busy machine hasn't.
interop-suites: $(READY) ## the suites of other clients of etcd, on a real etcd and on etcdsim
	.ci/install-etcd $(ETCD_DIR)
	.ci/install-suites $(SUITES_DIR)
	$(BIN)/python -m tests.suites --suites $(SUITES_DIR) --etcd $(ETCD_DIR)/3.5/etcd

sim: $(READY) ## every fault and none on SEEDS seeds, resumed where it stopped: make sim SEEDS=200
	BTREECACHE_VERIFY=0 $(BIN)/python -m tests.sim --seeds 0:$(SEEDS) $(FAULTS:%=--fault %)

machines: $(READY) ## every state machine on SEEDS seeds of 200 steps, resumed: make machines SEEDS=10000
	$(BIN)/python -m tests.machines --machine all --seeds 0:$(SEEDS) --steps 200 --jobs 2

bench: $(READY) ## the tree and lists beside their rivals: make bench SIZES=10000
	-tests/bench/install-go .cache/bench/go
	@BTREECACHE_VERIFY=0 $(BIN)/python -m tests.bench --sizes $(SIZES)
	@BTREECACHE_VERIFY=0 $(BIN)/python -m tests.bench.lists
	@$(MAKE) --no-print-directory bench-etcdsim bench-archive

bench-etcdsim: $(READY) ## etcdsim serve beside a real etcd in memory, in turn
	.ci/install-etcd $(ETCD_DIR)
	@$(BIN)/python -m tests.bench.etcdsim --etcd $(ETCD_DIR)/3.5/etcd

bench-archive: $(READY) ## an archive beside OOBTree in ZODB, a warm start beside a list from etcd
	.ci/install-etcd $(ETCD_DIR)
	@BTREECACHE_VERIFY=0 $(BIN)/python -m tests.bench.archive --etcd $(ETCD_DIR)/3.5/etcd

bench-compare: $(READY) ## the tree here and at another commit, in turn: make bench-compare REF=main
	@BTREECACHE_VERIFY=0 $(BIN)/python -m tests.bench --sizes $(SIZES) --compare $(REF)

bench-plots: $(READY) ## cost of an update up to 4M keys, memory of a window: SVG in docs/img
	$(PIP) install --quiet --quiet --editable '.[bench]' --constraint .ci/constraints.txt
	@BTREECACHE_VERIFY=0 $(BIN)/python -m tests.bench.plots docs/img

bench-reads: $(READY) ## a walk in pages beside one whole list, and what 10,000 idle watchers cost
	@BTREECACHE_VERIFY=0 $(BIN)/python -m tests.bench.reads
	@BTREECACHE_VERIFY=0 $(BIN)/python -m tests.test_watchers_many

bench-lists: $(READY) ## lists and watch frames beside their rivals; ten lists of 1 GB in constant memory
	$(PIP) install --quiet --quiet --editable '.[bench]' --constraint .ci/constraints.txt
	@BTREECACHE_VERIFY=0 $(BIN)/python -m tests.bench.lists
	@BTREECACHE_VERIFY=0 $(BIN)/python -m tests.bench.memory --plot docs/img/list-memory.svg

bench-transcode: $(READY) ## protobuf <-> JSON beside other parsers
	@$(BIN)/python -m tests.schema measure

fuzz: $(READY) ## hostile requests: make fuzz SEEDS=1000, 1,000 requests each
	$(BIN)/python -m tests.fuzz --seeds 0:$(SEEDS)

# Not in CI, where a sample runs: 100 s, and the machine for itself.
load: $(READY) ## serve with 1,000 watches, 500 writes/s, 54 readers; every answer judged
	.ci/install-etcd $(ETCD_DIR)
	@$(BIN)/python -m tests.load --etcd $(ETCD_DIR)/3.5/etcd --seed $(SEED)

fuzz-wire: $(READY) ## 100,000 malformed requests over a socket, resumed where it stopped
	$(BIN)/python -m tests.fuzz.wire --seeds 0:100

bench-pipeline: $(READY) ## from wire to window, and initial loads: make bench-pipeline OBJECTS=1000000
	BTREECACHE_VERIFY=0 $(BIN)/python -m tests.pipeline $(OBJECTS:%=--objects %)

constraints: ## refresh .ci/constraints.txt with the newest versions that install together
	rm -rf .cache/constraints-venv
	$(PYTHON) -m venv .cache/constraints-venv
	.cache/constraints-venv/bin/pip --disable-pip-version-check install --quiet --quiet --editable '.[dev,bench,interop]'
	.cache/constraints-venv/bin/pip --disable-pip-version-check list --format freeze \
		| grep -viE '^(btreecache|pip|setuptools|wheel)==' > .ci/constraints.txt

clean: ## remove what the targets made
	rm -rf $(VENV) .cache .venvs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
