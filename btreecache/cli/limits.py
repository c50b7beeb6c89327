"""How much `serve` does at a time: --max-lists, --max-list-bytes, --max-watches, .."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from btreecache.cli import arguments

if TYPE_CHECKING:
    from btreecache.server.connection import ConnectionLimits
    from btreecache.server.overload import Limits

LISTS, LIST_BYTES, WATCHES, CONNECTIONS, WRITE_S = 16, 512 << 20, 10_000, 12_000, 60.0


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
    parser.add_argument(
        "--max-connections", type=arguments.positive, default=CONNECTIONS, metavar="N",
        help=f"connections at a time; more get 429 (default {CONNECTIONS})",
    )  # fmt: skip
    parser.add_argument(
        "--write-timeout", type=arguments.duration_s, default=WRITE_S, metavar="DURATION",
        help="cut off a client that takes less than 64 KiB of its answer for so long (default 60s)",
    )  # fmt: skip


def connections(options: argparse.Namespace) -> ConnectionLimits:
    """What the flags say of connections."""
    from btreecache.server.connection import ConnectionLimits

    return ConnectionLimits(connections=options.max_connections, write_s=options.write_timeout)


def lists(options: argparse.Namespace) -> Limits:
    """What the flags say of lists and watches."""
    from btreecache.server.fairness import Bounds
    from btreecache.server.overload import Limits

    return Limits(
        lists=Bounds(turns=options.max_lists, bytes=options.max_list_bytes),
        watches=options.max_watches,
        client_watches=max(1, options.max_watches // 2),
    )
