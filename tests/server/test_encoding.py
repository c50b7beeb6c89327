"""Bytes that go out: whatever was stored, they parse to the objects, and frames are lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btreecache.codec import Kubernetes
from btreecache.element import Element
from btreecache.errors import BadRequest, FutureRevision
from btreecache.plan import PageMeta
from btreecache.resources import BUILT_IN, parse_resource
from btreecache.server import encoding
from btreecache.server.encoding import Form, json_bytes, status_of
from btreecache.server.refusals import NotAcceptable, UnknownPath
from btreecache.watch_stream import WatchEvent

PODS = BUILT_IN.get("", "v1", "pods")
CODEC = Kubernetes()

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)

#: Objects in every order of members, with every white space that JSON has.
STORED = st.tuples(
    st.permutations(["kind", "apiVersion", "metadata", "spec"]),
    JSON,
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
    st.sampled_from(["", " ", "\r\n"]),
)


def stored(drawn: Any, kind: str, api_version: str, number: int) -> tuple[dict[str, Any], bytes]:
    order, spec, indent, ascii_only, margin = drawn
    whole = {
        "kind": kind,
        "apiVersion": api_version,
        "metadata": {"name": f"x{number}", "namespace": "a"},
        "spec": spec,
    }
    document = {name: whole[name] for name in order}
    separators = (",", ":") if indent is None else None
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only, separators=separators)
    return document, (margin + text.replace("\n", "\r\n") + margin).encode()


def element(value: bytes, revision: int = 7) -> Element:
    made = CODEC.decode(Element(b"/registry/pods/a/x", value, revision, 1, 1))
    assert made.problem is None
    return made


@given(st.lists(STORED, max_size=5), st.booleans(), st.integers(1, 200))
def test_lists_parse_to_what_was_stored(drawn: list[Any], typed: bool, chunk_bytes: int) -> None:
    assert PODS is not None
    resource = PODS if typed else parse_resource("g.io/v1/pods:Pod:namespaced")
    form = Form(resource, "v1", typed)
    documents, elements = [], []
    for number, one in enumerate(drawn):
        document, value = stored(one, "Pod", form.api_version, number)
        documents.append(document)
        elements.append(element(value))
    meta = PageMeta("9", "token", 3)
    whole = b"".join(form.page(elements, meta))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "CHUNK_BYTES", chunk_bytes)
        assert b"".join(form.page(elements, meta)) == whole  # I9
    assert whole.endswith(b"}\n")
    answer = json.loads(whole)
    assert [*answer] == sorted(answer) if not typed else ["kind", "apiVersion", "metadata", "items"]
    assert answer["kind"] == "PodList"
    assert answer["metadata"] == {
        "resourceVersion": "9", "continue": "token", "remainingItemCount": 3,
    }  # fmt: skip
    for item, document in zip(answer["items"], documents, strict=True):
        assert item["metadata"].pop("resourceVersion") == "7"
        # Of kind and apiVersion an item has both or none.
        shown = {"kind": "Pod", "apiVersion": form.api_version} | item
        assert shown == document
        assert ("kind" in item) == ("apiVersion" in item)
        assert typed or "kind" in item


@given(STORED, st.sampled_from(["ADDED", "MODIFIED", "DELETED"]))
def test_a_frame_is_one_line(drawn: Any, kind: Any) -> None:
    assert PODS is not None
    document, value = stored(drawn, "Pod", "v1", 0)
    frame = Form(PODS, "v1", typed=True).frame(WatchEvent(kind, 7, element(value)))
    assert frame.count(b"\n") == 1
    assert frame.endswith(b"\n")
    shown = json.loads(frame)
    assert shown["type"] == kind
    assert shown["object"]["metadata"].pop("resourceVersion") == "7"
    assert shown["object"] == document


def test_bookmarks_and_errors() -> None:
    assert PODS is not None
    form = Form(PODS, "v1", typed=True)
    assert form.frame(WatchEvent("BOOKMARK", 9)) == (
        b'{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1",'
        b'"metadata":{"resourceVersion":"9"}}}\n'
    )
    failed = form.frame(WatchEvent("ERROR", 9, error=FutureRevision(9, 1)))
    assert json.loads(failed) == {"type": "ERROR", "object": status_of(FutureRevision(9, 1))}


def test_documents_are_escaped_as_go_does() -> None:
    assert json_bytes({"a": '<&>\u2028\u2029é"\\\n'}) == (
        '{"a":"\\u003c\\u0026\\u003e\\u2028\\u2029é\\"\\\\\\n"}'.encode()
    )
    assert json_bytes(status_of(BadRequest("a\udcffb")))  # never an exception
    assert list(status_of(UnknownPath()))[-2:] == ["details", "code"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"k8s\0\n\x00", "stored as protobuf"),
        (b'{"kind":"Pod","apiVersion":"v2","metadata":{}}', 'stored as "Pod" of "v2"'),
        (b'{"kind":"Node","apiVersion":"v1","metadata":{}}', 'stored as "Node" of "v1"'),
        (b"[1]", "no JSON object"),
        (b"[" * 5_000, "no JSON object"),
        (b"\xff", "no JSON object"),
    ],
)
def test_what_is_not_what_was_asked_for(value: bytes, why: str) -> None:
    assert PODS is not None
    form = Form(PODS, "v1", typed=True)
    bad = Element(b"/registry/pods/a/\xff", value, 1, 1, 1)
    for read in (
        lambda: form.object(bad),
        lambda: form.page([bad], PageMeta("1")),
        lambda: form.frame(WatchEvent("ADDED", 1, bad)),
    ):
        with pytest.raises(NotAcceptable) as refused:
            read()
        assert why in str(refused.value)
        assert "/registry/pods/a/\\xff" in str(refused.value)
    with pytest.raises(NotAcceptable, match="and 5 more"):
        form.page([bad] * 15, PageMeta("1"))
