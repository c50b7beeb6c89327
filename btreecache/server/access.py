"""Access: by which names a server is asked, who asks, and what nobody is shown.

A name, because any page in a browser could have its own name point at a server that this machine
can reach, and read everything there (DNS rebinding). Over TLS that can't happen: who checks the
certificate has come by a name of it. An address is no name: it points nowhere else.
Who: a client certificate is asked first, then a bearer token, as kube-apiserver does; who has
neither is told so in its words, but for the paths that are public there too. There is no
authorization beyond that: who is known may read everything that is served.
"""

from __future__ import annotations

import csv
import ipaddress
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from btreecache.errors import BadRequest, BtreecacheError, quoted
from btreecache.server.certificates import Certificate, Files, subject
from btreecache.server.failures import failure
from btreecache.server.hidden import refuse_secrets
from btreecache.server.refusals import Forbidden, Unauthorized

log = logging.getLogger(__name__)

#: What everybody may ask, as the role system:public-info-viewer says.
PUBLIC = frozenset(("/healthz", "/livez", "/readyz", "/version", "/version/"))


@dataclass(frozen=True, slots=True)
class User:
    """Who asks, in Kubernetes' terms."""

    name: str
    groups: tuple[str, ...] = ()


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class Tokens:
    """A static token file, as kube-apiserver's: CSV of token, user name, user uid and, quoted and
    with commas between them, groups. Only digests of the tokens are kept.

    Raises BadRequest for a file that can't be read or isn't one, and names the line.
    """

    def __init__(self, path: Path) -> None:
        self.files = Files(path)
        self._path = path
        self._users = self._read()

    def reload(self) -> None:
        """Read the file again. Raises BadRequest; then the tokens stay what they were."""
        self.files.read()
        self._users = self._read()

    def user(self, token: bytes) -> User | None:
        """Whose it is. In a time that tells nothing of how much of a token was right."""
        digest = _digest(token)
        found = None
        for known, user in self._users.items():
            if compare_digest(known, digest):
                found = user
        return found

    def _read(self) -> dict[bytes, User]:
        users: dict[bytes, User] = {}
        try:
            with self._path.open(encoding="utf-8", newline="") as file:
                rows = csv.reader(file, strict=True)
                for row in rows:
                    if row:
                        self._add(users, rows.line_num, [cell.strip() for cell in row])
        except OSError as error:
            raise BadRequest(f"token file {self._path}: {error.strerror}") from None
        except (csv.Error, UnicodeDecodeError):
            raise BadRequest(f"token file {self._path}: it is no CSV in UTF-8") from None
        if not users:
            raise BadRequest(f"token file {self._path}: there is no token in it")
        return users

    def _add(self, users: dict[bytes, User], line: int, row: list[str]) -> None:
        # What a line holds is never said: it may be the token.
        if len(row) < 3 or not all(row[:2]):
            raise BadRequest(
                f"token file {self._path}, line {line}: it must have at least 3 columns (token,"
                f" user name, user uid), found {len(row)}"
            )
        token, name = row[:2]
        groups = tuple(group.strip() for group in row[3].split(",") if group) if row[3:] else ()
        if users.setdefault(_digest(token.encode()), _known(name, groups)).name != name:
            raise BadRequest(f"token file {self._path}, line {line}: a token of two users")


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a server is to be reached.

    certificate      the server's, and whose client certificates count; None: no TLS
    tokens           who has which token; None: tokens aren't looked at
    is_local         it listens on loopback only
    host_names       names that it has besides
    allow_secrets    Secrets are shown
    """

    certificate: Certificate | None = None
    tokens: Tokens | None = None
    is_local: bool = True
    host_names: frozenset[str] = frozenset()
    allow_secrets: bool = False

    @property
    def authenticates(self) -> bool:
        """Whether somebody unknown is turned away."""
        return bool(self.tokens or (self.certificate and self.certificate.asks_clients))

    async def refresh(self) -> None:
        """Read again what has changed."""
        self.reload(only_changed=True)

    def reload(self, *, only_changed: bool = False) -> None:
        """Read certificate and tokens again: new connections and requests see them. What can't be
        read stays as it was."""
        for part in (self.certificate, self.tokens):
            if part is None or (only_changed and not part.files.changed()):
                continue
            try:
                part.reload()
            except BadRequest as error:
                log.error("not reloaded, what was there goes on: %s", quoted(str(error)))
            else:
                log.info("reloaded: %s", quoted(part.files.names()))

    def check_host(self, host: str | None) -> None:
        """Raises Forbidden unless the Host header names this server. There is none in HTTP/1.0."""
        if host is None or self.certificate is not None:
            return
        name = host.rpartition("]")[0].removeprefix("[") if "]" in host else host.partition(":")[0]
        if is_loopback(name) or name.lower() in self.host_names:
            return
        if self.is_local:
            raise Forbidden(f"host {quoted(host)}: this server answers to names of loopback only")
        if not is_address(name):
            raise Forbidden(f"host {quoted(host)}: this is none of the names of this server")

    def user(self, authorization: str | None, peer: Mapping[str, object] | None) -> User | None:
        """Who asks; None for somebody who says nothing. `peer`: a client certificate that was
        verified. Raises Unauthorized for a token that isn't known."""
        if not self.authenticates:
            return ANONYMOUS
        if peer:
            name, groups = subject(peer)
            if name:
                return _known(name, groups)
        token = _bearer(authorization)
        if self.tokens is None or not token:
            return None
        found = self.tokens.user(token)
        if found is None:
            raise Unauthorized
        return found


class Access:
    """The layer that lets requests in: `scope["user"]` says who asks from there on."""

    def __init__(self, app: ASGIApp, entrance: Entrance) -> None:
        self._app = app
        self._entrance = entrance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            self._let_in(request)
        except BtreecacheError as error:
            await failure(error, request)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _let_in(self, request: Request) -> None:
        scope, headers = request.scope, request.headers
        self._entrance.check_host(headers.get("host"))
        peer = scope.get("state", {}).get("peercert")
        user = self._entrance.user(headers.get("authorization"), peer)
        if user is None:
            if scope["path"] not in PUBLIC:
                raise Unauthorized
            user = ANONYMOUS
        scope["user"] = user
        if not self._entrance.allow_secrets:
            refuse_secrets(scope["path"], scope["method"], request.query_params, user.name)


def is_loopback(host: str) -> bool:
    """Whether a host, without brackets, is loopback by what it is called: nothing is resolved."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Whether a host, without brackets, is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _known(name: str, groups: Iterable[str]) -> User:
    return User(name, (*groups, "system:authenticated"))


def _bearer(authorization: str | None) -> bytes:
    """The token of an Authorization header, b"" if it is something else."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    # A header is text by its bytes (latin-1), a file of tokens is UTF-8.
    return token.partition(" ")[0].encode("latin-1") if scheme.lower() == "bearer" else b""


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()
