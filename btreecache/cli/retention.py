"""How much of an archive is kept: --keep-age, --keep-revisions, --keep-bytes, --thin."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from btreecache.cli import arguments

if TYPE_CHECKING:
    from btreecache.archive import Retention

#: All of the last hour, one checkpoint a minute of the last day, one an hour of what is older.
THINNED = "1h=1m,24h=1h"


def add_flags(parser: argparse.ArgumentParser, forget: str) -> None:
    """Declare them. `forget`: when it is forgotten, as in "first forget"."""
    parser.add_argument(
        "--keep-age", type=arguments.duration_s, metavar="DURATION",
        help=f"{forget} what is older",
    )  # fmt: skip
    parser.add_argument(
        "--keep-revisions", type=arguments.positive, metavar="N",
        help=f"{forget} all but so many batches",
    )  # fmt: skip
    parser.add_argument(
        "--keep-bytes", type=arguments.byte_count, metavar="SIZE",
        help=f"{forget} what is older than the groups that took so much (500M, 10G)",
    )  # fmt: skip
    parser.add_argument(
        "--thin", nargs="?", type=_thinning, const=_thinning(THINNED), default=(),
        metavar="AGE=INTERVAL,..",
        help=f"{forget} all but one checkpoint an interval of what is older than an age"
        f" (without a value: {THINNED})",
    )  # fmt: skip


def is_named(options: argparse.Namespace) -> bool:
    """Whether any of the flags was given."""
    return bool(options.keep_age or options.keep_revisions or options.keep_bytes or options.thin)


def named(options: argparse.Namespace) -> Retention:
    """What the flags say."""
    from btreecache.archive import Retention

    return Retention(options.keep_age, options.keep_revisions, options.keep_bytes, options.thin)


def _thinning(text: str) -> tuple[tuple[float, float], ...]:
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    found = [(arguments.duration_s(age), arguments.duration_s(every)) for age, every in pairs]
    if found != sorted(found):
        raise argparse.ArgumentTypeError(f"ages must ascend: {text!r}")
    return tuple(found)
