"""`python -m tests.load`: a server under load from other processes, every answer judged.

Exit code 1 if any answer was wrong. What was reached is one object of JSON on stdout.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.interop.etcd_server import EtcdServer
from tests.load import judge, notes
from tests.load.served import Served


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of what. Rates are a second."""

    watches: int = 1_000
    writes: float = 500.0
    walkers: int = 50
    lists: int = 4
    each: int = 5
    size: int = 1_000
    warmup_s: float = 30.0
    seconds: float = 60.0
    seed: int = 0


def run(plan: Plan, etcd: Path, where: Path) -> dict[str, Any]:
    """Put a server under load and judge it; `where` is a directory for what is noted."""
    with EtcdServer(etcd, where, "--unsafe-no-fsync") as source:
        words = source.endpoint, plan.watches, plan.size, plan.seed, where
        with notes.Worker("writer", *words) as writer:
            writer.tell("load", plan.each)
            since = int(writer.heard().split()[0])
            with (
                Served(source.endpoint) as server,
                notes.Worker("watchers", *server.where, plan.watches, since, where) as watchers,
                notes.Worker("readers", *server.where, plan.lists, plan.walkers, where) as readers,
            ):
                watchers.heard()
                readers.tell("go")
                readers.heard()
                samples, window = _under_load(plan, server, writer)
                readers.tell("end")
                readers.heard()
                written = notes.read(where / "written", notes.Written)
                truth = judge.Truth(written, since)
                watchers.tell(sum(map(len, truth.events.values())))
                watchers.heard()
    return _judged(plan, truth, where, samples, window)


Window = tuple[float, float]


def _under_load(
    plan: Plan, server: Served, writer: notes.Worker
) -> tuple[list[tuple[float, float, float]], Window]:
    """Samples of (time, MiB, seconds of CPU) once a second; when the measured part was."""
    writer.tell("write", plan.warmup_s + plan.seconds, plan.writes)
    began_s = time.monotonic() + plan.warmup_s
    samples = []
    while (now_s := time.monotonic()) < began_s + plan.seconds:
        if now_s >= began_s:
            samples.append((now_s, server.memory_mib(), server.cpu_s()))
        time.sleep(min(1.0, plan.seconds / 10))
    writer.heard()
    return samples, (began_s, began_s + plan.seconds)


def _judged(
    plan: Plan,
    truth: judge.Truth,
    where: Path,
    samples: list[tuple[float, float, float]],
    window: Window,
) -> dict[str, Any]:
    reads = notes.read(where / "reads", notes.Read)
    seen = notes.read(where / "seen", notes.Seen)
    compacted = notes.read(where / "compacted", notes.Compacted)
    namespaces = [f"team-{number:04}" for number in range(plan.watches)]
    wrong = judge.wrong_watches(truth, namespaces, seen)
    wrong += judge.wrong_reads(truth, reads, compacted)
    measured = [one for one in reads if window[0] <= one.began_s <= window[1]]
    events = [one for one in seen if window[0] <= one.at_s <= window[1]]
    seconds = window[1] - window[0]
    rss = [mib for _, mib, _ in samples]
    growth = judge.slope([(at_s / 60, mib) for at_s, mib, _ in samples])
    return {
        "plan": asdict(plan),
        "wrong": wrong[: judge.SHOWN_MAX],
        "wrong_count": len(wrong),
        "checked": {
            "lists": sum(one.kind == "list" for one in reads),
            "chains": sum(one.kind == "chain" for one in reads),
            "chains_expired": sum(one.kind == "expired" for one in reads),
            "refused": sum(one.kind == "refused" for one in reads),
            "pages": sum(one.kind == "page" for one in reads),
            "events": len(seen),
        },
        "rates": {
            "writes": round(len({one.revision for one in events}) / seconds, 1),
            "events": round(len(events) / seconds, 1),
            "pages": round(sum(one.kind == "page" for one in measured) / seconds, 1),
            "lists": round(sum(one.kind == "list" for one in measured) / seconds, 2),
        },
        "page_ms": _times([one.seconds for one in measured if one.kind == "page"]),
        "list_ms": _times([one.seconds for one in measured if one.kind == "list"]),
        "event_ms": _times(judge.delays_s(truth, events)),
        "memory_mib": _tenths(rss),
        "memory_growth_percent_a_minute": round(100 * growth * len(rss) / sum(rss), 2),
        "server_cpu": round((samples[-1][2] - samples[0][2]) / (samples[-1][0] - samples[0][0]), 2),
        "load_average": [round(one, 1) for one in os.getloadavg()],
    }


def _tenths(values: list[float]) -> list[float]:
    """The means of ten parts, in order."""
    parts = [values[len(values) * at // 10 : len(values) * (at + 1) // 10] for at in range(10)]
    return [round(sum(part) / len(part), 1) for part in parts if part]


def _times(seconds: list[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(1000 * judge.quantile(seconds, share), 1) for name, share in shares.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--etcd", type=Path, required=True, help="the program of a real etcd")
    for name, default in asdict(Plan()).items():
        flag = "--" + name.removesuffix("_s").replace("_", "-")
        parser.add_argument(flag, dest=name, type=type(default), default=default)
    asked = vars(parser.parse_args())
    etcd = asked.pop("etcd")
    print(f"seed {asked['seed']}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as where:
        found = run(Plan(**asked), etcd, Path(where))
    print(json.dumps(found, indent=1))
    return 1 if found["wrong_count"] else 0


if __name__ == "__main__":
    sys.exit(main())
