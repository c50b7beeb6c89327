"""`btreecache features`: the feature gates, what each one does and what it is without it."""

from __future__ import annotations

import argparse
from typing import Any

from btreecache.features import GATES


def add_parser(commands: Any) -> None:
    """Declare the command and its flags."""
    parser = commands.add_parser(
        "features", help="list the feature gates", description=__doc__, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def run(_: argparse.Namespace) -> int:
    """Print every gate; the exit code."""
    for gate in GATES:
        print(f"{gate}\n  on:  {gate.on}\n  off: {gate.off}")
    return 0
