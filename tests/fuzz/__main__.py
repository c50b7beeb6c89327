"""Many seeds of hostile requests: `python -m tests.fuzz --seeds 0:1000 --requests 1000`.

One JSON line for each seed goes to a file outside git; seeds that it already holds are not
repeated, so a long campaign can be stopped and resumed. A seed with violations is run again. Each
violation prints the line that reproduces it; exit code 1 when there was any.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.fuzzer import Run, run_one

#: What one request, of a megabyte at most, should cost: told when it is more, never a failure.
SLOW_S, MUCH_MB = 1.0, 64.0


def reproduce(run: Run) -> str:
    """The one line that makes the same run again."""
    seed = run["seed"]
    return f"python -m tests.fuzz --seeds {seed}:{seed + 1} --requests {run['requests']} --out -"


def campaign(seeds: range, requests: int, out: Path | None) -> Iterator[Run]:
    """Every seed of the range, those that `out` holds already first."""
    if out is None:
        yield from (run_one(seed, requests) for seed in seeds)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    text = out.read_text() if out.exists() else ""
    whole, _, torn = text.rpartition("\n")
    done = set()
    for line in whole.splitlines():
        run = json.loads(line)
        wanted = run["seed"] in seeds and run["seed"] not in done
        if wanted and run["requests"] == requests and not run["violations"]:
            done.add(run["seed"])
            yield run
    with out.open("r+" if text else "w") as lines:
        lines.seek(len(text.encode()) - len(torn.encode()))  # A killed run may leave half a line.
        lines.truncate()
        for seed in seeds:
            if seed not in done:
                run = run_one(seed, requests)
                print(json.dumps(run), file=lines, flush=True)
                yield run


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seeds", default="0:20", help="FROM:TO, TO not included")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--out", default=".cache/fuzz.jsonl", help="-: nowhere")
    options = parser.parse_args(argv)
    logging.getLogger("btreecache").addHandler(logging.NullHandler())
    first, last = map(int, options.seeds.split(":"))
    out = None if options.out == "-" else Path(options.out)
    outcomes: Counter[str] = Counter()
    seeds, took_s, slow, much = 0, 0.0, 0, 0
    for run in campaign(range(first, last), options.requests, out):
        seeds += 1
        took_s += run["took_s"]
        outcomes.update(run["outcomes"])
        for violation in run["violations"]:
            where = f"seed {run['seed']}, request {violation['index']}: {violation['request']}"
            print(f"{violation['error']}  {where}\n  {reproduce(run)}", file=sys.stderr, flush=True)
        if run["slowest_s"] > SLOW_S:
            slow += 1
            print(f"seed {run['seed']}: {run['slowest_s']} s: {run['slowest']}", file=sys.stderr)
        if run["most_mb"] > MUCH_MB:
            much += 1
            print(f"seed {run['seed']}: {run['most_mb']} MB: {run['biggest']}", file=sys.stderr)
    for outcome, count in sorted(outcomes.items()):
        print(f"{outcome:<10} {count}")
    print(f"seeds with a request over {SLOW_S:g} s: {slow}; over {MUCH_MB:g} MB: {much}")
    print(f"seeds {options.seeds}: {seeds} x {options.requests} requests, {took_s:.0f} s, "
          f"{outcomes['violation']} violations")  # fmt: skip
    return 1 if outcomes["violation"] else 0


if __name__ == "__main__":
    sys.exit(main())
