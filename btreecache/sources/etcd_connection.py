"""A connection to one etcd endpoint on blocking gRPC: its address, its calls, what errors mean.

grpcio is loaded when a connection is made, not when this module is imported.
"""

from __future__ import annotations

import importlib
import ipaddress
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from btreecache.errors import (
    BadRequest,
    BtreecacheError,
    Compacted,
    FutureRevision,
    MissingExtra,
    SourceError,
    Unavailable,
)
from etcdsim import wire

COMPACTED_TEXT = "mvcc: required revision has been compacted"
_FUTURE_TEXT = "mvcc: required revision is a future revision"
_TOO_MANY_REQUESTS_TEXT = "etcdserver: too many requests"

#: Codes after which trying again may help. The Go client retries UNAVAILABLE and INTERNAL (etcd
#: client/v3 `isHaltErr`); the others are what gRPC itself reports for a deadline, for a call that
#: was ended under way, and for a connection that broke in a way it has no name for.
_RETRIABLE = frozenset({"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN"})

#: What etcd says of a token that it has forgotten, or that is older than a change of its users.
_TOKEN_TEXT = re.compile(r"invalid auth token|revision of auth store is old")

#: What gRPC says before the cause when it couldn't connect; the address is in our own text.
_CONNECT_PREAMBLE = re.compile(r"^failed to connect to all addresses; last error: \w+: \S+: ")

#: How long a call waits for a connection after it failed for want of one.
RECONNECT_S = 1.0


class Endpoint(NamedTuple):
    """Where an etcd listens. `host` is a name, an IPv4 address or an IPv6 address, no brackets."""

    host: str
    port: int
    tls: bool

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """`HOST:PORT`, with `http://` or `https://` (TLS) before it if so wished; IPv6 in brackets.

    Raises BadRequest.
    """
    match = re.fullmatch(r"(https?://)?(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]+)", text)
    if match is None:
        raise BadRequest(f"endpoint {text!r}: expected HOST:PORT, http://HOST:PORT or https://..")
    scheme, ipv6, host, port = match.groups()
    if ipv6 is not None:
        try:
            ipaddress.IPv6Address(ipv6)
        except ValueError:
            raise BadRequest(f"endpoint {text!r}: {ipv6} is no IPv6 address") from None
    if len(port) > 5 or not 1 <= int(port) <= 65535:
        raise BadRequest(f"endpoint {text!r}: the port must be between 1 and 65535")
    return Endpoint(ipv6 or host, int(port), scheme == "https://")


def parse_endpoints(text: str, tls: bool) -> list[Endpoint]:
    """Endpoints separated by commas. With `tls` those without a scheme mean TLS. Raises BadRequest.

    Certificates given for an endpoint that is to be spoken to in plain text are a mistake.
    """
    endpoints = []
    for one in text.split(","):
        endpoint = parse_endpoint(one)
        if tls and one.startswith("http://"):
            raise BadRequest(f"endpoint {one!r}: http:// does not go with certificates")
        endpoints.append(endpoint._replace(tls=endpoint.tls or tls))
    return endpoints


@dataclass(frozen=True, slots=True)
class Access:
    """What it takes to reach an etcd that is not open to everybody.

    cacert       PEM: whom to trust instead of the roots that grpcio brings; implies TLS
    cert, key    PEM: who we are, for servers that ask; both or neither; implies TLS
    user         name and password, for servers with auth enabled
    """

    cacert: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    user: tuple[str, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise BadRequest("a certificate and its key go together")

    @property
    def tls(self) -> bool:
        return self.cacert is not None or self.cert is not None


class Connection:
    """Connects with the first call, and again by itself. Thread-safe.

    With a user, logs in with the first call and with each stream, and again when the server has
    forgotten the token (simple tokens live five minutes).

    Answers are handed out undecoded where that saves a thread the work of another.
    Raises MissingExtra without grpcio.
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float, access: Access) -> None:
        grpc = _load_grpc()
        self.address = endpoint.address
        self.timeout_s = timeout_s
        #: What gRPC raises when a call fails; `failure` says what it means.
        self.rpc_error: type[Exception] = grpc.RpcError
        self._channel = _open_channel(grpc, endpoint, timeout_s, access)
        self._user = access.user
        self._token: str | None = None

    def ask(self, method: wire.Method, request: Any, revision: int = 0) -> tuple[Any, int]:
        """The answer to a unary call and its size as sent, in bytes.

        Raises Compacted and FutureRevision about `revision`, Unavailable, SourceError.
        """
        try:
            try:
                raw = self._call(method, request, self._metadata())
            except self.rpc_error as error:
                if self._user is None or not _TOKEN_TEXT.search(str(_details(error))):
                    raise
                self._token = None
                raw = self._call(method, request, self._metadata())
        except self.rpc_error as error:
            raise self.failure(error, revision) from error
        except ValueError:  # what gRPC raises once the channel is closed
            raise self.unavailable("the connection was closed") from None
        return method.response.FromString(raw), len(raw)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """The token of the user, fetched if there is none. Two threads may both fetch one."""
        if self._user is None:
            return ()
        token = self._token
        if token is None:
            name, password = self._user
            request = wire.AuthenticateRequest(name=name, password=password)
            raw = self._call(wire.AUTHENTICATE, request, ())
            token = self._token = str(wire.AuthenticateResponse.FromString(raw).token)
        return (("token", token),)

    def _call(self, method: wire.Method, request: Any, metadata: Any) -> bytes:
        """Once, and if there is no connection once more, waiting a moment for one.

        Every call here is a read, so twice does no harm. It is needed because grpcio (seen up to
        1.76) works at a connection only while a call waits: calls that each fail at once, with the
        error of the last attempt, would never find an etcd that is back.
        """
        call = self._channel.unary_unary(
            method.path, request_serializer=method.request.SerializeToString
        )
        deadline = time.monotonic() + self.timeout_s
        try:
            raw: bytes = call(request, timeout=self.timeout_s, metadata=metadata)
        except self.rpc_error as error:
            wait_s = min(RECONNECT_S, deadline - time.monotonic())
            if _code(error) != "UNAVAILABLE" or wait_s <= 0:
                raise
            try:
                raw = call(request, timeout=wait_s, metadata=metadata, wait_for_ready=True)
            except self.rpc_error as second:
                # "Deadline exceeded" says less than why the first one failed.
                raise (error if _code(second) == "DEADLINE_EXCEEDED" else second) from None
        return raw

    def stream(self, method: wire.Method, requests: Iterator[Any]) -> Any:
        """A call of gRPC that streams both ways: an iterator of undecoded responses.

        gRPC consumes `requests` on a thread that lives until that iterator ends.
        """
        try:
            self._token = None  # a stream can't log in again: it begins with a fresh token
            call = self._channel.stream_stream(
                method.path, request_serializer=method.request.SerializeToString
            )
            # hasleader: a member cut off from the cluster ends a watch instead of going quiet.
            return call(requests, metadata=(("hasleader", "true"), *self._metadata()))
        except self.rpc_error as error:
            raise self.failure(error) from error
        except ValueError:
            raise self.unavailable("the connection was closed") from None

    def failure(self, error: Any, revision: int = 0) -> BtreecacheError:
        """What an error of gRPC means to a caller that asked for `revision`; one line."""
        code, details = _code(error), _details(error)
        if code == "OUT_OF_RANGE" and COMPACTED_TEXT in details:
            return Compacted(revision)
        if code == "OUT_OF_RANGE" and _FUTURE_TEXT in details:
            return FutureRevision(revision, self.current_revision())
        if code == "DEADLINE_EXCEEDED":
            return self.unavailable(f"no answer within {self.timeout_s:g} s")
        if code in _RETRIABLE or _TOO_MANY_REQUESTS_TEXT in details:
            return self.unavailable(_CONNECT_PREAMBLE.sub("", details))
        return self.refused(f"{code}: {details}")

    def current_revision(self) -> int:
        """A linearizable read that counts one key: only its header matters."""
        answer, _ = self.ask(wire.RANGE, wire.RangeRequest(key=b"\0", count_only=True))
        return int(answer.header.revision)

    def unavailable(self, cause: str) -> Unavailable:
        return Unavailable(f"etcd at {self.address}: {_one_line(cause)}")

    def refused(self, cause: str) -> SourceError:
        return SourceError(f"etcd at {self.address}: {_one_line(cause)}")

    def close(self) -> None:
        self._channel.close()


def _load_grpc() -> Any:
    try:
        return importlib.import_module("grpc")
    except ImportError as error:
        raise MissingExtra("etcd", "grpcio") from error


def _open_channel(grpc: Any, endpoint: Endpoint, timeout_s: float, access: Access) -> Any:
    options = (
        ("grpc.max_receive_message_length", -1),  # 4 MiB by default; etcd's answers have no limit
        ("grpc.max_send_message_length", -1),
        # A peer that vanished is noticed on an idle watch. etcd refuses pings more often than 5 s.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # An etcd that came back is seen within a second; by default gRPC waits up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        # Despite its name: how long one attempt to connect may take (gRPC: 20 s).
        ("grpc.min_reconnect_backoff_ms", int(timeout_s * 1000)),
        # Nobody else's connection, nor the backoff after somebody else's failure.
        ("grpc.use_local_subchannel_pool", 1),
        # A proxy for web traffic (http_proxy) isn't meant for a database, least on loopback.
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),  # no TXT look-ups beside the name's own
    )
    target = f"dns:///{endpoint.address}"
    if endpoint.tls:
        credentials = grpc.ssl_channel_credentials(access.cacert, access.key, access.cert)
        return grpc.secure_channel(target, credentials, options)
    return grpc.insecure_channel(target, options)


def _code(error: Any) -> str:
    return str(error.code().name)


def _details(error: Any) -> str:
    return error.details() or ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
