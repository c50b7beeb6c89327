"""The admin endpoint: the faults of a server over HTTP, in JSON, one request a connection.

GET /faults says how often each strikes and has struck; PUT sets the rates of all, those not named
to 0; POST those named. POST /reset, /restart and /leader_change let one happen now.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from http import HTTPStatus
from typing import Any

from etcdsim.server.faulty import FaultyListening

HEAD_BYTES_MAX = 8 * 1024
BODY_BYTES_MAX = 64 * 1024
READ_TIMEOUT_S = 10.0


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _bad(reason: str) -> _Refused:
    return _Refused(HTTPStatus.BAD_REQUEST, reason)


class Admin:
    """A server for whoever runs the tests. `endpoint`: HOST:PORT. One event loop."""

    def __init__(self, faulty: FaultyListening) -> None:
        self.endpoint = ""
        self._faulty = faulty
        self._server: asyncio.Server

    async def start(self, address: str) -> None:
        """Serve on HOST:PORT, port 0 for a free one. Raises OSError."""
        host, _, port = address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._serve, host.strip("[]"), int(port), limit=HEAD_BYTES_MAX
            )
        except (OSError, OverflowError):
            raise OSError(f"can't listen on {address}") from None
        self.endpoint = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self, grace_s: float) -> None:
        """End it; a request under way may be cut off."""
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who is too slow or goes away gets no answer; at the end of the server nobody does.
        gone = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    method, path, body = await _read(reader)
                status, answer = HTTPStatus.OK, self._answer(method, path, body)
            except _Refused as refused:
                status, answer = refused.status, {"error": str(refused)}
            data = json.dumps(answer).encode() + b"\n"
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + data)
            await writer.drain()
        writer.close()

    def _answer(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        actions = {
            "/reset": self._faulty.reset,
            "/restart": self._faulty.restart,
            "/leader_change": self._faulty.change_leader,
        }
        allowed = {"/faults": "GET, PUT, POST", **dict.fromkeys(actions, "POST")}.get(path)
        if allowed is None:
            known = ", ".join(["/faults", *actions])
            raise _Refused(HTTPStatus.NOT_FOUND, f"no such path: there are {known}")
        if method not in allowed.split(", "):
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {allowed}")
        if path in actions:
            actions[path]()
            self._faulty.faults.count(path.removeprefix("/"))
        elif method != "GET":
            self._set(_rates(body), others=method == "PUT")
        return self._state()

    def _set(self, rates: dict[str, float], others: bool) -> None:
        faults = self._faulty.faults
        try:
            faults.set_rates({**(dict.fromkeys(faults.rates, 0.0) if others else {}), **rates})
        except ValueError as error:
            raise _bad(str(error)) from None

    def _state(self) -> dict[str, Any]:
        faults = self._faulty.faults
        injected = faults.injected
        return {
            name: {"rate": rate, "injected": injected[name]} for name, rate in faults.rates.items()
        }


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    """Method, path and body of a request."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.LimitOverrunError:
        raise _bad(f"a request's head has up to {HEAD_BYTES_MAX} bytes") from None
    words = head[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _bad("not a request of HTTP/1.1")
    headers = {}
    for line in filter(None, head[1:]):
        name, colon, value = line.partition(":")
        if not colon or name.strip().lower() in headers:
            raise _bad(f"not a header, or one that was there already: {name[:40]!r}")
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not (length.isascii() and length.isdecimal()):
        raise _bad("a body needs its Content-Length")
    if len(length) > 9 or int(length) > BODY_BYTES_MAX:
        raise _Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has up to {BODY_BYTES_MAX} bytes"
        )
    return words[0], words[1], await reader.readexactly(int(length))


def _rates(body: bytes) -> dict[str, float]:
    """`{"NAME": RATE, ..}`"""
    try:
        rates = json.loads(body)
    except (ValueError, RecursionError):
        raise _bad("the body is not JSON") from None
    if not isinstance(rates, dict):
        raise _bad('expected {"NAME": RATE, ..}')
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or abs(rate) > 1:
            raise _bad(f"fault {name!r}: the rate is not a number from 0 to 1")
    return rates
