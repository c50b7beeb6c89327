"""Sockets, signals, the end: uvicorn over the application.

Of a request whose line and headers don't end, uvicorn collects 64 KiB (h11's bound), then answers
400 in plain text itself.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

import uvicorn

from btreecache.errors import BadRequest, Unavailable
from btreecache.server.access import Entrance, is_address, is_loopback
from btreecache.server.application import application
from btreecache.server.caches import Caches
from btreecache.server.connection import TOLD_SO, Connection, ConnectionLimits
from btreecache.server.overload import Limits, Overload
from btreecache.server.request_log import RequestLog

#: Seconds that answers under way may take after a signal; then they are cut off.
GRACE_S = 5

#: Connections that may wait to be taken.
BACKLOG = 2048

#: Files that are no connections: the source's, an archive's, logs.
OTHER_FILES = 256

#: How often it is looked whether certificate and tokens have changed.
REFRESH_S = 10


def parse_listen(text: str, *, anywhere: bool = False) -> tuple[str, int]:
    """HOST:PORT, an IPv6 address in brackets; port 0: any. Raises BadRequest, also for a host that
    isn't loopback unless it may be `anywhere`: what is served here is served to whoever can reach
    it."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port[:6]) > 65535:
        raise BadRequest(f"--listen {text!r}: say HOST:PORT, as in 127.0.0.1:8080")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise BadRequest(f"--listen {text!r}: an IPv6 address goes into brackets")
    host = host.removeprefix("[").removesuffix("]")
    if host.lower() == "localhost":
        host = "127.0.0.1"
    if not is_address(host):
        raise BadRequest(f"--listen {text!r}: it must be localhost or an IP address")
    if not anywhere and not is_loopback(host):
        raise BadRequest(
            f"--listen {text!r}: beyond loopback there must be TLS (--tls-cert-file) and"
            " authentication (--token-auth-file, --client-ca-file), or an explicit --insecure"
        )
    return host, int(port)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Unavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: only then asyncio switches Nagle's algorithm off, which with a client
    # that delays its acknowledgements would hold every short answer back for 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise Unavailable(f"can't listen on {host} port {port}: {error.strerror}") from None
    return sock


def possible_connections(wanted: int) -> int:
    """How many connections this process can have, up to `wanted`. Its limit on open files is raised
    for that as far as it may be, as programs in Go do it. Some files are left for all else: without
    them neither the source nor an archive could be opened again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + TOLD_SO + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < most:
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(wanted, soft - TOLD_SO - OTHER_FILES))
    return wanted


def address(sock: socket.socket, *, tls: bool = False) -> str:
    """The URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"https://{shown}" if tls else f"http://{shown}"


class _Server(uvicorn.Server):
    """Ends on a signal as if asked to: first it is said (readiness), after a delay watches end,
    then everything else, and no signal again. A second signal ends the delay."""

    def __init__(
        self,
        config: uvicorn.Config,
        caches: Caches,
        on_started: Callable[[], object],
        on_hangup: Callable[[], object],
        delay_s: float,
    ) -> None:
        super().__init__(config)
        self._caches = caches
        self._on_started = on_started
        self._on_hangup = on_hangup
        self._delay_s = delay_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._caches.leave()
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._end)
            self._delay_s = 0
        else:
            super().handle_exit(sig, frame)

    def _end(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A watch has no end of its own, and uvicorn waits for every answer to end.
        self._caches.stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        try:
            yield
        finally:
            for number in (*numbers, signal.SIGHUP):
                loop.remove_signal_handler(number)


def serve(
    caches: Caches,
    sock: socket.socket,
    on_started: Callable[[], object],
    entrance: Entrance | None = None,
    limits: Limits | None = None,
    request_log: RequestLog | None = None,
    *,
    connections: ConnectionLimits | None = None,
    shutdown_delay_s: float = 0.0,
) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread. `on_started` is called once it answers.

    entrance           how it is to be reached; the default is as on loopback
    limits             how much is done at a time
    request_log        is told of each request that is over
    connections        how many, and how long they may take
    shutdown_delay_s   after the signal, when /readyz fails already and everything else is as ever:
                       time for load balancers to send nobody here any more
    """
    entrance = entrance or Entrance()
    certificate = entrance.certificate
    connections = connections or ConnectionLimits()
    possible = possible_connections(connections.connections)
    connections = replace(connections, connections=possible)
    config = uvicorn.Config(
        application(caches, entrance, Overload(limits), request_log),
        loop="asyncio",
        http=Connection.limited(connections),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=connections.idle_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=GRACE_S,
        ssl_context_factory=(lambda *_: certificate.context) if certificate else None,
        callback_notify=entrance.refresh,
        timeout_notify=REFRESH_S,
    )
    server = _Server(config, caches, on_started, entrance.reload, shutdown_delay_s)
    asyncio.run(server.serve(sockets=[sock]))
