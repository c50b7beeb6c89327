"""Traces of a real etcd, clean and changed: `python -m tests.traces --seeds 0:5000`.

Each seed is one short multi-client recording, of etcd 3.5 if the seed is even, else 3.4. It must
validate clean, and one change of each kind must be judged as labelled. One JSON line for each seed
goes to a file outside git; seeds that it already holds are not repeated, so a long campaign can be
stopped and resumed. Exit code 1 when any seed in the range went otherwise.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from etcdsim.prng import Prng
from etcdsim.record_etcd import record_etcd
from etcdsim.trace import write_trace
from etcdsim.validate import overall, validate
from tests.interop.etcd_server import EtcdServer
from tests.trace_changes import changes

VERSIONS = ("3.5", "3.4")
DURATION_S = 0.1
BLOCK = 25  # seeds for one pair of servers

Run = dict[str, Any]


def run_one(endpoint: str, seed: int, duration_s: float = DURATION_S) -> Run:
    """Record, validate, and validate every change."""
    trace = record_etcd(
        endpoint,
        duration_s,
        clients=2 + seed % 3,
        seed=seed,
        clock=time.monotonic,
        compact=seed % 4 < 2,
    )
    verdicts = validate(trace)
    refused: Counter[str] = Counter()
    wrong = []
    for change in changes(trace, Prng(seed)):
        found = validate(change.trace)
        if not change.is_met_by(found):
            wrong.append([change.name, change.guarantee, [str(one) for one in found]])
        refused[change.state] += 1
    responses = [response for watch in trace.watches for response in watch.responses]
    kept = io.BytesIO()
    if overall(verdicts) != "valid" or wrong:
        write_trace(trace, kept)  # no seed brings it back
    return {
        "seed": seed,
        "etcd": trace.header.version,
        "verdict": overall(verdicts),
        "detail": [str(verdict) for verdict in verdicts if verdict.state != "valid"],
        "writes": len(trace.writes),
        "compactions": len(trace.compactions),
        "watches": len(trace.watches),
        "responses": len(responses),
        "events": sum(len(response.events) for response in responses),
        "marks": sum(response.kind == "progress" for response in responses),
        "changes": dict(refused),
        "wrong": wrong,
        "trace": kept.getvalue().decode(),
    }


@contextmanager
def server(etcd_dir: Path, version: str) -> Iterator[EtcdServer]:
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() else None
    data = Path(tempfile.mkdtemp(prefix="btreecache-etcd-", dir=base))
    try:
        with EtcdServer(etcd_dir / version / "etcd", data) as one:
            yield one
    finally:
        shutil.rmtree(data)


def run_block(etcd_dir: Path, seeds: list[int]) -> list[Run]:
    """Some seeds on one server of each version."""
    with ExitStack() as stack:
        servers = [stack.enter_context(server(etcd_dir, version)) for version in VERSIONS]
        return [run_one(servers[seed % len(servers)].endpoint, seed) for seed in seeds]


def campaign(etcd_dir: Path, seeds: range, *, jobs: int, out: Path) -> Iterator[Run]:
    """Every seed of the range, those that `out` holds already first."""
    wanted = set(seeds)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        for line in out.read_text().splitlines():
            run = json.loads(line)
            if run["seed"] in wanted:
                wanted.discard(run["seed"])
                yield run
    todo = sorted(wanted)
    blocks = [todo[first : first + BLOCK] for first in range(0, len(todo), BLOCK)]
    with ProcessPoolExecutor(jobs) as pool, out.open("a") as lines:
        for runs in pool.map(run_block, [etcd_dir] * len(blocks), blocks):
            for run in runs:
                lines.write(json.dumps(run) + "\n")
                lines.flush()
                yield run


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:50", help="FROM:TO, TO not included")
    parser.add_argument("--etcd-dir", type=Path, default=Path(".cache/etcd"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(".cache/traces.jsonl"))
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # here and in the workers: servers end
    first, last = map(int, options.seeds.split(":"))
    totals: Counter[str] = Counter()
    for run in campaign(options.etcd_dir, range(first, last), jobs=options.jobs, out=options.out):
        totals.update([f"etcd {run['etcd']} {run['verdict']}"])
        totals.update({f"changes {state}": count for state, count in run["changes"].items()})
        totals.update({name: run[name] for name in ("watches", "responses", "events", "marks")})
        if run["verdict"] != "valid" or run["wrong"]:
            totals["seeds wrong"] += 1
            sys.stdout.write(
                f"seed {run['seed']}: {run['verdict']} {run['detail']} {run['wrong']}\n"
            )
    sys.stdout.write(" ".join(f"{name}={count}" for name, count in sorted(totals.items())) + "\n")
    return int(totals["seeds wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
