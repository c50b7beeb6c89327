"""The request log and the log of what becomes of caches: one line each, whatever a client says."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from btreecache import Cache, Follower
from btreecache.cli.logs import LineFormatter, handler, levels
from btreecache.compaction import Compaction
from btreecache.errors import FeedFault
from btreecache.logs import VALUE_MAX, line, say
from btreecache.server.access import User
from btreecache.server.counts import Asked, Finished
from btreecache.server.request_log import RequestLog
from tests.server.world import SharedModel, World, pod

HOSTILE = 'a\r\nb\x1b[31m\x00\u2028\udc80" =c'


def fields(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = record.fields  # type: ignore[attr-defined]
    return found


def request(**scope: object) -> dict[str, Any]:
    return {
        "method": "GET", "path": "/api/v1/pods", "query_string": b"limit=2",
        "headers": [(b"user-agent", b"kubectl/v1.32")], "client": ("127.0.0.1", 5),
        "user": User("ann"),
    } | scope  # fmt: skip


def finished(seconds: float = 0.25, verb: str = "LIST") -> Finished:
    return Finished(Asked(verb, "", "v1", "pods", "cluster"), 200, True, 123, seconds)


def test_a_request_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        RequestLog(every=True)(request(), finished())
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        'event=request method=GET uri="/api/v1/pods?limit=2" verb=LIST group="" resource=pods'
        " user=ann client=127.0.0.1 agent=kubectl/v1.32 code=200 bytes=123 seconds=0.250000"
        " whole=true"
    )


@pytest.mark.parametrize(
    ("every", "seconds", "verb", "level"),
    [
        (True, 0.1, "LIST", logging.INFO),
        (False, 0.1, "LIST", None),
        (False, 1.1, "LIST", logging.WARNING),
        (True, 1.1, "LIST", logging.WARNING),
        (False, 99.0, "WATCH", None),
        (True, 99.0, "WATCH", logging.INFO),
    ],
)
def test_slow_ones_are_logged_in_any_case(
    every: bool, seconds: float, verb: str, level: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        RequestLog(every=every)(request(), finished(seconds, verb))
    assert [record.levelno for record in caplog.records] == ([level] if level else [])


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_that_a_client_says_breaks_a_line(
    form: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw = HOSTILE.encode(errors="surrogateescape")
    scope = request(
        method=HOSTILE, path=HOSTILE * 500, query_string=raw, user=User(HOSTILE),
        headers=[(b"user-agent", raw * 500)], client=None,
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        RequestLog(every=True)(scope, finished())
    (record,) = caplog.records
    text = LineFormatter(form).format(record)
    assert text.isprintable()
    assert text.isascii() or form == "text"
    assert len(text) < 8 * VALUE_MAX
    if form == "json":
        assert json.loads(text)["method"] == HOSTILE
    else:
        assert re.fullmatch(r'(\w+=("([^"\\]|\\.)*"|[^ ="]*) ?)+', text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("word", "word"), ("", '""'), ("two words", '"two words"'), ("a=b", '"a=b"'),
        ('"', r'"\""'), ("\n", r'"\n"'), ("ä", "ä"), (True, "true"), (3, "3"),
        (0.5, "0.500000"),
    ],
)  # fmt: skip
def test_values(value: str | float, shown: str) -> None:
    assert line({"key": value}) == f"key={shown}"


def test_what_nobody_listens_to_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        say(logging.getLogger("btreecache.some"), logging.INFO, "none", value="x")
    assert not caplog.records


def test_exceptions_are_one_line() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "a %s", ("b",), sys.exc_info())
    short = LineFormatter("text").format(record)
    assert short.startswith("time=")
    assert 'message="a b" exception="ValueError: a\\r\\nb' in short
    assert "Traceback" in LineFormatter("text", tracebacks=True).format(record)
    for form in ("text", "json"):
        assert LineFormatter(form, tracebacks=True).format(record).isprintable()


@pytest.fixture
def heard() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What `serve` would log, as it would."""
    options = argparse.Namespace(debug=False, log_format="json", log_requests=True)
    lines: list[str] = []
    made = handler(options)
    made.emit = lambda record: lines.append(made.format(record))  # type: ignore[method-assign]
    log = logging.getLogger("btreecache")
    with levels(options):
        log.addHandler(made)
        yield lambda: [json.loads(one) for one in lines]
        log.removeHandler(made)


def test_the_life_of_a_cache(heard: Callable[[], list[dict[str, Any]]]) -> None:
    model = SharedModel()
    model.put(b"/registry/pods/a/x", pod("a", "x"))
    cache = Cache(b"/registry/pods/")
    compaction = Compaction(model)
    follower = Follower(model, cache, compaction=compaction, now=lambda: 0.0)
    follower.step()
    said = heard()
    assert [(one["event"], one["elements"], one["why"]) for one in said] == [
        ("listed", 1, "nothing was there")
    ]
    assert said[0]["prefix"] == "/registry/pods/"
    assert said[0]["level"] == "info"
    compaction.note(cache.revision)
    compaction.note(cache.revision)
    assert [one["event"] for one in heard()[1:]] == ["compacted"]
    follower._recover(FeedFault("version_gap", 3, 2, b"/x", "a\nb"))
    last = heard()[-1]
    assert (last["event"], last["kind"], last["level"]) == (
        "feed_trouble",
        "version_gap",
        "warning",
    )
    follower.close()


def test_every_request_of_a_server(
    heard: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("btreecache.server.application.RequestLog", lambda: RequestLog(every=True))
    with World() as world:
        world.put_pod("a", "x")
        world.get("/api/v1/namespaces/a/pods/x?pretty=%0a")
        world.get("/nowhere%0d%0aevent=forged")
        world.wait_for(lambda: sum(one["event"] == "request" for one in heard()) == 2)
    said = [one for one in heard() if one["event"] == "request"]
    assert [(one["verb"], one["resource"], one["code"]) for one in said] == [
        ("GET", "pods", 200), ("GET", "", 404),
    ]  # fmt: skip
    assert said[0]["uri"] == "/api/v1/namespaces/a/pods/x?pretty=%0a"
    assert said[0]["user"] == "system:anonymous"
    assert said[0]["bytes"] > 100
    assert said[1]["uri"] == "/nowhere\r\nevent=forged"
