"""Whatever is asked: a documented status comes back, soon, and the next request is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btreecache.server.application import application
from tests.server.visit import Visit, visit
from tests.server.world import World

DOCUMENTED = {200, 400, 403, 404, 405, 406, 410, 422, 429, 504}

SEGMENTS = st.sampled_from(
    ["api", "apis", "v1", "apps", "pods", "nodes", "namespaces", "deployments", "a", "x", "",
     ".", "..", "%", "a%2Fb", "version", "readyz", "watch", "status"]
) | st.text(max_size=6)  # fmt: skip
PATHS = st.lists(SEGMENTS, max_size=8).map(lambda parts: "/" + "/".join(parts)) | st.sampled_from(
    ["/api/v1/pods", "/api/v1/namespaces/a/pods", "/api/v1/namespaces/a/pods/x"]
)
VALUES = st.sampled_from(
    ["", "0", "1", "3", "-1", "999999", "18446744073709551616", "true", "false", "Exact",
     "NotOlderThan", "a=b", "a in (b,c)", "!a", "metadata.name=x", "spec.no=1", "garbage",
     "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYSJ9",
     "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OSwic3RhcnQiOiIuLi94In0"]
) | st.text(max_size=8)  # fmt: skip
NAMES = st.sampled_from(
    ["resourceVersion", "resourceVersionMatch", "limit", "continue", "labelSelector",
     "fieldSelector", "timeoutSeconds", "allowWatchBookmarks", "sendInitialEvents", "watch", "no"]
)  # fmt: skip
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(
    lambda pairs: urlencode(pairs, errors="replace").encode()
) | st.binary(max_size=20)
METHODS = st.sampled_from(["GET"] * 8 + ["POST", "HEAD", "X"])
HEADERS = st.lists(
    st.tuples(st.sampled_from([b"accept", b"host", b"x"]), st.binary(max_size=12)), max_size=2
)


class Door:
    """A world without a server, and the loop that its requests run on."""

    def __init__(self) -> None:
        self.world = World()
        self.world.put_pod("a", "x", a="b")
        self.world.put_pod("a", "y")
        self.app = application(self.world.caches)
        self.runner = asyncio.Runner()
        self.world.caches.start()
        self.world.wait_for(lambda: not any(self.world.caches.readiness().values()))

    def visit(self, path: str, query: bytes = b"", **more: Any) -> Visit:
        asked = visit(self.app, path, query, leave_after_s=0.02, **more)
        return self.runner.run(asked)

    def close(self) -> None:
        self.runner.close()
        self.world.caches.close()
        self.world.discard()


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


@settings(max_examples=150, deadline=None)
@given(path=PATHS, query=QUERIES, method=METHODS, headers=HEADERS)
def test_only_documented_statuses(
    door: Door, path: str, query: bytes, method: str, headers: list[tuple[bytes, bytes]]
) -> None:
    answer = door.visit(path, query, method=method, headers=headers)
    if answer.status is None:
        assert answer.left  # it waited for a revision ahead, or for the cache's first list
        return
    assert answer.status in DOCUMENTED, answer.body
    if answer.status >= 400:
        assert json.loads(answer.body)["code"] == answer.status
    elif not answer.left and answer.body not in (b"", b"ok"):
        bare = [door.visit(page).body for page in ("/", "/version")]  # so upstream too
        assert answer.body.endswith(b"\n") or answer.body in bare


def test_a_mistake_of_ours_is_500_and_says_nothing_of_it(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("btreecache.server.application.ListOptions.from_query", broken)
    answer = door.visit("/api/v1/pods")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert json.loads(answer.body)["reason"] == "InternalError"
    monkeypatch.setattr("btreecache.encoding.answer.Answers.frame", broken)
    answer = door.visit("/api/v1/pods", b"watch=1")
    assert (answer.status, answer.left) == (200, False)
    frame = json.loads(answer.body)
    assert (frame["type"], frame["object"]["code"]) == ("ERROR", 500)
    assert b"secret" not in answer.body
    monkeypatch.undo()
    assert door.visit("/api/v1/pods").status == 200
