"""/debug: a page that says how the server is, needs nothing else and runs nothing."""

from __future__ import annotations

import asyncio
from html.parser import HTMLParser
from pathlib import Path

import pytest

from btreecache.errors import FeedFault
from btreecache.event import Batch
from btreecache.features import GATES
from btreecache.server.access import Entrance, Tokens
from btreecache.server.application import application
from btreecache.server.debug import page
from tests.server.visit import visit
from tests.server.world import World


class Read(HTMLParser):
    """What a browser makes of a page: elements, their attributes, their texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "style")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


ALLOWED = {
    "html", "head", "meta", "title", "style", "body",
    "h1", "h2", "table", "tr", "th", "td", "p", "a",
}  # fmt: skip


def test_the_page_is_whole_and_needs_nothing(world: World) -> None:
    world.put_pod("a", "x")
    assert world.names("/api/v1/pods") == ["x"]
    answer = world.get("/debug")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    read = Read(answer.text)
    assert read.open == []
    assert {*read.tags} <= ALLOWED
    assert read.links == ["?output=json"]
    assert "pods" in read.texts
    assert {gate.name for gate in GATES} <= {*read.texts}


def test_what_it_says(world: World) -> None:
    revision = world.put_pod("a", "x")
    with world.watch(f"/api/v1/pods?watch=1&resourceVersion={revision}"):
        found = world.get("/debug?output=json").json()
    (pods,) = found["caches"]
    assert pods["resource"] == "pods"
    assert (pods["state"], pods["trouble"], pods["objects"]) == ("ready", "", 1)
    assert pods["newest"] == world.cache.revision
    assert pods["objects_bytes"] == len(world.cache.snapshot().tree.select(0)[1].value)
    assert (pods["watches"], found["load"]["watches"], found["load"]["requests"]) == (1, 1, 1)
    assert 0 <= pods["history_s"] < 60
    assert pods["archive_lag"] is None
    assert found["server"]["resident_bytes"] > 1 << 20
    with pytest.raises(FeedFault):
        world.cache.apply(Batch(1, ()))
    (pods,) = world.get("/debug?output=json").json()["caches"]
    assert (pods["state"], pods["feed_faults"]) == ("resynchronising", 1)


def test_everything_is_escaped() -> None:
    evil = "<script>alert('1')</script>&\"'"
    read = Read(page({evil: {evil: evil}, "many": [{evil: evil, "big_bytes": 1 << 40}]}))
    assert {*read.tags} <= ALLOWED
    assert read.texts.count(evil) == 5
    assert "1,024.0 GiB" in read.texts


@pytest.mark.parametrize(
    ("is_local", "has_tokens", "token", "status"),
    [
        (True, False, b"", 200),
        (False, False, b"", 403),
        (False, True, b"", 401),
        (False, True, b"Bearer t", 200),
    ],
)
def test_who_is_shown_it(
    is_local: bool,
    has_tokens: bool,
    token: bytes,
    status: int,
    tmp_path: Path,
) -> None:
    tokens = None
    if has_tokens:
        path = tmp_path / "tokens.csv"
        path.write_text("t,ann,1\n")
        path.chmod(0o600)
        tokens = Tokens(path)
    world = World()
    app = application(world.caches, Entrance(is_local=is_local, tokens=tokens))
    headers = [(b"authorization", token)] if token else []
    assert asyncio.run(visit(app, "/debug", headers=headers)).status == status
    world.discard()
