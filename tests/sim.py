"""Every fault, and none, on many seeds: `python -m tests.sim --seeds 0:50`, or `make sim SEEDS=50`.

A run with an injected fault must end as EXPECTED says, a clean one `consistent`. One JSON line for
each run goes to a file outside git; runs that it already holds are not repeated, so a long campaign
can be stopped and resumed. Exit code 1 when any run in the range ended otherwise.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from btreecache.cli.simulation import Simulation
from btreecache.window import Bounds
from etcdsim import FAULTS, PROFILES

RATE = 0.01

#: What a run with the fault must come to, as in the table of docs/guarantees.md. `survived`: the
#: verdict is consistent. `by feed fault`, `by difference`: how the run must have shown itself.
EXPECTED = {
    "drop": "inconsistent",
    "reorder": "inconsistent by feed fault",
    "split": "inconsistent by feed fault",
    "duplicate": "inconsistent by feed fault",
    "corrupt_value": "inconsistent by difference",
    "corrupt_revision": "inconsistent",
    "duplicate_revision": "inconsistent by feed fault",
    "delay": "survived",
    "late_progress": "survived",
    "early_progress": "inconsistent by feed fault",
    "cancel": "survived",
    "compact_race": "survived",
    "stale": "survived",
    "restart_at_older_revision": "inconsistent by feed fault",
    "lost_delete_at_compaction": "inconsistent",
    "etcd_15220": "inconsistent by feed fault",
    "etcd_15271": "inconsistent by feed fault",
    "etcd_17247": "inconsistent by feed fault",
    "etcd_17529": "inconsistent",
    "etcd_18089": "inconsistent",
    "etcd_20221": "inconsistent by feed fault",
}

Run = dict[str, Any]


def run_one(fault: str, seed: int, objects: int, writes: int) -> Run:
    """One whole check; the profile goes with the seed, so that every fault meets every profile."""
    profile = sorted(PROFILES)[seed % len(PROFILES)]
    simulation = Simulation(
        profile,
        seed=seed,
        objects=objects,
        faults=[] if fault == "clean" else [f"{fault}={RATE}"],
        prefix=b"",
        mode="values",
        bounds=Bounds(age_s=None, revisions=50_000),
    )
    stopping = threading.Event()
    simulation.write(writes, stopping, lambda done: None)
    outcome = simulation.check("all", stopping, lambda done: None)
    return {
        "fault": fault,
        "seed": seed,
        "objects": objects,
        "writes": writes,
        "profile": profile,
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "injected": sum(simulation.simulator.injected.values()),
        "revisions_checked": outcome.revisions_checked,
        "feed_faults": outcome.feed_faults_total,
        "differences": outcome.differences_total,
    }


def is_expected(run: Run) -> bool:
    """Whether the run ended as EXPECTED says."""
    clean = run["verdict"] == "consistent" and not run["feed_faults"] and not run["differences"]
    if run["fault"] == "clean":
        return bool(clean and run["revisions_checked"] > run["writes"])
    if not run["injected"]:
        return False
    match EXPECTED[run["fault"]]:
        case "survived":
            return bool(clean and run["revisions_checked"])
        case "inconsistent by feed fault":
            return bool(run["verdict"] == "inconsistent" and run["feed_faults"])
        case "inconsistent by difference":
            found = run["differences"] and not run["feed_faults"]
            return bool(run["verdict"] == "inconsistent" and found)
        case _:
            return bool(run["verdict"] == "inconsistent")


def reproduce(run: Run) -> str:
    """The one line that makes the same run again."""
    fault = "" if run["fault"] == "clean" else f" --fault {run['fault']}={RATE}"
    return (
        f"btreecache check --sim {run['profile']} --seed {run['seed']} "
        f"--objects {run['objects']} --writes {run['writes']}{fault}"
    )


def campaign(
    faults: Iterable[str], seeds: range, objects: int, writes: int, *, jobs: int, out: Path
) -> Iterator[Run]:
    """Every run of the range, those that `out` holds already first."""
    wanted = {(fault, seed) for fault in faults for seed in seeds}
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        for line in out.read_text().splitlines():
            run = json.loads(line)
            if (run["objects"], run["writes"]) == (objects, writes):
                key = (run["fault"], run["seed"])
                if key in wanted:
                    wanted.discard(key)
                    yield run
    todo = sorted(wanted, key=lambda key: (key[1], key[0]))
    one = partial(run_one, objects=objects, writes=writes)
    with ProcessPoolExecutor(jobs) as pool, out.open("a") as lines:
        for run in pool.map(one, *zip(*todo, strict=True)) if todo else ():
            print(json.dumps(run), file=lines, flush=True)
            yield run


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:50", help="FROM:TO, TO not included")
    parser.add_argument("--fault", action="append", choices=["clean", *FAULTS])
    parser.add_argument("--objects", type=int, default=500)
    parser.add_argument("--writes", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(".cache/sim.jsonl"))
    options = parser.parse_args(argv)
    first, last = map(int, options.seeds.split(":"))
    faults = options.fault or ["clean", *FAULTS]
    verdicts: Counter[tuple[str, str]] = Counter()
    wrong = 0
    for run in campaign(
        faults,
        range(first, last),
        options.objects,
        options.writes,
        jobs=options.jobs,
        out=options.out,
    ):
        verdicts[run["fault"], run["verdict"]] += 1
        if not is_expected(run):
            wrong += 1
            print(f"unexpected: {run}\n  {reproduce(run)}", file=sys.stderr)
    for (fault, verdict), count in sorted(verdicts.items()):
        print(f"{fault:<25} {verdict:<13} {count}")
    print(f"seeds {options.seeds}: {sum(verdicts.values())} runs, {wrong} unexpected")
    return 1 if wrong else 0


if __name__ == "__main__":
    logging.getLogger("btreecache").addHandler(logging.NullHandler())
    sys.exit(main())
