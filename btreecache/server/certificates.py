"""Certificates: the TLS that a server speaks, and who a client's certificate says it is."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from btreecache.errors import BadRequest


class Files:
    """Whether files have changed since they were read. One thread."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self.read()

    def read(self) -> None:
        """They are being read now."""
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether one of them isn't what was read."""
        return self._look() != self._seen

    def names(self) -> str:
        """What they are called."""
        return ", ".join(map(str, self._paths))

    def _look(self) -> list[tuple[int, ...] | None]:
        seen: list[tuple[int, ...] | None] = []
        for path in self._paths:
            try:
                found = path.stat()
                seen.append((found.st_mtime_ns, found.st_size, found.st_ino))
            except OSError:
                seen.append(None)
        return seen


class Certificate:
    """A server's certificate and key, and the authority whose client certificates count.

    Raises BadRequest for files that can't be used. The context is one for the server's life.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self.files = Files(cert, key)
        self.asks_clients = client_ca is not None
        self._cert, self._key = cert, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["http/1.1"])
        self._load(self.context)
        if client_ca is not None:
            # Not required: who has none may have a token.
            self.context.verify_mode = ssl.CERT_OPTIONAL
            try:
                self.context.load_verify_locations(client_ca)
            except (OSError, ssl.SSLError) as error:
                raise BadRequest(f"client CA {client_ca}: {_said(error)}") from None

    def reload(self) -> None:
        """Read certificate and key again, for the connections that come. Raises BadRequest; then
        they stay what they were. The client CA is that of the start: OpenSSL can't forget one."""
        self.files.read()
        # First into another: a certificate without its key would be kept even though it's refused.
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._load(self.context)

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # A password can't be asked for: a server has nobody in front of it.
            context.load_cert_chain(self._cert, self._key, password="")
        except (OSError, ssl.SSLError, ValueError) as error:
            said = f"certificate {self._cert}, key {self._key}: {_said(error)}"
            raise BadRequest(said) from None


def subject(peer: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
    """Common name and organizations of a certificate as `SSLSocket.getpeercert` gives it: user and
    groups, as Kubernetes reads it. "" if it names nobody."""
    name, groups = "", []
    found = peer.get("subject")
    for relative in found if isinstance(found, tuple) else ():
        for kind, value in relative:
            if kind == "commonName":
                name = value
            elif kind == "organizationName":
                groups.append(value)
    return name, tuple(groups)


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it can't be used").lower().replace("_", " ")
    return (isinstance(error, OSError) and error.strerror) or "it can't be used"
