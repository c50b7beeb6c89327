"""Tables: the layout of a real API server's, streamed, from any list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btreecache.codec import Kubernetes
from btreecache.codec.base import Unreadable
from btreecache.element import Element
from btreecache.encoding.body import CHUNK_BYTES, CHUNK_BYTES_MAX
from btreecache.encoding.columns import columns_of
from btreecache.encoding.table import (
    IncludeObject,
    parse_include_object,
    table_chunks,
    table_frame_object,
)
from btreecache.errors import BadRequest
from btreecache.resources import Resource
from tests.encoding.table_samples import (
    ASKED,
    CELLS,
    NOW,
    TABLES,
    TEXTS,
    an,
    asked_for,
    resource,
)

PODS = resource("pods")
FORMS: list[IncludeObject] = ["None", "Metadata", "Object"]


def element(text: bytes, key: bytes = b"/registry/pods/ns/p") -> tuple[Element, bytes]:
    return Element(key, text, 7, 1, 1), text


def text_of(one: Any) -> bytes:
    return json.dumps(one, separators=(",", ":"), ensure_ascii=False).encode()


def whole(of: Resource, texts: list[bytes], meta: dict[str, object], **how: Any) -> bytes:
    return b"".join(table_chunks(of, map(element, texts), meta, **({"now_s": NOW} | how)))


# Against a real server.


@pytest.mark.parametrize("answer", TABLES, ids=lambda one: one["path"])
def test_byte_for_byte_what_a_real_server_sent(answer: dict[str, Any]) -> None:
    """But for what columns and their descriptions are; test_columns.py compares the cells."""
    body: bytes = answer["body"].encode()
    table, of = json.loads(body), asked_for(answer["path"])
    rows = [row for row in table["rows"] if row["object"]["metadata"]["uid"] in TEXTS]
    texts = [TEXTS[row["object"]["metadata"]["uid"]] for row in rows]
    ours = whole(of, texts, table["metadata"], now_s=ASKED)
    before, after = b',"columnDefinitions":[', b'],"rows":['
    assert ours.split(before)[0] == body.split(before)[0]
    if len(rows) < len(table["rows"]):
        # Not all of its objects were recorded: compare those that were.
        theirs = [json.dumps(row["object"]) for row in rows]
        assert [json.dumps(row["object"]) for row in json.loads(ours)["rows"]] == theirs
        return
    ours_rows, their_rows = ours.split(after, 1)[1], body.split(after, 1)[1]
    if of.plural in {"pods", "jobs", "persistentvolumes"}:
        # Cells of later servers differ, and only those.
        for row, other in zip(json.loads(ours)["rows"], rows, strict=True):
            theirs = text_of(other["cells"]).decode().replace("<", "\\u003c")
            ours_cells = text_of(row["cells"]).decode().replace("<", "\\u003c")
            assert their_rows.count(theirs.replace(">", "\\u003e").encode()) == 1
            ours_rows = ours_rows.replace(
                ours_cells.replace(">", "\\u003e").encode(),
                theirs.replace(">", "\\u003e").encode(),
            )
    assert ours_rows == their_rows


# The layout.


def test_the_layout() -> None:
    text = text_of(an("p<q", status={"phase": "Failed"}))
    metadata = '"metadata":{"name":"p<q","creationTimestamp":"2026-05-04T11:50:00Z"}'
    definition = columns_of(PODS).columns[0].members()
    assert list(definition) == ["name", "type", "format", "description", "priority"]
    table = whole(PODS, [text, text], {"resourceVersion": "9", "continue": "abc"}).decode()
    head, rest = table.split('"columnDefinitions":')
    assert head == (
        '{"kind":"Table","apiVersion":"meta.k8s.io/v1",'
        '"metadata":{"resourceVersion":"9","continue":"abc"},'
    )
    columns, rows = rest.split(',"rows":')
    assert json.loads(columns) == [one.members() for one in columns_of(PODS).columns]
    none = ",".join(['"\\u003cnone\\u003e"'] * 4)
    row = (
        f'{{"cells":["p\\u003cq","0/0","Failed","0","10m",{none}],'
        '"conditions":[{"type":"Completed","status":"True","reason":"Failed",'
        '"message":"It will not run any more: Failed."}],'
        '"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",'
        f"{metadata}}}}}"
    )
    assert rows == f"[{row},{row}]}}\n"


def test_an_empty_list_has_columns_and_no_rows() -> None:
    table = json.loads(whole(PODS, [], {"resourceVersion": "9"}))
    assert len(table["columnDefinitions"]) == 9
    assert table["rows"] == []


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "one"), [case[:2] for case in CELLS])
def test_what_a_row_holds(
    name: str, one: dict[str, Any], form: IncludeObject, version: str
) -> None:
    of = resource(name)
    how: dict[str, Any] = {"include_object": form, "version": version}
    text = text_of({"kind": of.kind, "apiVersion": of.group_version(of.versions[0]), **one})
    table = json.loads(whole(of, [text], {}, **how))
    assert (table["kind"], table["apiVersion"]) == ("Table", f"meta.k8s.io/{version}")
    (row,) = table["rows"]
    assert row["cells"] == columns_of(of).cells(one, NOW)
    partial = {"kind": "PartialObjectMetadata", "apiVersion": table["apiVersion"]}
    assert (
        row["object"]
        == {
            "None": None,
            "Metadata": {**partial, "metadata": one["metadata"]},
            "Object": json.loads(text),
        }[form]
    )
    frame = json.loads(table_frame_object(of, text, now_s=NOW, **how))
    assert frame == table | {"metadata": {"resourceVersion": ""}}


@pytest.mark.parametrize(
    ("phase", "conditions"), [("Running", 0), ("Succeeded", 1), ("Failed", 1), ("", 0)]
)
def test_a_pod_that_has_ended_says_so(phase: str, conditions: int) -> None:
    (row,) = json.loads(whole(PODS, [text_of(an("p", status={"phase": phase}))], {}))["rows"]
    assert len(row.get("conditions", [])) == conditions
    if conditions:
        assert row["conditions"][0]["reason"] == phase


# Watches and single objects.


def test_only_the_first_frame_has_columns() -> None:
    text = text_of(an("p", metadata={"resourceVersion": "12"}))
    first = table_frame_object(PODS, text, now_s=NOW)
    later = table_frame_object(PODS, text, now_s=NOW, is_first=False)
    assert b'"metadata":{"resourceVersion":"12"},"columnDefinitions":[{' in first
    assert b'"metadata":{"resourceVersion":"12"},"columnDefinitions":null,"rows":[{' in later
    assert json.loads(first) | {"columnDefinitions": None} == json.loads(later)


def test_a_bookmark_is_a_row_without_a_name() -> None:
    text = b'{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"12"}}'
    table = json.loads(table_frame_object(PODS, text, now_s=NOW, is_first=False))
    assert table["metadata"] == {"resourceVersion": "12"}
    assert table["rows"][0]["cells"][:5] == ["", "0/0", "", "0", "<unknown>"]
    assert table["rows"][0]["object"]["metadata"] == {"resourceVersion": "12"}


@pytest.mark.parametrize("form", FORMS)
def test_a_frame_is_one_line(form: IncludeObject) -> None:
    text = json.dumps(an("p\r\n", metadata={"labels": {"a": "b"}}), indent=2).encode()
    frame = table_frame_object(PODS, text.replace(b"\n", b"\r\n"), now_s=NOW, include_object=form)
    assert b"\n" not in frame
    assert b"\r" not in frame
    assert json.loads(frame)["rows"][0]["cells"][0] == "p\r\n"


# Streaming.


def test_chunks_are_of_even_size_and_rows_are_made_when_asked_for() -> None:
    taken = 0

    def elements() -> Iterator[tuple[Element, bytes]]:
        nonlocal taken
        for index in range(2000):
            taken += 1
            yield element(text_of(an(f"p{index}", metadata={"labels": {"x": "y" * 300}})))

    chunks = table_chunks(PODS, elements(), {"resourceVersion": "9"}, now_s=NOW)
    assert taken == 0
    received = [next(chunks)]
    assert taken < 200
    received += chunks
    assert taken == 2000
    sizes = [len(one) for one in received]
    assert all(CHUNK_BYTES <= size < CHUNK_BYTES + 1000 for size in sizes[:-1])
    rows = json.loads(b"".join(received))["rows"]
    assert [row["cells"][0] for row in rows] == [f"p{index}" for index in range(2000)]


def test_a_big_object_goes_out_in_several_chunks() -> None:
    big = text_of(an("cm", data={"x": "y" * 1_000_000}))
    maps = resource("configmaps")
    chunks = list(table_chunks(maps, [element(big)] * 3, {}, now_s=NOW, include_object="Object"))
    assert all(CHUNK_BYTES <= len(one) <= CHUNK_BYTES_MAX for one in chunks[:-1])
    assert b"".join(chunks) == whole(maps, [big] * 3, {}, include_object="Object")
    assert [row["cells"][1] for row in json.loads(b"".join(chunks))["rows"]] == [1, 1, 1]


# Hostile objects.


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b'"x"', b"7", b"{", b'{"a":}', b"k8s\0\n"])
def test_what_is_no_object_is_refused_by_its_key(text: bytes) -> None:
    good = text_of(an("p"))
    chunks = table_chunks(PODS, [element(good), element(text, b"/a\xff")], {}, now_s=NOW)
    with pytest.raises(Unreadable, match=r'pods at key "/a\\xff": its value is no JSON object'):
        list(chunks)
    with pytest.raises(Unreadable):
        table_frame_object(PODS, text, now_s=NOW)


def test_deep_nesting_is_refused_or_left_out() -> None:
    for depth in (100, 900, 1100, 5000, 100_000):
        text = b'{"metadata":{"name":"p"},"spec":%b}' % (b'{"a":' * depth + b"1" + b"}" * depth)
        try:
            frame = table_frame_object(PODS, text, now_s=NOW)
        except Unreadable:
            assert depth > 500
        else:
            assert frame.count(b'"p"') == 2


@pytest.mark.parametrize(
    ("metadata", "name", "shown"),
    [
        (b'{"name":"p","labels":7}', "p", b'{"name":"p","labels":7}'),
        (b'{"name":7}', "", b'{"name":7}'),
        (b'{"name":"p","labels":{"x":1e999}}', "p", b'{"name":"p","labels":{"x":1e999}}'),
        (b'{"name":"p","x":1e999}', "p", b'{"name":"p","x":1e999}'),
        (b'{"name":"a","name":"b"}', "b", b'{"name":"a","name":"b"}'),
        (b"[]", "", b"{}"),
        (b"null", "", b"{}"),
        (b'"x"', "", b"{}"),
    ],
)  # fmt: skip
def test_metadata_goes_out_as_it_stands_if_it_is_an_object(
    metadata: bytes, name: str, shown: bytes
) -> None:
    frame = table_frame_object(PODS, b'{"metadata":%b}' % metadata, now_s=NOW)
    assert frame.endswith(b'"apiVersion":"meta.k8s.io/v1","metadata":%b}}]}' % shown)
    assert json.loads(frame)["rows"][0]["cells"][0] == name


def test_a_number_beyond_a_double_hides_nothing_else() -> None:
    text = b'{"metadata":{"name":"p"},"spec":{"nodeName":"n","x":1e999}}'
    assert json.loads(table_frame_object(PODS, text, now_s=NOW))["rows"][0]["cells"][6] == "n"


def test_half_a_surrogate_pair_is_refused_as_the_codec_refuses_it() -> None:
    text = b'{"metadata":{"name":"p"},"spec":{"x":"\\udc00"}}'
    assert Kubernetes().decode(Element(b"/k", text, 7, 1, 1)).problem is not None
    with pytest.raises(Unreadable):
        table_frame_object(PODS, text, now_s=NOW)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "labels", "state", "x<"]), inner, max_size=3)
    ),
    max_leaves=12,
)
OBJECTS_OF_ANY_SHAPE = st.dictionaries(
    st.sampled_from(["metadata", "spec", "status", "type", "data", "kind"]), JSON
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(OBJECTS_OF_ANY_SHAPE, max_size=4),
    st.sampled_from(["pods", "nodes", "secrets", "services", "jobs", "leases"]),
    st.sampled_from(FORMS),
)
def test_any_list(objects: list[dict[str, Any]], name: str, form: IncludeObject) -> None:
    of = resource(name)
    table = json.loads(whole(of, list(map(text_of, objects)), {}, include_object=form))
    assert len(table["rows"]) == len(objects)
    for row, one in zip(table["rows"], objects, strict=True):
        assert row["cells"] == columns_of(of).cells(one, NOW)
        if form == "Object":
            assert row["object"] == one
        if form == "Metadata":
            metadata = one.get("metadata")
            assert row["object"]["metadata"] == (metadata if isinstance(metadata, dict) else {})


# The query parameter.


def test_include_object() -> None:
    assert [parse_include_object(one) for one in (*FORMS, "")] == [*FORMS, "Metadata"]
    with pytest.raises(BadRequest, match='includeObject: Invalid value: "metadata": must be'):
        parse_include_object("metadata")
