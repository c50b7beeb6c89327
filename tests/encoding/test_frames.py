"""Watch frames: lines of JSON, lengths and messages of Protobuf; objects, bookmarks, errors."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from btreecache.codec import Kubernetes
from btreecache.codec.transcode import json_of
from btreecache.element import Element
from btreecache.encoding import answer
from btreecache.encoding.answer import Answers, form_of
from btreecache.encoding.media import As, Format, MediaType
from btreecache.encoding.values import Values
from btreecache.errors import BtreecacheError, FutureRevision, status
from btreecache.resources import BUILT_IN
from btreecache.watch_stream import WatchEvent
from tests.codec.objects import recorded
from tests.encoding import oracle
from tests.encoding.check import answers
from tests.encoding.lists import draw

_PODS = BUILT_IN.get("", "v1", "pods")
assert _PODS is not None
PODS = _PODS


def pods(form: Format = "json", as_: As = "") -> Answers:
    media = MediaType(form, as_)
    return Answers(form_of(PODS, "v1", media, Values(), typed=True), media, lambda: 0.0)


@pytest.mark.parametrize("seed", range(60))
def test_objects(seed: int) -> None:
    drawn = draw(Random(f"frames {seed}"))
    values = Values()
    kinds: list[Any] = ["ADDED", "MODIFIED", "DELETED"]
    for number, (document, element) in enumerate(zip(drawn.objects, drawn.elements, strict=True)):
        event = WatchEvent(kinds[number % 3], element.mod_revision, element)
        got = answers(drawn, MediaType(), values).frame(event, is_first=False)
        assert got.count(b"\n") == 1
        assert got.endswith(b"\n")
        assert json.loads(got) == {"type": event.type, "object": document}
        assert got.startswith(oracle.json_frame(event.type, {})[:-4])
        partial = MediaType(as_="PartialObjectMetadata")
        got = answers(drawn, partial, values).frame(event, is_first=False)
        assert got.count(b"\n") == 1
        assert json.loads(got) == {"type": event.type, "object": oracle.partial(document)}
        if drawn.typed:
            form = answers(drawn, MediaType("protobuf"), values)
            got = form.frame(event, is_first=False)
            value = form.form.protobuf(element)
            assert got == oracle.protobuf_frame(event.type, value)
            assert json.loads(json_of(value)) == document


def test_what_a_real_server_sent() -> None:
    """Byte for byte: the state of a watch that began without a version."""
    line = Path(__file__).with_name("pod-answers.jsonl").read_text().splitlines()[-1]
    recording = json.loads(line)
    assert "watch=1" in recording["path"]
    codec = Kubernetes()
    stored = [codec.decode(one.element) for one in recorded() if b"/pods/" in one.key]
    got = b"".join(
        pods().frame(WatchEvent("ADDED", one.mod_revision, one), is_first=False) for one in stored
    )
    assert got.decode() == recording["body"]


def test_bookmarks() -> None:
    assert pods().frame(WatchEvent("BOOKMARK", 9), is_first=False) == (
        b'{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1",'
        b'"metadata":{"resourceVersion":"9"}}}\n'
    )
    ends = WatchEvent("BOOKMARK", 9, ends_initial_events=True)
    annotated = {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}
    shown = json.loads(pods().frame(ends, is_first=False))
    assert shown["object"]["metadata"] == annotated
    shown = json.loads(pods(as_="PartialObjectMetadata").frame(ends, is_first=False))
    assert shown["object"] == oracle.partial({"metadata": annotated})
    for as_, kind in (("", "Pod"), ("PartialObjectMetadata", "PartialObjectMetadata")):
        got = pods("protobuf", as_).frame(ends, is_first=False)  # type: ignore[arg-type]
        value = event_of(got)
        shown = json.loads(json_of(value))
        assert shown["kind"] == kind
        assert shown["metadata"] == annotated


def event_of(frame: bytes) -> bytes:
    """The object in one frame of protobuf, in its envelope."""
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    event = oracle.CLASSES["WatchEvent"].FromString(frame[4:])
    assert oracle.protobuf_frame(event.type, event.object.raw) == frame
    return bytes(event.object.raw)


@pytest.mark.parametrize("as_", ["", "Table", "PartialObjectMetadata"])
def test_errors(as_: As) -> None:
    error = FutureRevision(9, 1)
    event = WatchEvent("ERROR", 9, error=error)
    got = pods(as_=as_).frame(event, is_first=True)
    assert got == oracle.json_frame("ERROR", status(error))
    assert got == pods(as_=as_).error_frame(error)
    if as_ != "Table":
        got = pods("protobuf", as_).frame(event, is_first=True)
        assert json.loads(json_of(event_of(got))) == status(error)
        assert got == pods("protobuf", as_).error_frame(error)


@pytest.mark.parametrize("error", [BtreecacheError("a\udcffb"), ValueError("<\n>")])
def test_errors_of_any_kind(error: Exception) -> None:
    assert json.loads(pods().error_frame(error))["object"]["code"] == 500
    assert json.loads(json_of(event_of(pods("protobuf").error_frame(error))))["code"] == 500


def test_a_table_says_its_columns_once() -> None:
    one = Element(b"x", b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}', 1, 1, 1)
    event = WatchEvent("ADDED", 1, one)
    first = json.loads(pods(as_="Table").frame(event, is_first=True))["object"]
    later = json.loads(pods(as_="Table").frame(event, is_first=False))["object"]
    assert first["columnDefinitions"]
    assert later == first | {"columnDefinitions": None}
    assert first["rows"][0]["cells"][0] == "a"
    bookmark = pods(as_="Table").frame(WatchEvent("BOOKMARK", 9), is_first=False)
    assert json.loads(bookmark)["object"]["metadata"] == {"resourceVersion": "9"}


def test_a_table_frame_is_made_once_for_all_who_watch_and_ages_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ages were once counted to when the watch began."""
    made = []
    original = answer.table_frame_object
    monkeypatch.setattr(
        answer, "table_frame_object", lambda *a, **k: made.append(1) or original(*a, **k)
    )
    pod = {"kind": "Pod", "apiVersion": "v1",
           "metadata": {"name": "x", "creationTimestamp": "1970-01-01T00:00:00Z"}}  # fmt: skip
    element = Element(b"/x", json.dumps(pod, separators=(",", ":")).encode(), 7, 7, 1)
    event, now, values = WatchEvent("ADDED", 7, element), [60.2], Values()
    media = MediaType("json", "Table")
    watchers = [
        Answers(form_of(PODS, "v1", media, values, typed=True), media, lambda: now[0])
        for _ in range(5)
    ]
    frames = {one.frame(event, is_first=False) for one in watchers}
    now[0] = 60.9
    frames |= {one.frame(event, is_first=False) for one in watchers}
    assert (len(frames), len(made)) == (1, 1)
    now[0] = 240.0
    later = {one.frame(event, is_first=False) for one in watchers}
    assert (len(later), len(made)) == (1, 2)
    assert b'"60s"' in frames.pop()
    assert b'"4m"' in later.pop()
    first = watchers[0].frame(event, is_first=True)
    assert b'"columnDefinitions":[' in first
