"""Real API servers on a real etcd and on etcdsim: `python -m tests.apiservers --for 10m`.

Each store in turn gets both servers and the same seeded traffic; every answer is held against the
client's own record. Then the warnings and errors of the servers' logs are compared: one of level
error that only the simulator causes is a failure, as is a wrong answer. One JSON line for each run
goes to a file outside git. Exit code 1 when there was a failure.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from tests.apiservers.logs import errors
from tests.apiservers.run import STORES, Result, run
from tests.apiservers.servers import EXTENSIONS, KUBE

_UNITS_S = {"s": 1, "m": 60, "h": 3600}


def duration_s(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smh])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"not a duration such as 30s or 10m: {text!r}")
    return int(match[1]) * _UNITS_S[match[2]]


def report(result: Result) -> None:
    """What happened in a run, a few lines."""
    print(f"{result['store']}: {result['took_s']} s, revision {result['revision']}, "
          f"{result['compactions']} compactions asked")  # fmt: skip
    for name, server in result["servers"].items():
        print(f"  {name}: ready after {server['ready_after_s']} s, {server['requests']} requests, "
              f"{server['watch_events']} watch events, {len(server['wrong'])} wrong answers, "
              f"exit code {server['exit_code']}")  # fmt: skip
        for wrong in server["wrong"]:
            print(f"    {wrong}")


def compare(control: Result, simulated: Result) -> bool:
    """Prints what only one of the two caused; whether the simulator caused an error of its own."""
    failed = False
    for name, server in simulated["servers"].items():
        here = set(server["complaints"])
        there = set(control["servers"][name]["complaints"])
        print(f"{name}: {len(here & there)} complaints on both stores")
        for store, only in (("etcdsim", here - there), ("etcd", there - here)):
            for complaint in sorted(only):
                print(f"  on {store} only: {complaint}")
        failed = failed or bool(errors(here - there))
    return failed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.apiservers", description=__doc__)
    parser.add_argument("--for", dest="for_s", type=duration_s, default=duration_s("10m"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=6.0, help="steps a second of each resource")
    parser.add_argument("--store", choices=STORES, action="append", help="default: one by one")
    parser.add_argument(
        "--server", choices=(KUBE, EXTENSIONS), action="append", help="default: traffic on both"
    )
    parser.add_argument("--etcd", type=Path, default=Path(".cache/etcd/3.5/etcd"))
    parser.add_argument("--out", type=Path, default=Path(".cache/apiservers.jsonl"))
    parser.add_argument("--logs", type=Path, default=Path(".cache/apiservers-logs"))
    options = parser.parse_args(argv)
    results = {}
    for store in options.store or STORES:
        result = run(
            store, options.etcd, options.seed, options.for_s, options.rate, options.logs,
            options.server or (KUBE, EXTENSIONS),
        )  # fmt: skip
        results[store] = result
        with options.out.open("a") as out:
            print(json.dumps(result, ensure_ascii=False), file=out, flush=True)
        report(result)
    wrong = any(server["wrong"] for one in results.values() for server in one["servers"].values())
    both = len(results) == len(STORES)
    return int((both and compare(results["etcd"], results["etcdsim"])) or wrong)


if __name__ == "__main__":
    sys.exit(main())
