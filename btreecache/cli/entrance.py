"""How `serve` is reached: --listen, --tls-*, --token-auth-file, --insecure, --allow-secrets, .."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from btreecache.errors import BadRequest

if TYPE_CHECKING:
    from btreecache.server.access import Entrance

LISTEN = "127.0.0.1:8080"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--listen", default=LISTEN, metavar="HOST:PORT",
        help=f"an address of this machine; port 0 is any that is free (default {LISTEN})",
    )  # fmt: skip
    parser.add_argument(
        "--tls-cert-file", type=Path, metavar="FILE", help="serve TLS, with this PEM chain"
    )
    parser.add_argument("--tls-private-key-file", type=Path, metavar="FILE", help="its key")
    parser.add_argument(
        "--client-ca-file", type=Path, metavar="FILE",
        help="who has a certificate of this authority is let in: CN is the user, O the groups",
    )  # fmt: skip
    parser.add_argument(
        "--token-auth-file", type=Path, metavar="FILE",
        help="who has one of these bearer tokens is let in: lines of token,user,uid[,\"groups\"]",
    )  # fmt: skip
    parser.add_argument(
        "--host-name", action="append", default=[], metavar="NAME",
        help="answer to this name too, without TLS; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--insecure", action="store_true",
        help="listen beyond loopback without TLS or authentication: everybody there may read all",
    )  # fmt: skip
    parser.add_argument(
        "--allow-secrets", action="store_true", help="serve Secrets; else they are forbidden"
    )


def named(options: argparse.Namespace) -> tuple[str, int, Entrance]:
    """Where to listen, and for whom. Raises BadRequest."""
    from btreecache.server import listening
    from btreecache.server.access import Entrance, Tokens, is_loopback
    from btreecache.server.certificates import Certificate

    cert, key = options.tls_cert_file, options.tls_private_key_file
    if bool(cert) != bool(key):
        raise BadRequest("--tls-cert-file and --tls-private-key-file go together")
    if options.client_ca_file and not cert:
        raise BadRequest("--client-ca-file needs --tls-cert-file")
    certificate = Certificate(cert, key, options.client_ca_file) if cert else None
    tokens = Tokens(options.token_auth_file) if options.token_auth_file else None
    is_safe = certificate is not None and (tokens is not None or certificate.asks_clients)
    host, port = listening.parse_listen(options.listen, anywhere=options.insecure or is_safe)
    for path in (options.token_auth_file, key):
        if path and path.stat().st_mode & 0o004:
            print(f"warning: everybody on this machine can read {path}", file=sys.stderr)
    names = frozenset(name.lower() for name in options.host_name)
    return host, port, Entrance(
        certificate, tokens, is_local=is_loopback(host), host_names=names,
        allow_secrets=options.allow_secrets,
    )  # fmt: skip
