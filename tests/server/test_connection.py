"""Connections that take their time, and requests that are too large. Over real sockets."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
import uvicorn

from btreecache.server import listening
from btreecache.server.application import application
from btreecache.server.bounded import Bounded, RequestLimits
from btreecache.server.connection import TOLD_SO, Connection, ConnectionLimits
from btreecache.server.listening import OTHER_FILES
from tests.server.visit import visit
from tests.server.world import World

TIMEOUT_S = 10.0
INFINITE = resource.RLIM_INFINITY
LIMITS = ConnectionLimits(connections=4, request_s=0.15, write_s=0.15, body_bytes=5000)
REQUEST = b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Endless:
    """An application whose answer at /endless never ends; it counts what it could send."""

    def __init__(self) -> None:
        self.sent = 0
        self.cut = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = {"type": "http.response.body", "body": b"x" * 100_000, "more_body": True}
        gone = asyncio.ensure_future(receive())
        while scope["path"] == "/endless":
            await send(body)
            self.sent += 100_000
            await asyncio.sleep(0)
            if gone.done() and gone.result()["type"] == "http.disconnect":
                self.cut.set()
                return
            if gone.done():
                gone = asyncio.ensure_future(receive())
        gone.cancel()
        await send({"type": "http.response.body", "body": b"end"})


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Endless, tuple[str, int]]]:
    app = Endless()
    sock = listening.bind("127.0.0.1", 0)
    address = sock.getsockname()
    config = uvicorn.Config(
        app, http=Connection.limited(LIMITS), ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
    thread.start()
    try:
        yield app, address
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


@pytest.fixture
def endless(running: tuple[Endless, tuple[str, int]]) -> tuple[Endless, tuple[str, int]]:
    """The server, with nothing sent yet."""
    running[0].sent = 0
    running[0].cut.clear()
    return running


def connect(address: tuple[str, int]) -> socket.socket:
    made = socket.socket()
    made.settimeout(TIMEOUT_S)
    made.connect(address)
    return made


def ended(connection: socket.socket) -> bytes:
    """What comes before the connection ends, in one way or the other."""
    got = b""
    try:
        while part := connection.recv(1 << 16):
            got += part
    except ConnectionResetError:
        pass
    return got


def test_who_takes_nothing_is_cut_off(endless: tuple[Endless, tuple[str, int]]) -> None:
    app, address = endless
    with closing(connect(address)) as slow:
        slow.sendall(REQUEST)
        assert app.cut.wait(TIMEOUT_S)
        ended(slow)


def test_who_goes_on_taking_is_not(endless: tuple[Endless, tuple[str, int]]) -> None:
    app, address = endless
    with closing(connect(address)) as reader:
        reader.sendall(REQUEST)
        while app.sent < 30_000_000:
            assert reader.recv(1 << 16)
        assert not app.cut.is_set()
    assert app.cut.wait(TIMEOUT_S)


@pytest.mark.parametrize(
    "part",
    [b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n",
     b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
     b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGE"],
)  # fmt: skip
def test_a_request_that_is_not_finished(
    endless: tuple[Endless, tuple[str, int]], part: bytes
) -> None:
    with closing(connect(endless[1])) as slow:
        slow.sendall(part)
        got = ended(slow)
        assert got.count(b"HTTP/1.1 200") == part.count(b"\r\n\r\n")


def test_a_body_that_goes_on(endless: tuple[Endless, tuple[str, int]]) -> None:
    with closing(connect(endless[1])) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall((b"400\r\n" + b"x" * 1024 + b"\r\n") * 4)
        assert client.recv(1 << 16)
        client.sendall((b"400\r\n" + b"x" * 1024 + b"\r\n") * 4)
        ended(client)


def test_too_many_connections(
    endless: tuple[Endless, tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(connection: HTTPConnection) -> HTTPResponse:
        connection.request("GET", "/")
        return connection.getresponse()

    def more() -> HTTPConnection:
        return HTTPConnection(*endless[1], timeout=TIMEOUT_S)

    held = [more() for _ in range(LIMITS.connections)]
    for one in held:
        assert ask(one).read() == b"end"
    refused = ask(more())
    assert (refused.status, json.load(refused)["reason"]) == (429, "TooManyRequests")
    assert refused.headers["connection"] == "close"
    assert refused.headers["retry-after"] == "1"
    assert ask(held[0]).read() == b"end"
    monkeypatch.setattr("btreecache.server.connection.TOLD_SO", 0)
    with pytest.raises(ConnectionError):
        ask(more())
    monkeypatch.undo()
    held.pop().close()
    for _ in range(100):
        last = more()
        status = ask(last).status
        last.close()
        if status == 200:
            break
    assert status == 200
    for one in held:
        one.close()


def test_requests_that_are_too_large() -> None:
    world = World()
    app = Bounded(
        application(world.caches),
        RequestLimits(url_bytes=60, headers=3, header_bytes=200, body_bytes=10),
    )
    h = [(b"accept", b"*/*")]
    for path, query, headers, status in (
        ("/api", b"", h * 3, 200), ("/api", b"x" * 56, [], 200), ("/api", b"x" * 57, [], 414),
        ("/" + "a" * 61, b"", [], 414), ("/api", b"", h * 4, 431),
        ("/api", b"", [(b"x", b"y" * 200)], 431), ("/api", b"", [(b"x", b"y" * 199)], 200),
        ("/api", b"", [(b"content-length", b"10")], 200),
        ("/api", b"", [(b"content-length", b"11")], 413),
        ("/api", b"", [(b"content-length", b"9" * 30)], 413),
        ("/api", b"", [(b"content-length", b"x")], 200),
    ):  # fmt: skip
        answer = asyncio.run(visit(app, path, query, headers=headers))
        assert answer.status == status, (path, query, headers)
        if status != 200:
            assert json.loads(answer.body)["code"] == status
            assert (b"connection", b"close") in answer.messages[0]["headers"]
    world.discard()


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "possible"),
    [
        (1024, 4096, 1000 + TOLD_SO + OTHER_FILES, 1000), (1024, INFINITE, 1512, 1000),
        (1024, 1200, 1200, 688), (9999, 9999, None, 1000), (INFINITE, INFINITE, None, 1000),
        (300, 300, 300, 1),
    ],
)  # fmt: skip
def test_no_more_connections_than_files(
    soft: int, hard: int, raised: int | None, possible: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []
    monkeypatch.setattr("resource.getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr("resource.setrlimit", lambda _, both: limits.append(both))
    assert listening.possible_connections(1000) == possible
    assert limits == ([(raised, hard)] if raised else [])
