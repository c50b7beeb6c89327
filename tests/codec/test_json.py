"""Objects stored as JSON, well-meant and hostile: right, or said to be unreadable; never wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from btreecache.codec import Kubernetes, strip_managed_fields
from btreecache.fields import FIELDS, fields_of
from tests.codec.objects import Field, raw

CODEC = Kubernetes()
HEAD = b'{"apiVersion":"v1","kind":"A","metadata":'


def refuse_constant(text: str) -> None:
    raise ValueError(text)


def parse(text: bytes) -> Any:
    """An independent reading: Python's own parser, strict."""
    return json.loads(text.decode(), parse_constant=refuse_constant)


def test_where_the_version_goes() -> None:
    cases = {
        # Sorted names: a custom resource.
        HEAD + b"{}}": HEAD + b'{"resourceVersion":"7"}}',
        HEAD + b'{"name":"x"}}\n': HEAD + b'{"name":"x","resourceVersion":"7"}}',
        HEAD + b'{"name":"x","uid":"u"},"spec":{}}\n':
            HEAD + b'{"name":"x","resourceVersion":"7","uid":"u"},"spec":{}}',
        HEAD + b'{"uid":"u"}}': HEAD + b'{"resourceVersion":"7","uid":"u"}}',
        # kind first: a type with a struct.
        b'{"kind":"A","apiVersion":"v1","metadata":{"name":"x","uid":"u","labels":{"a":"b"}}}':
            b'{"kind":"A","apiVersion":"v1","metadata":'
            b'{"name":"x","uid":"u","resourceVersion":"7","labels":{"a":"b"}}}',
        b'{"kind":"A","apiVersion":"v1","metadata":{"generation":1}}':
            b'{"kind":"A","apiVersion":"v1","metadata":{"resourceVersion":"7","generation":1}}',
        # One that is there is replaced.
        HEAD + b'{"resourceVersion":"","uid":"u"}}': HEAD + b'{"resourceVersion":"7","uid":"u"}}',
        HEAD + b'{"a":1,"resourceVersion" : "1234" }}': HEAD + b'{"a":1,"resourceVersion" : "7" }}',
        HEAD + b'{"resourceVersion":null}}': HEAD + b'{"resourceVersion":"7"}}',
        # White space, escapes in names, decoys.
        b' \n{ "apiVersion" :"v1", "kind": "A", "metadata" : { } }\t':
            b'{ "apiVersion" :"v1", "kind": "A", "metadata" : {"resourceVersion":"7" } }',
        b'{"apiVersion":"v1","kind":"A","\\u006detadata":{"name":"x"}}':
            b'{"apiVersion":"v1","kind":"A","\\u006detadata":{"name":"x","resourceVersion":"7"}}',
        b'{"a":{"metadata":{}},"apiVersion":"v1","b":"\\"metadata\\":{","kind":"A","metadata":{}}':
            b'{"a":{"metadata":{}},"apiVersion":"v1","b":"\\"metadata\\":{","kind":"A",'
            b'"metadata":{"resourceVersion":"7"}}',
        HEAD + b'{"resource\\u0056ersion":"1"}}': HEAD + b'{"resource\\u0056ersion":"7"}}',
        '{"apiVersion":"v1","kind":"Ä","é":"\u2028","metadata":{"ß":"ü"}}'.encode():
            '{"apiVersion":"v1","kind":"Ä","é":"\u2028","metadata":{"resourceVersion":"7","ß":"ü"}}'
            .encode(),
    }  # fmt: skip
    for stored, served in cases.items():
        element = CODEC.decode(raw(stored))
        assert (element.value, element.problem) == (served, None)
        assert element.source_value() == stored


UNREADABLE = {
    b"": "empty",
    b"{}": "apiVersion is missing",
    b"null": "object",
    b"[1]": "object",
    b'"k8s"': "object",
    b"{": "truncated",
    b'\xef\xbb\xbf{"apiVersion":"v1","kind":"A","metadata":{}}': "malformed",
    HEAD + b"{}} x": "trailing",
    HEAD + b"{}}\0": "trailing",
    HEAD + b"null}": "object",
    HEAD + b"[]}": "object",
    HEAD + b'"x"}': "object",
    b'{"apiVersion":"v1","kind":"A"}': "metadata is missing",
    b'{"apiVersion":"","kind":"A","metadata":{}}': "apiVersion is missing",
    b'{"apiVersion":"v1","kind":7,"metadata":{}}': "str",
    b'{"Kind":"A","apiVersion":"v1","metadata":{}}': "kind is missing",
    HEAD + b'{},"metadata":{}}': "twice",
    HEAD + b'{"name":"x"},"metadata":{"name":"x"}}': "twice",
    HEAD + b'{},"\\u006detadata":{}}': "twice",
    HEAD + b'{},"spec":1,"spec":1}': "twice",
    HEAD + b'{},"spec":1,"spec":12}': "twice",
    HEAD + b'{"resourceVersion":"1","resourceVersion":"1"}}': "twice",
    HEAD + b'{"resourceVersion":"1","resourceVersion":"2"}}': "twice",
    HEAD + b'{"name":"x","\\u006eame":"x"}}': "twice",
    HEAD + b'{"resourceVersion":7}}': "str",
    HEAD + b'{"labels":{"a":1}}}': "str",
    HEAD + b'{"labels":["a"]}}': "object",
    HEAD + b'{"name":["a"]}}': "str",
    HEAD + b'{},"spec":"\xff"}': "UTF-8",
    HEAD + b'{},"spec":"\xed\xa0\x80"}': "UTF-8",
    HEAD + b'{},"spec":"\x01"}': "malformed",
    HEAD + b'{},"spec":01}': "malformed",
    HEAD + b'{},"spec":NaN}': "malformed",
    HEAD + b'{},"spec":' + b"[" * 100_000 + b"]" * 100_000 + b"}": "nested",
    HEAD + b'{"a":' * 100_000: "nested",
    b"k8s:enc:aescbc:v1:key1:\xff\x00": "encrypted at rest (aescbc)",
    b"\xd9\xd9\xf7\xa0": "CBOR",
}


@pytest.mark.parametrize("stored", UNREADABLE, ids=[str(i) for i in range(len(UNREADABLE))])
def test_unreadable(stored: bytes) -> None:
    element = CODEC.decode(raw(stored))
    assert element.problem is not None
    assert UNREADABLE[stored] in element.problem
    assert len(element.problem) <= 200
    assert (element.value, element.labels, element.fields) == (stored, (), ())
    assert element.source_value() == stored
    assert element.digest() == raw(stored).digest()
    assert strip_managed_fields(element) is element


def test_a_problem_is_short_whatever_the_value_says() -> None:
    problem = CODEC.decode(raw(HEAD + b'{"labels":{"' + b"x" * 5_000 + b'":1}}}')).problem
    assert problem is not None
    assert len(problem) <= 200


# Any object whatever: names that matter, names that look like them, every kind of space and escape.

NAMES = st.sampled_from(
    ["apiVersion", "kind", "metadata", "spec", "name", "namespace", "labels", "uid", "a", "é",
     "resourceVersion", "managedFields", "generateName", "resourceVersioz", '"', "\\", ""]
)  # fmt: skip
SPACES = st.sampled_from(["", "", "", " ", "\n", "\t\r "])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from(["", "x", "é\n", '"}', "\\", "7"])
)


@st.composite
def written(draw: st.DrawFn, depth: int = 3, compact: bool | None = None) -> str:
    """A JSON object as text, members perhaps twice, written in any way that JSON allows."""
    compact = draw(st.booleans()) if compact is None else compact

    def space() -> str:
        return "" if compact else draw(SPACES)

    def text(value: str) -> str:
        if not compact and draw(st.integers(0, 3)) == 0:
            return '"' + "".join(f"\\u{ord(char):04x}" for char in value) + '"'
        return json.dumps(value, ensure_ascii=draw(st.booleans()))

    members = []
    for _ in range(draw(st.integers(0, 4))):
        if depth and draw(st.booleans()):
            value = draw(written(depth - 1, compact))
        else:
            scalar = draw(SCALARS)
            value = text(scalar) if isinstance(scalar, str) else json.dumps(scalar)
        members.append((draw(NAMES), value))
    if depth == 3:
        head = [("apiVersion", '"v1"'), ("kind", '"A"'), ("metadata", draw(written(1, compact)))]
        for member in head:
            members.insert(draw(st.integers(0, len(members))), member)
    body = ",".join(
        f"{space()}{text(name)}{space()}:{space()}{value}{space()}" for name, value in members
    )
    return space() + "{" + (body or space()) + "}" + space()


def top_level(text: bytes) -> tuple[list[str], list[str]]:
    """Names of the object's and of its last metadata's members, duplicates included."""
    seen: dict[int, list[str]] = {}

    def hook(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        seen[id(made)] = [name for name, _ in found]
        keep.append(made)
        return made

    keep: list[Any] = []
    made = json.loads(text.decode(), object_pairs_hook=hook)
    metadata = made.get("metadata")
    return seen[id(made)], seen[id(metadata)] if isinstance(metadata, dict) else []


@given(written())
@example('{"apiVersion":"v1","kind":"A","metadata":{"resourceVersion":"7","a":1}}')
@example('{"apiVersion":"v1","kind":"A","metadata":{"labels":false}}')
@example('{"apiVersion":"v1","kind":"A","spec":1,"metadata":{},"spec":12}')
def test_any_object(text: str) -> None:
    stored = text.encode()
    element = CODEC.decode(raw(stored))
    assert element.source_value() == stored
    assert element.digest() == raw(stored).digest()
    before = parse(stored)
    names, inner = top_level(stored)
    if element.problem is not None:
        # What nothing is wrong with must be read.
        metadata = before.get("metadata")
        good = (
            isinstance(metadata, dict)
            and all(
                isinstance(before[name], str) and before[name] for name in ("apiVersion", "kind")
            )
            and all(
                isinstance(metadata.get(name), str | None)
                for name in ("name", "namespace", "resourceVersion")
            )
            and isinstance(metadata.get("labels"), dict | None)
            and all(isinstance(value, str) for value in (metadata.get("labels") or {}).values())
            and len(set(names)) == len(names)
            and len(set(inner)) == len(inner)
        )
        assert not good, element.problem
        return
    after = parse(element.value)
    assert element.value[:1] + element.value[-1:] == b"{}"
    served_names, served_inner = top_level(element.value)
    assert served_names == names
    assert sorted(served_inner) == sorted({*inner, "resourceVersion"})
    assert after["metadata"].pop("resourceVersion") == "7"
    before["metadata"].pop("resourceVersion", None)
    assert after == before
    labels = before["metadata"].get("labels") or {}
    assert dict(zip(element.labels[::2], element.labels[1::2], strict=True)) == labels
    assert list(element.labels[::2]) == sorted(element.labels[::2])
    stripped = strip_managed_fields(element)
    after["metadata"].pop("managedFields", None)
    left = parse(stripped.value)
    assert left["metadata"].pop("resourceVersion") == "7"
    assert left == after
    assert stripped.digest() == raw(stored).digest()


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_any_bytes(noise: bytes, at: int, cut: int) -> None:
    base = HEAD + b'{"name":"x","labels":{"a":"b"}},"spec":{"a":[1,2]}}'
    for stored in (noise, base[:at] + noise + base[at + cut :]):
        element = CODEC.decode(raw(stored))
        assert element.source_value() == stored
        if element.problem is None and not stored.startswith(b"k8s\0"):
            before, after = parse(stored), parse(element.value)
            assert after["metadata"].pop("resourceVersion") == "7"
            before["metadata"].pop("resourceVersion", None)
            assert after == before


def test_fields_of_any_depth_and_kind() -> None:
    codec = Kubernetes(
        [
            Field("a.b.c", ("a", "b", "c"), "none"),
            Field("a.b.d", ("a", "b", "d")),
            Field("type", ("type",), "Opaque"),
            Field("metadata.annotations.x/y", ("metadata", "annotations", "x/y")),
            Field("n", ("a", "n-1")),
        ]
    )
    cases = {
        b'"a":{"b":{"c":"x","d":true},"n-1":-7},"type":"t"': ("x", "true", "t", "z", "-7"),
        b'"a":{"b":{"c":"","d":false},"n-1":null}': ("none", "false", "Opaque", "z", ""),
        b'"a":{"b":null}': ("none", "", "Opaque", "z", ""),
        b'"a":null,"type":null': ("none", "", "Opaque", "z", ""),
        b'"z":1': ("none", "", "Opaque", "z", ""),
    }
    for rest, want in cases.items():
        stored = HEAD + b'{"annotations":{"x/y":"z"}},' + rest + b"}"
        element = codec.decode(raw(stored))
        assert element.problem is None
        assert element.fields == ("", "", *want)
    for rest in (b'"a":[]', b'"a":{"b":"x"}', b'"a":{"n-1":1.5}', b'"type":{}'):
        problem = codec.decode(raw(HEAD + b"{}," + rest + b"}")).problem
        assert problem is not None
        assert re.search("Expected", problem)


@pytest.mark.parametrize(
    "fields",
    [
        [Field("a", ("a",)), Field("a.b", ("a", "b"))],
        [Field("a.b", ("a", "b")), Field("a", ("a",))],
        [Field("a", ("x",)), Field("a", ("y",))],
        [Field("a", ())],
        [Field("m", ("metadata",))],
    ],
)
def test_fields_that_contradict_each_other(fields: list[Field]) -> None:
    with pytest.raises(ValueError, match=r"field|path|metadata"):
        Kubernetes(fields)


def test_strings_are_shared_and_the_table_is_bounded() -> None:
    from btreecache.codec.base import Shared

    shared = Shared(strings_max=3, length_max=4)
    first = shared.one("".join(["a", "b"]))
    assert shared.one("".join(["a", "b"])) is first
    long = "x" * 5
    assert shared.one(long) is long
    for index in range(100):
        assert shared.one(f"{index}") == f"{index}"
        assert len(shared._known) <= 3
    assert shared.labels({}) is shared.labels({})


def test_the_first_path_that_has_a_value() -> None:
    codec = Kubernetes(fields_of("", "pods").fields)
    for status, ip in (
        (b'{"podIP":"1","podIPs":[{"ip":"2"}]}', "1"),
        (b'{"podIPs":[{"ip":"2"},{"ip":"3"}]}', "2"),
        (b'{"podIPs":[]}', ""),
        (b'{"podIPs":null}', ""),
        (b"{}", ""),
    ):
        element = codec.decode(raw(HEAD + b'{},"status":' + status + b"}"))
        found = dict(zip(codec.fields, element.fields, strict=True))
        assert (found["status.podIP"], found["status.podIPs"]) == (ip, "")
        assert found["spec.restartPolicy"] == "Always"


def test_every_table_of_fields_makes_a_codec() -> None:
    for (group, resource), declared in FIELDS.items():
        codec = Kubernetes(declared.fields)
        names = [field.name for field in declared.fields]
        assert set(names) <= set(codec.fields), (group, resource)
        stored = HEAD + b'{"name":"x"}}'
        want = dict(zip(names, declared.values(json.loads(stored)), strict=True))
        found = dict(zip(codec.fields, codec.decode(raw(stored)).fields, strict=True))
        assert {name: found[name] for name in names} == want
