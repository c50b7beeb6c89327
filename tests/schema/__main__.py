"""Make the table of the Kubernetes API types, prove it, measure what goes by it.

    python -m tests.schema make ROOT [ROOT ..] --origin TEXT .. [--kind v1.Pod ..]   > schema.txt
    python -m tests.schema check ROOT [ROOT ..]       against the .proto files of each tree
    python -m tests.schema golden FOLDER ..           against upstream's own pairs of .json and .pb
    python -m tests.schema measure                    speed, beside other ways

ROOT: a folder that holds api/, apimachinery/ and so on, the newest first: the folder `k8s.io` of an
unpacked golang-k8s-api-dev, or `staging/src/k8s.io` of Kubernetes' own sources.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.schema import golden, measure
from tests.schema.table import Table, Types, check_proto

HEADER = """\
# Facts of the Kubernetes API types, from the struct tags of their Go sources (Apache-2.0):
{origins}
# Made by `python -m tests.schema make`; what the lines mean stands in codec/schema.py."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command. 0, or 1 where something differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.schema")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make")
    make.add_argument("--origin", action="append", default=[])
    make.add_argument("--kind", action="append", default=[])
    check = commands.add_parser("check")
    for command in (make, check):
        command.add_argument("roots", type=Path, nargs="+")
    commands.add_parser("golden").add_argument("folders", type=Path, nargs="+")
    commands.add_parser("measure")
    given = parser.parse_args(arguments)
    if given.command == "make":
        table = Table(Types(given.roots), given.kind)
        origins = "\n".join(f"#     {origin}" for origin in given.origin)
        sys.stdout.write(table.text(HEADER.format(origins=origins)))
        return 0
    if given.command == "check":
        table = Table(Types(given.roots))
        agree, wrong = check_proto(table, given.roots[0])
        golden.say("\n".join([*wrong, f"{agree} fields agree, {len(wrong)} do not"]))
        return int(bool(wrong))
    if given.command == "golden":
        return golden.compare(given.folders)
    measure.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
