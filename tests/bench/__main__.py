"""`python -m tests.bench`: the table; `--compare REF`: this tree against another commit's.

The table goes to stdout, progress to stderr, the figures to a JSON file with machine, date and
commit. See docs/performance.md.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.harness import GO, ROOT, ROWS, run_size
from tests.bench.rivals import RIVALS
from tests.bench.table import table

OURS = "btreecache"


def git(*words: str) -> str:
    """What git says; empty outside of a repository."""
    run = subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    return run.stdout.strip()


def conditions() -> dict[str, Any]:
    """What a figure means nothing without."""
    cpu = Path("/proc/cpuinfo")
    model = [x for x in cpu.read_text().splitlines() if "model name" in x] if cpu.exists() else []
    return {
        "commit": git("rev-parse", "--short=12", "HEAD") or "none",
        "changed": bool(git("status", "--porcelain", "--", "btreecache")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": (model[0].split(":")[1].strip() if model else platform.machine()),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


@contextmanager
def worktree(ref: str) -> Iterator[Path]:
    """The tree of another commit, laid out beside this one."""
    commit = git("rev-parse", "--short=12", f"{ref}^{{commit}}")
    if not commit:
        sys.exit(f"bench: no commit {ref}")
    path = ROOT / ".cache/bench/trees" / commit
    if not path.exists():
        path.mkdir(parents=True)
        archive = subprocess.run(
            ["git", "archive", commit, "btreecache"], cwd=ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(path)], input=archive.stdout, check=True)
    yield path


def say(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    names = [OURS, GO, *[name for name in RIVALS if name != OURS]]
    parser.add_argument("--rivals", nargs="+", choices=names, default=names)
    parser.add_argument("--rows", nargs="+", help="only rows that start with one of these")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=0.1, help="seconds of one round")
    parser.add_argument("--compare", metavar="REF", help="only btreecache, here and at REF")
    args = parser.parse_args()
    rows = [row for row in ROWS if not args.rows or row.name.startswith(tuple(args.rows))]
    chosen = [OURS, *[name for name in args.rivals if name != OURS]]
    about, cells, absent = conditions(), [], {}
    kept = ROOT / ".cache/bench" / f"{about['commit']}.json"
    if args.compare:
        with worktree(args.compare) as path:
            chosen = [OURS, f"{OURS}@{path}"]
            kept = kept.with_name(f"{about['commit']}-{path.name}.json")
    for size in args.sizes:
        some, absent = run_size(
            size, chosen, rows, rounds=args.rounds, budget_s=args.budget, say=say
        )
        cells += some
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(about | {"absent": absent, "cells": cells}, indent=1))
    print(" · ".join(f"{key} {value}" for key, value in about.items()))
    for line in table(cells, chosen, absent, OURS):
        print(line.replace(str(ROOT / ".cache/bench/trees") + "/", ""))
    say(f"kept in {kept.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
