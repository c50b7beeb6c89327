"""How much `serve` does at a time: --max-lists, --max-list-bytes, --max-watches, .."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from btreecache.cli import arguments

if TYPE_CHECKING:
    from btreecache.server.overload import Limits

LISTS, LIST_BYTES, WATCHES = 16, 512 << 20, 20_000


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--max-lists", type=arguments.positive, default=LISTS, metavar="N",
        help="lists of more than a page under way at a time, at most half of them one client's;"
        f" others wait for their turn, then get 429 (default {LISTS})",
    )  # fmt: skip
    parser.add_argument(
        "--max-list-bytes", type=arguments.byte_count, default=LIST_BYTES, metavar="SIZE",
        help="their bytes together (default 512M)",
    )  # fmt: skip
    parser.add_argument(
        "--max-watches", type=arguments.positive, default=WATCHES, metavar="N",
        help=f"watches at a time, at most half of them one client's (default {WATCHES})",
    )  # fmt: skip


def named(options: argparse.Namespace) -> Limits:
    """What the flags say."""
    from btreecache.server.fairness import Bounds
    from btreecache.server.overload import Limits

    return Limits(
        lists=Bounds(turns=options.max_lists, bytes=options.max_list_bytes),
        watches=options.max_watches,
        client_watches=max(1, options.max_watches // 2),
    )
