"""Whatever was stored, and in whatever order and spacing, what goes out parses to the objects."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btreecache.codec import Kubernetes
from btreecache.element import Element
from btreecache.encoding import envelope, json_list
from btreecache.encoding.answer import Answers
from btreecache.encoding.form import Form
from btreecache.encoding.go_json import json_bytes
from btreecache.encoding.media import MediaType
from btreecache.encoding.metadata import MetadataForm
from btreecache.encoding.refusals import NotAcceptable
from btreecache.encoding.values import Values
from btreecache.errors import BadRequest, status
from btreecache.plan import PageMeta
from btreecache.resources import BUILT_IN, parse_resource
from btreecache.watch_stream import WatchEvent
from tests.encoding import oracle

_PODS = BUILT_IN.get("", "v1", "pods")
assert _PODS is not None
PODS = _PODS
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
    resource = PODS if typed else parse_resource("g.io/v1/pods:Pod:namespaced")
    form = Form(resource, "v1", typed, Values())
    documents, elements = [], []
    for number, one in enumerate(drawn):
        document, value = stored(one, "Pod", form.api_version, number)
        documents.append(document)
        elements.append(element(value))
    meta = PageMeta("9", "token", 3)
    body = json_list.json_list(form, elements, meta)
    length = body.length
    whole = b"".join(body)
    assert length == len(whole)
    for looked_over in (0, json_list.LOOKED_OVER_MAX):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_list, "CHUNK_BYTES", chunk_bytes)
            patch.setattr(json_list, "LOOKED_OVER_MAX", looked_over)
            assert b"".join(json_list.json_list(form, elements, meta)) == whole  # I9
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
    document, value = stored(drawn, "Pod", "v1", 0)
    answers = Answers(Form(PODS, "v1", True, Values()), MediaType(), lambda: 0.0)
    frame = answers.frame(WatchEvent(kind, 7, element(value)), is_first=True)
    assert frame.count(b"\n") == 1
    assert frame.endswith(b"\n")
    shown = json.loads(frame)
    assert shown["type"] == kind
    assert shown["object"]["metadata"].pop("resourceVersion") == "7"
    assert shown["object"] == document


def test_documents_are_escaped_as_go_does() -> None:
    assert json_bytes({"a": '<&>\u2028\u2029é"\\\n'}) == (
        '{"a":"\\u003c\\u0026\\u003e\\u2028\\u2029é\\"\\\\\\n"}'.encode()
    )
    assert json_bytes(status(BadRequest("a\udcffb")))  # never an exception


@pytest.mark.parametrize("size", [0, 1, 100, 125, 126, 127, 128, 16_380, 16_384, 70_000, 2_100_000])
def test_envelopes_of_every_size(size: int) -> None:
    """An item of a list is a slice of an envelope as upstream writes it, else the same bytes."""
    head = envelope.head("v1", "Pod")
    raw = b"x" * size
    plain = oracle.envelope("Pod", "v1", raw)
    assert envelope.enclosed(head, raw) == plain
    assert envelope.is_plain(plain, head)
    item = oracle.CLASSES["List"](items=[raw]).SerializeToString()
    assert envelope.entry_of(plain, head) == item
    other = b"k8s\0" + oracle.CLASSES["Unknown"](raw=raw).SerializeToString()
    assert not envelope.is_plain(other, head)
    assert envelope.entry_of(other, head) == item
    other = plain[:-4] + b"\x22\0\x1a\0"
    assert not envelope.is_plain(other, head)
    assert envelope.entry_of(other, head) == item
    # A length longer than need be, and one that doesn't fit.
    at = len(head) + 1
    for value in (
        plain[:at] + b"\xff" + plain[at + 1 :],
        plain[: len(head)] + b"\x22" + plain[at:],
        plain[:-4],
        plain[:-5] + plain[-4:],
        head + b"\x1a\0\x22\0",
    ):
        assert not envelope.is_plain(value, head)


@pytest.mark.parametrize("value", [b'{"kind":"Pod","apiVersion":"v1"}', b'{"kind":7}', b"[]", b"{"])
def test_metadata_of_what_has_none_is_refused(value: bytes) -> None:
    form = MetadataForm(PODS, "v1", Values())
    with pytest.raises(NotAcceptable, match="no JSON object"):
        form.text(Element(b"/x", value, 1, 1, 1))
