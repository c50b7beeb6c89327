"""Connection: one connection, and how long it may take, which uvicorn leaves open.

A client that sends its request, or takes its answer, a byte at a time would hold what it holds for
as long as it likes: a place among the connections, a snapshot, its turn. So a request has to be in,
and an answer to be taken on with, within a time; then the connection is cut, and whatever waited to
send learns that the client has gone. `scope["state"]["peercert"]` of its requests is the client's
certificate, which was verified.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import h11
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from btreecache.server.bounded import BODY_BYTES
from btreecache.server.failures import failure
from btreecache.server.refusals import TooManyRequests

#: What a client has to take of an answer within `write_s`; a write of more is waited for.
TAKEN_BYTES = 64 << 10

#: Connections beyond the limit that are told so; those beyond them are cut.
TOLD_SO = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Of one server and each of its connections.

    connections   in all
    request_s     for a request to come in, line, headers and body (upstream: 32 s)
    body_bytes    of a request, whatever it says it has
    idle_s        between requests (upstream: 90 s)
    write_s       for a client to take TAKEN_BYTES of its answer
    """

    connections: int = 12_000
    request_s: float = 32.0
    body_bytes: int = BODY_BYTES
    idle_s: float = 90.0
    write_s: float = 60.0


class Connection(H11Protocol):
    """One connection, on the event loop. `limited` makes the class that a server has."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._incoming: asyncio.TimerHandle | None = None
        self._outgoing: asyncio.TimerHandle | None = None
        self._body_bytes = 0
        self._left = 0
        self._taken = False

    @classmethod
    def limited(cls, limits: ConnectionLimits) -> type[Connection]:
        """Connections with these limits."""
        return type("Limited", (cls,), {"limits": limits})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # TLS would hold half a megabyte of every answer.
        transport.set_write_buffer_limits(high=TAKEN_BYTES)
        peer = transport.get_extra_info("peercert")
        self.app_state = {**self.app_state, "peercert": peer}
        beyond = len(self.connections) - self.limits.connections
        if beyond > TOLD_SO:
            self._cut()
        elif beyond > 0:
            self.app = _refuse
        self._expect()

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.SEND_BODY:
            self._body_bytes += len(data)
            if self._body_bytes > self.limits.body_bytes:
                self._cut()
                return
        else:
            self._body_bytes = 0
        super().data_received(data)
        self._look_on()

    def _look_on(self) -> None:
        """See whether a request is on its way, and when it has to be in."""
        state = self.conn.their_state
        if state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0]):
            self._expect()
        elif self._incoming is not None:
            self._incoming.cancel()
            self._incoming = None

    def _expect(self) -> None:
        """The rest of a request has to come within a time from now, if it hasn't begun."""
        if self._incoming is None:
            after_s = self.limits.request_s
            self._incoming = self.loop.call_later(after_s, self._cut)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._offer()

    def resume_writing(self) -> None:
        self._taken = True
        super().resume_writing()

    def on_response_complete(self) -> None:
        self._offer()
        super().on_response_complete()
        self._look_on()

    def _offer(self) -> None:
        """What is written has to be taken within a time from now."""
        self._left = self.transport.get_write_buffer_size()
        if self._outgoing is None and self._left:
            self._taken = False
            self._outgoing = self.loop.call_later(self.limits.write_s, self._check_taken)

    def _check_taken(self) -> None:
        self._outgoing = None
        left = self.transport.get_write_buffer_size()
        if left and not self._taken and self._left - left < TAKEN_BYTES:
            self._cut()
        else:
            self._offer()

    def _cut(self) -> None:
        """End it now. What the kernel has of an answer goes too, else it would be kept for as long
        as the client stays."""
        sock = self.transport.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._incoming, self._outgoing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """There are too many connections: this one is told so, and ends."""
    response = failure(TooManyRequests(), Request(scope, receive))
    response.headers["Connection"] = "close"
    await response(scope, receive, send)
