"""One random list, encoded in every form and compared with the oracle."""

from __future__ import annotations

import json
from random import Random

from btreecache.codec.transcode import protobuf_of
from btreecache.encoding.answer import Answers, form_of
from btreecache.encoding.body import CHUNK_BYTES, CHUNK_BYTES_MAX, Body
from btreecache.encoding.media import MediaType
from btreecache.encoding.values import Values
from tests.encoding import oracle
from tests.encoding.lists import Drawn, draw


def answers(drawn: Drawn, media: MediaType, values: Values) -> Answers:
    form = form_of(drawn.resource, "v1", media, values, typed=drawn.typed)
    return Answers(form, media, lambda: 0.0)


def whole(body: Body) -> bytes:
    """All of it, with what must hold of every body."""
    length = body.length
    chunks = [*body]
    data = b"".join(chunks)
    assert length is None or length == len(data)
    assert all(CHUNK_BYTES <= len(one) <= CHUNK_BYTES_MAX for one in chunks[:-1])
    return data


def same_order(document: object) -> object:
    """A JSON document as its members' order matters, too."""
    return json.dumps(document)


def check(seed: int) -> None:
    """Raises AssertionError where an encoder and the oracle disagree."""
    drawn = draw(Random(f"lists {seed}"))
    values = Values(Random(seed).choice((0, 100_000, 1 << 30)))
    kind, api_version = drawn.resource.list_kind, drawn.resource.group_version("v1")
    meta, objects = drawn.list_meta, drawn.objects

    got = whole(answers(drawn, MediaType(), values).page(drawn.elements, drawn.meta))
    as_list = oracle.json_list if drawn.typed else oracle.unstructured_list
    expected = as_list(kind, api_version, meta, objects)
    plain = json.loads(expected)
    answered = json.loads(got)
    for item, one in zip(answered["items"], objects, strict=True):
        # An item that doesn't begin with kind and apiVersion as stored keeps them.
        assert item.pop("kind", one["kind"]) == one["kind"]
        assert item.pop("apiVersion", one["apiVersion"]) == one["apiVersion"]
    for item in plain["items"]:
        item.pop("kind", None), item.pop("apiVersion", None)
    assert answered == plain
    assert [*answered] == [*plain]
    assert [*answered["metadata"]] == [*plain["metadata"]]
    begins = (b'{"kind":', b'{"apiVersion":', b"k8s")
    if drawn.typed and all(_is_struct(one.value, begins) for one in drawn.elements):
        assert got == expected

    pretty = whole(answers(drawn, MediaType(pretty=True), values).page(drawn.elements, drawn.meta))
    assert _indented(json.loads(got)) == _indented(json.loads(pretty))
    assert b"\n  " in pretty
    assert not pretty.endswith(b"\n")

    partial = MediaType(as_="PartialObjectMetadataList")
    got = whole(answers(drawn, partial, values).page(drawn.elements, drawn.meta))
    listed = json.loads(got)
    assert listed["items"] == [oracle.partial(one) for one in objects]
    assert (listed["kind"], listed["metadata"]) == ("PartialObjectMetadataList", meta)

    if drawn.typed:
        _check_protobuf(drawn, values)


def _is_struct(value: bytes, begins: tuple[bytes, ...]) -> bool:
    """Whether it is as an API server wrote it: metadata in order, compact."""
    if value.startswith(b"k8s"):
        return True
    return (
        value.startswith(b'{"kind":"ConfigMap","apiVersion":') and b'"namespace":"a","res' in value
    )


def _indented(document: object) -> str:
    return json.dumps(document, indent=2)


def _check_protobuf(drawn: Drawn, values: Values) -> None:
    kind, api_version, meta = "ConfigMapList", "v1", drawn.list_meta
    stored = [
        one.value if one.value.startswith(b"k8s") else protobuf_of(one.value)
        for one in drawn.elements
    ]
    got = whole(answers(drawn, MediaType("protobuf"), values).page(drawn.elements, drawn.meta))
    raws = [oracle.raw_of(value) for value in stored]
    assert got == oracle.protobuf_list(kind, api_version, meta, raws)
    partial = MediaType("protobuf", "PartialObjectMetadataList", "v1beta1")
    got = whole(answers(drawn, partial, values).page(drawn.elements, drawn.meta))
    messages = [
        oracle.CLASSES["Object"](metadata=oracle.metadata_of(value)).SerializeToString()
        for value in stored
    ]
    assert got == oracle.protobuf_list(
        "PartialObjectMetadataList", "meta.k8s.io/v1beta1", meta, messages
    )
