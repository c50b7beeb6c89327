"""WATCH over HTTP: frames, bookmarks, errors, ends."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import httpx
import pytest

from btreecache.server.application import application
from tests.server.visit import Visit, visit
from tests.server.world import World, pod, pod_key

PODS = "/api/v1/pods"
WATCH = f"{PODS}?watch=true"


def kinds(frames: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(frame["type"], frame["object"]["metadata"].get("name", "")) for frame in frames]


def test_changes_as_they_come(world: World) -> None:
    first = world.put_pod("a", "x")
    with world.watch(f"{WATCH}&resourceVersion={first}") as frames:
        second = world.put_pod("a", "y", app="web")
        frame = next(frames)
        assert frame["type"] == "ADDED"
        assert [*frame["object"]][:2] == ["kind", "apiVersion"]
        assert frame["object"]["metadata"]["resourceVersion"] == str(second)
        world.put_pod("b", "y", app="db")
        assert next(frames)["object"]["metadata"]["namespace"] == "b"
        third = world.model.delete(pod_key("a", "y"))
        gone = next(frames)
        assert gone["type"] == "DELETED"
        assert gone["object"]["metadata"]["resourceVersion"] == str(third)


def test_a_namespace_and_a_selector(world: World) -> None:
    first = world.put_pod("a", "x", app="web")
    path = f"/api/v1/namespaces/a/pods?watch=1&labelSelector=app%3Dweb&resourceVersion={first}"
    with world.watch(path) as frames:
        world.put_pod("b", "other", app="web")
        world.put_pod("a", "db", app="db")
        world.put_pod("a", "x", app="db")
        world.put_pod("a", "x", app="web")
        found = [next(frames), next(frames)]
    assert kinds(found) == [("DELETED", "x"), ("ADDED", "x")]


def test_the_state_first_and_the_bookmark_that_ends_it(world: World) -> None:
    world.put_pod("a", "x")
    newest = world.put_pod("b", "y")
    asked = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    frames = world.frames(f"{WATCH}{asked}&timeoutSeconds=1")
    assert kinds(frames)[:2] == [("ADDED", "x"), ("ADDED", "y")]
    assert frames[2] == {
        "type": "BOOKMARK",
        "object": {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "resourceVersion": str(newest),
                "annotations": {"k8s.io/initial-events-end": "true"},
            },
        },
    }
    assert all(frame["type"] == "BOOKMARK" for frame in frames[3:])
    # No bookmarks unless asked for.
    assert kinds(world.frames(f"{WATCH}&timeoutSeconds=1")) == [("ADDED", "x"), ("ADDED", "y")]


def test_a_line_is_a_frame_whatever_is_stored(world: World) -> None:
    first = world.put_pod("a", "x")
    value = json.dumps(json.loads(pod("a", "y", text="a\r\nb\u2028c")), indent=2)
    world.model.put(pod_key("a", "y"), value.replace("\n", "\r\n").encode())
    answer = world.get(f"{WATCH}&resourceVersion={first}&timeoutSeconds=1")
    (line,) = answer.content.split(b"\n")[:-1]
    frame = json.loads(line)
    assert frame["object"]["metadata"]["labels"]["text"] == "a\r\nb\u2028c"


def test_what_cannot_be_served_ends_the_watch(world: World) -> None:
    first = world.put_pod("a", "x")
    world.model.put(pod_key("a", "y"), pod("a", "y").replace(b'"v1"', b'"v2"'))
    world.put_pod("a", "z")
    (frame,) = world.frames(f"{WATCH}&resourceVersion={first}")
    assert (frame["type"], frame["object"]["code"]) == ("ERROR", 406)
    world.model.put(pod_key("a", "y"), b"garbage")
    second = world.model.current_revision() - 1
    (frame,) = world.frames(f"{WATCH}&resourceVersion={second}")
    assert (frame["type"], frame["object"]["code"]) == ("ERROR", 500)


def test_errors_that_belong_into_the_stream(world: World) -> None:
    world.put_pod("a", "x")
    asked = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    (frame,) = world.frames(f"{WATCH}{asked}&resourceVersion=99999&timeoutSeconds=1")
    assert (frame["type"], frame["object"]["code"]) == ("ERROR", 504)
    world.model.is_down = True
    (frame,) = world.frames(f"{WATCH}{asked}")
    assert (frame["type"], frame["object"]["code"]) == ("ERROR", 503)


def test_a_source_whose_marks_cannot_be_trusted() -> None:
    with World() as world:
        world.model.progress = False
        world.put_pod("a", "x")
        assert world.names(PODS) == ["x"]
        asked = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1"
        (frame,) = world.frames(f"{WATCH}{asked}")
        assert (frame["type"], frame["object"]["code"]) == ("ERROR", 500)


def test_a_watch_ends_with_the_server() -> None:
    world = World()
    with world:
        first = world.put_pod("a", "x")
        with world.watch(f"{WATCH}&resourceVersion={first}") as frames:
            world.put_pod("a", "y")
            assert next(frames)["type"] == "ADDED"
            world.caches.stop()
            # An end like any other: no error, nothing cut off.
            assert [*frames] == []


def test_many_watchers_hear_the_same() -> None:
    """All of one scope every frame in order, those of another nothing."""

    async def listen(client: httpx.AsyncClient, path: str, count: int) -> list[str]:
        async with client.stream("GET", path) as answer:
            lines = answer.aiter_lines()
            return [await anext(lines) for _ in range(count)]

    async def scene(world: World, revision: int) -> tuple[list[list[str]], list[str]]:
        async with httpx.AsyncClient(base_url=world.url, timeout=10) as client:
            path = f"/api/v1/namespaces/a/pods?watch=1&resourceVersion={revision}"
            listening = [asyncio.create_task(listen(client, path, 20)) for _ in range(60)]
            other = asyncio.create_task(
                client.get(path.replace("/a/", "/b/") + "&timeoutSeconds=1")
            )
            for number in range(20):
                await asyncio.to_thread(world.put_pod, "a", f"p{number:02}")
                await asyncio.sleep(0.005)
            heard = await asyncio.gather(*listening)
            return heard, (await other).text.splitlines()

    with World() as world:
        heard, elsewhere = asyncio.run(scene(world, world.put_pod("a", "x")))
    names = [json.loads(line)["object"]["metadata"]["name"] for line in heard[0]]
    assert names == [f"p{number:02}" for number in range(20)]
    assert all(lines == heard[0] for lines in heard)
    assert elsewhere == []


def test_a_read_that_waits_ends_with_the_server() -> None:
    world = World()
    with world:
        world.put_pod("a", "x")
        assert world.names(PODS) == ["x"]
        answers: list[int] = []
        path = f"{PODS}?resourceVersion=999&timeoutSeconds=60"
        asking = threading.Thread(target=lambda: answers.append(world.get(path).status_code))
        asking.start()
        time.sleep(0.3)
        assert not answers
        world.caches.stop()
        asking.join(5)
        assert answers == [429]
        assert world.get(PODS).status_code == 429


@pytest.mark.parametrize(
    "query",
    [
        "watch=1&resourceVersion=NOW",
        "resourceVersion=99999&timeoutSeconds=60",
        "watch=1&resourceVersion=99999&sendInitialEvents=1&resourceVersionMatch=NotOlderThan",
    ],
)
def test_a_client_that_goes_is_not_waited_for(query: str) -> None:
    """Driven without a server: the application returns once the client has gone."""
    world = World()
    query = query.replace("NOW", str(world.put_pod("a", "x")))
    caches = world.caches
    caches.start()
    resource = caches.resources.get("", "v1", "pods")
    assert resource is not None
    world.wait_for(lambda: caches.of(resource).ready)

    async def ask() -> Visit:
        answer = await visit(application(caches), PODS, query.encode(), leave_after_s=0.2)
        # A thread may still be on its way back with what nobody waits for any more.
        await asyncio.sleep(0.2)
        assert len(asyncio.all_tasks()) == 1
        return answer

    try:
        answer = asyncio.run(ask())
    finally:
        caches.close()
        world.discard()
    assert answer.left
    assert (answer.status == 200) == ("sendInitialEvents" not in query and "watch" in query)
