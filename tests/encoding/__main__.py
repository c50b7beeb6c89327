"""Many random lists against the oracle: `python -m tests.encoding --lists 10000`."""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import sys

from tests.encoding.check import check


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.encoding")
    parser.add_argument("--lists", type=int, default=10_000, help="how many (default 10000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    arguments = parser.parse_args()
    failed = 0
    for seed in range(arguments.first, arguments.first + arguments.lists):
        try:
            check(seed)
        except AssertionError as error:
            failed += 1
            print(f"seed {seed}: {str(error)[:500]}")
    print(f"{arguments.lists} lists, {failed} differ from the oracle")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
