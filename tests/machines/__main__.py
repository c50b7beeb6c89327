"""Many seeds of every machine: `python -m tests.machines --machine all --seeds 0:10000`.

One JSON line for each run goes to a file outside git; runs that it already holds are not repeated,
so a long campaign can be stopped and resumed. A run that failed is made again. Each failure prints
the line that reproduces it; exit code 1 when there was any.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from tests.machines.machines import MACHINES
from tests.machines.model import small_sizes

Run = dict[str, Any]

#: Last steps of a failed run that its line keeps.
LOG_MAX = 12


def run_one(key: tuple[str, int], steps: int) -> Run:
    """One machine with one seed; `error` is None when every check held."""
    name, seed = key
    rng = Random(f"{name} {seed}")
    began, error, machine = time.perf_counter(), None, None
    with small_sizes():
        try:
            machine = MACHINES[name](rng)
            for _ in range(steps):
                machine.step(rng)
            machine.finish()
        except Exception:
            error = traceback.format_exc()
    log = machine.log[-LOG_MAX:] if machine and error else []
    took_s = round(time.perf_counter() - began, 3)
    return {"machine": name, "seed": seed, "steps": steps, "took_s": took_s, "error": error,
            "log": log}  # fmt: skip


def reproduce(run: Run) -> str:
    """The one line that makes the same run again."""
    return (
        f"python -m tests.machines --machine {run['machine']} "
        f"--seeds {run['seed']}:{run['seed'] + 1} --steps {run['steps']}"
    )


def campaign(names: Iterable[str], seeds: range, steps: int, jobs: int, out: Path) -> Iterator[Run]:
    """Every run of the range, those that `out` holds already first."""
    done = set()
    out.parent.mkdir(parents=True, exist_ok=True)
    wanted = {*product(names, seeds)}
    text = out.read_text() if out.exists() else ""
    whole, _, torn = text.rpartition("\n")
    for line in whole.splitlines():
        run = json.loads(line)
        key = (run["machine"], run["seed"])
        if run["steps"] == steps and not run["error"] and key in wanted and key not in done:
            done.add(key)
            yield run
    todo = sorted(wanted - done, key=lambda key: (key[1], key[0]))
    one = partial(run_one, steps=steps)
    with ExitStack() as stack:
        lines = stack.enter_context(out.open("r+" if text else "w"))
        lines.seek(len(text.encode()) - len(torn.encode()))  # A killed run may leave half a line.
        lines.truncate()
        runs: Iterable[Run] = map(one, todo)
        if jobs > 1:
            runs = stack.enter_context(ProcessPoolExecutor(jobs)).map(one, todo, chunksize=8)
        for run in runs:
            print(json.dumps(run), file=lines, flush=True)
            yield run


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.machines", description=__doc__)
    parser.add_argument("--machine", default="all", choices=["all", *MACHINES])
    parser.add_argument("--seeds", default="0:200", help="FROM:TO, TO not included")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(".cache/machines.jsonl"))
    options = parser.parse_args(argv)
    logging.getLogger("btreecache").addHandler(logging.NullHandler())
    os.environ.setdefault("BTREECACHE_VERIFY", "1")
    first, last = map(int, options.seeds.split(":"))
    names = [*MACHINES] if options.machine == "all" else [options.machine]
    ran: Counter[str] = Counter()
    took_s: Counter[str] = Counter()
    failed = 0
    for run in campaign(names, range(first, last), options.steps, options.jobs, options.out):
        ran[run["machine"]] += 1
        took_s[run["machine"]] += run["took_s"]
        if run["error"]:
            failed += 1
            print(f"{run['error']}{run['log']}\n  {reproduce(run)}", file=sys.stderr, flush=True)
    for name in names:
        print(f"{name:<10} {ran[name]} seeds x {options.steps} steps, {took_s[name]:.0f} s")
    print(f"seeds {options.seeds}: {sum(ran.values())} runs, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
