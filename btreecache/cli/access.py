"""How to get at an etcd: --cacert, --cert, --key and --user, and what they name."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from btreecache.errors import BadRequest

if TYPE_CHECKING:
    from btreecache.sources.etcd_connection import Access

#: Keeps a password off the command line, where others can read it.
PASSWORD_VARIABLE = "BTREECACHE_ETCD_PASSWORD"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--cacert", metavar="FILE", help="--etcd: trust this PEM; implies TLS")
    parser.add_argument("--cert", metavar="FILE", help="--etcd: our certificate; implies TLS")
    parser.add_argument("--key", metavar="FILE", help="--etcd: its key")
    parser.add_argument(
        "--user",
        metavar="NAME[:PASSWORD]",
        help=f"--etcd: log in; without a password the one in ${PASSWORD_VARIABLE}",
    )


def named(options: argparse.Namespace) -> Access:
    """Read what --cacert, --cert, --key and --user name. Raises BadRequest."""
    from btreecache.sources.etcd_connection import Access

    pems: dict[str, bytes | None] = {}
    for flag in ("cacert", "cert", "key"):
        path = getattr(options, flag)
        try:
            pems[flag] = Path(path).read_bytes() if path is not None else None
        except OSError as error:
            raise BadRequest(f"--{flag} {path}: {error.strerror}") from None
    user = None
    if options.user is not None:
        name, colon, password = options.user.partition(":")
        if not colon:
            password = os.environ.get(PASSWORD_VARIABLE, "")
        if not name or not password:
            raise BadRequest(f"--user needs NAME:PASSWORD, or NAME and ${PASSWORD_VARIABLE}")
        user = name, password
    return Access(pems["cacert"], pems["cert"], pems["key"], user)
