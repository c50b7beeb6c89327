"""What is expensive takes turns and is refused beyond; what is cheap waits for nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import ASGIApp

from btreecache.options import ListOptions
from btreecache.server.access import User
from btreecache.server.application import application
from btreecache.server.fairness import Bounds
from btreecache.server.overload import (
    PAGE_BYTES,
    PAGE_OBJECTS,
    Limits,
    Overload,
    Weight,
    client_of,
    weight_of,
)
from btreecache.server.refusals import TooManyRequests
from tests.server.visit import visit
from tests.server.world import World, pod_key

PODS = "/api/v1/pods"
PREFIX = b"/registry/pods/"
COUNT = PAGE_OBJECTS + 20


@pytest.fixture(scope="module")
def standing() -> Iterator[World]:
    """A cache of more pods than a page, without a server."""
    world = World()
    for number in range(COUNT):
        world.put_pod("a" if number else "b", f"p{number:04}", node="n")
    world.caches.start()
    world.wait_for(lambda: world.cache.ready)
    yield world
    world.caches.close()
    world.discard()


class Slow:
    """A client that takes one message when told to, then another."""

    def __init__(self, app: ASGIApp, path: str = PODS, query: bytes = b"") -> None:
        self.messages: list[dict[str, Any]] = []
        self.takes, self._gone = asyncio.Semaphore(0), asyncio.Event()
        headers = [(b"user-agent", query or b"slow")]
        scope = {
            "type": "http", "method": "GET", "path": path, "query_string": b"",
            "headers": headers, "http_version": "1.1", "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1), "scheme": "http", "root_path": "",
        }  # fmt: skip
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.takes.acquire()
        self.messages.append(message)

    @property
    def status(self) -> int | None:
        return self.messages[0]["status"] if self.messages else None

    async def leave(self) -> None:
        self._gone.set()
        self.takes.release()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def take_all(self) -> bytes:
        for _ in range(10_000):
            self.takes.release()
        await self.task
        return b"".join(one.get("body", b"") for one in self.messages)


async def reached(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def slow_ones(app: ASGIApp, *agents: bytes) -> AsyncIterator[list[Slow]]:
    clients = [Slow(app, query=agent) for agent in agents]
    try:
        yield clients
    finally:
        for one in clients:
            await one.leave()


def test_lists_take_turns_and_cheap_ones_do_not_wait(standing: World) -> None:
    overload = Overload(Limits(lists=Bounds(turns=2, queued=1), watches=2, client_watches=1))
    app = application(standing.caches, overload=overload)

    async def run() -> None:
        async with slow_ones(app, b"a", b"b", b"a", b"a") as (first, second, third, refused):
            await reached(lambda: overload.rejected)
            assert (overload.turns.running, overload.turns.waiting) == (2, 1)
            answer = json.loads(await refused.take_all())
            assert refused.status == 429
            headers = dict(refused.messages[0]["headers"])
            assert headers[b"retry-after"] == b"1"
            assert answer["message"] == "Too many requests, please try again later."
            assert answer["reason"] == "TooManyRequests"
            assert answer["details"] == {"retryAfterSeconds": 1}
            scraped = (await visit(app, "/metrics")).body.decode()
            for name, value in (
                ("current_executing_requests", 2), ("current_inqueue_requests", 1),
                ("rejected_requests_total", 1),
            ):  # fmt: skip
                assert f"\nbtreecache_flowcontrol_{name} {value}.0\n" in scraped
            # Pages, objects, health and discovery go on, and what selects nothing is no page.
            for path, query in (
                (PODS, b"limit=500"), ("/api/v1/namespaces/b/pods", b""), ("/livez", b""),
                ("/api/v1/namespaces/b/pods/p0000", b""), ("/api", b""), ("/version", b""),
                (PODS, b"watch=1&timeoutSeconds=1&resourceVersion=0&x=" + b"y" * 9),
            ):  # fmt: skip
                got = await visit(app, path, query, leave_after_s=0.2 if b"watch" in query else 10)
                assert got.status == 200, path
            assert json.loads(await first.take_all())["kind"] == "PodList"
            await reached(lambda: not overload.turns.waiting)
            assert overload.turns.running == 2
            for one in (second, third):
                assert len(json.loads(await one.take_all())["items"]) == COUNT
        assert (overload.turns.running, overload.turns.running_bytes) == (0, 0)

    asyncio.run(run())


def test_who_goes_leaves_the_queue_and_gives_back(standing: World) -> None:
    overload = Overload(Limits(lists=Bounds(turns=1)))
    app = application(standing.caches, overload=overload)

    async def run() -> None:
        async with slow_ones(app, b"a", b"b", b"c") as (first, second, third):
            await reached(lambda: overload.turns.waiting == 2)
            await second.leave()
            assert (overload.turns.running, overload.turns.waiting) == (1, 1)
            await first.leave()
            await reached(lambda: not overload.turns.waiting)
            assert overload.turns.running == 1
            assert len(json.loads(await third.take_all())["items"]) == COUNT
        assert (overload.turns.running, overload.turns.waiting) == (0, 0)
        # One that fails has had its turn.
        refused = await visit(app, PODS, b"resourceVersionMatch=Exact")
        assert refused.status == 422
        assert overload.turns.running == 0

    asyncio.run(run())


def test_a_turn_that_does_not_come(standing: World) -> None:
    overload = Overload(Limits(lists=Bounds(turns=1), queue_s=0.01))

    async def run() -> None:
        first = overload.turn("a", 1)
        await first.come()
        second = overload.turn("b", 1)
        with pytest.raises(TooManyRequests):
            await second.come()
        second.leave()
        assert (overload.turns.running, overload.turns.waiting, overload.rejected) == (1, 0, 1)
        first.leave()
        first.leave()
        assert overload.turns.running == 0

    asyncio.run(run())


def test_watches_are_counted(standing: World) -> None:
    overload = Overload(Limits(watches=2, client_watches=1))
    end = overload.watch("a")
    with pytest.raises(TooManyRequests):
        overload.watch("a")
    other = overload.watch("b")
    with pytest.raises(TooManyRequests):
        overload.watch("c")
    end()
    overload.watch("c")()
    other()
    assert overload.watches == 0
    app = application(standing.caches, overload=overload)

    async def run() -> None:
        watching = asyncio.ensure_future(visit(app, PODS, b"watch=1", leave_after_s=0.2))
        await reached(lambda: overload.watches)
        assert (await visit(app, PODS, b"watch=1")).status == 429
        assert (await watching).status == 200
        assert (await visit(app, PODS, b"watch=1&resourceVersion=x")).status == 400
        assert overload.watches == 0

    asyncio.run(run())


def test_what_a_list_weighs(standing: World) -> None:
    newest = standing.caches.of(standing.caches.resources.named("pods")).newest  # type: ignore[arg-type]
    assert newest is not None
    total = sum(len(element.value) for element in newest.values())
    one = len(newest[pod_key("b", "p0000")].value)
    for options, prefix, wanted in (
        (ListOptions(), PREFIX, Weight(COUNT, total)),
        (ListOptions(limit=10), PREFIX, Weight(10, 10 * total // COUNT)),
        (ListOptions(limit=10 * COUNT), PREFIX, Weight(COUNT, total)),
        (ListOptions(limit=10, resource_version="0"), PREFIX, Weight(10, 10 * total // COUNT)),
        (ListOptions(limit=1, label_selector="a=b"), PREFIX, Weight(COUNT, total)),
        (ListOptions(), PREFIX + b"b/", Weight(1, one)),
        (ListOptions(limit=1), PREFIX + b"none/", Weight(0, 0)),
    ):
        assert weight_of(options, prefix, newest) == wanted
    assert not weight_of(ListOptions(), PREFIX, None).is_cheap
    assert Weight(PAGE_OBJECTS, PAGE_BYTES).is_cheap
    assert not Weight(PAGE_OBJECTS + 1, 0).is_cheap
    assert not Weight(1, PAGE_BYTES + 1).is_cheap


def test_who_is_one_client() -> None:
    def of(host: str | None, agent: str = "", user: User | None = None) -> object:
        scope: dict[str, Any] = {
            "type": "http", "headers": [(b"user-agent", agent.encode())],
            "client": (host, 9) if host else None,
        }  # fmt: skip
        return client_of(Request(scope | ({"user": user} if user else {})))

    assert of("10.0.0.1", "a") == of("10.0.0.1", "b") != of("10.0.0.2", "a")
    assert of("127.0.0.1", "a") == of("::1", "a") != of("127.0.0.1", "b")
    assert of("10.0.0.1", user=User("ann")) == of("127.0.0.1", "x", User("ann"))
    assert of("10.0.0.1", user=User("ann")) != of("10.0.0.1", user=User("bob"))
    assert of(None) == of(None, "")
