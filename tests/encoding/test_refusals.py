"""What can't be encoded: a clean error while nothing was sent, an aborted answer afterwards."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from btreecache.codec.base import Unreadable
from btreecache.element import Element
from btreecache.encoding import json_list as json_lists
from btreecache.encoding.answer import Answers, form_of
from btreecache.encoding.body import Body
from btreecache.encoding.media import As, Format, MediaType
from btreecache.encoding.refusals import EncodingAborted, NotAcceptable
from btreecache.encoding.values import Codec, Values
from btreecache.plan import PageMeta
from btreecache.resources import BUILT_IN
from btreecache.watch_stream import WatchEvent

_PODS = BUILT_IN.get("", "v1", "pods")
assert _PODS is not None
PODS = _PODS

FORMS = [
    MediaType(form, as_, pretty=pretty)
    for form, as_, pretty in (
        ("json", "", False), ("json", "", True), ("yaml", "", False), ("protobuf", "", False),
        ("json", "Table", False), ("json", "PartialObjectMetadataList", False),
        ("yaml", "PartialObjectMetadataList", False),
        ("protobuf", "PartialObjectMetadataList", False),
    )
]  # fmt: skip


def answers(media: MediaType, values: Values | None = None) -> Answers:
    return Answers(form_of(PODS, "v1", media, values or Values(), typed=True), media, lambda: 0.0)


def good(number: int, size: int = 0) -> Element:
    text = b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"%d","annotations":{"a":"%b"}}}'
    return Element(b"/registry/pods/a/%d" % number, text % (number, b"x" * size), 1, 1, 1)


def bad(value: bytes) -> Element:
    return Element(b"/registry/pods/a/\xff", value, 1, 1, 1)


@pytest.mark.parametrize("media", FORMS, ids=str)
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"k8s\0\n\x00\x12\x00\x1a\x00\x22\x00", "stored as"),
        (b"k8s\0\n\x0b\n\x02v1\x12\x05Pod\xff\xff\x12\x00", "can't be read"),
        (b"k8s\0\n\x09\n\x02v1\x12\x03Pod\x12\x09", "protobuf"),
        (b'{"kind":"Node","apiVersion":"v1","metadata":{}}', 'stored as "Node" of "v1"'),
        (b"[1]", "no JSON object"),
        (b"[" * 5_000, "no JSON object"),
        (b"\xff", "no JSON object"),
        (b"", "no JSON object"),
    ],
)  # fmt: skip
def test_what_is_not_what_was_asked_for(media: MediaType, value: bytes, why: str) -> None:
    """An object by itself, in a list, in a frame."""
    asked = answers(media)
    one = bad(value)
    as_one: As = "PartialObjectMetadata" if media.as_.startswith("Partial") else media.as_
    single = answers(MediaType(media.format, as_one))
    watched = answers(MediaType("json" if media.format == "yaml" else media.format, as_one))
    for read in (
        lambda: single.object(one),
        lambda: asked.page([good(1), one], PageMeta("1")),
        lambda: watched.frame(WatchEvent("ADDED", 1, one), is_first=True),
    ):
        with pytest.raises(NotAcceptable) as refused:
            read()
        assert why in str(refused.value)
        assert "/registry/pods/a/\\xff" in str(refused.value)


def test_every_one_is_named_up_to_ten() -> None:
    with pytest.raises(NotAcceptable, match="and 5 more") as refused:
        answers(MediaType()).page([bad(b"[]")] * 15, PageMeta("1"))
    assert str(refused.value).count("/registry/") == 10


def test_another_version_has_the_same_metadata() -> None:
    other = bad(good(1).value.replace(b'"v1"', b'"v2"'))
    with pytest.raises(NotAcceptable, match='"Pod" of "v2"'):
        answers(MediaType()).page([other], PageMeta("1"))
    body = answers(MediaType(as_="PartialObjectMetadataList")).page([other], PageMeta("1"))
    assert b'"metadata":{"name":"1"' in b"".join(body)
    for group in (b'"apps/v1"', b'"v1/v1"'):
        other = bad(good(1).value.replace(b'"v1"', group))
        with pytest.raises(NotAcceptable, match="another kind"):
            answers(MediaType(as_="PartialObjectMetadataList")).page([other], PageMeta("1"))


@pytest.mark.parametrize("media", FORMS, ids=str)
def test_the_first_chunk_fails_cleanly_a_later_one_aborts(
    media: MediaType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lists, "LOOKED_OVER_MAX", 0)
    many = [good(i, 20_000) for i in range(40)]
    asked = answers(media)
    with pytest.raises(NotAcceptable):
        asked.page([bad(b"[]"), *many], PageMeta("1"))
    if media.format == "protobuf":
        # Sizes come first, so nothing is ever sent of a list that can't be.
        with pytest.raises(NotAcceptable):
            asked.page([*many, bad(b"[]")], PageMeta("1"))
        return
    if media.as_ == "Table":
        many *= 20
    body = asked.page([*many, bad(b"[]")], PageMeta("1"))
    chunks = iter(body)
    assert next(chunks)
    with pytest.raises(EncodingAborted, match=r"\\xff"):
        list(chunks)
    with pytest.raises(NotAcceptable):
        asked.page([*many, bad(b"[]")], PageMeta("1")).collected()


def test_sizes_that_change_are_not_sent() -> None:
    """A codec that isn't pure would make a list whose lengths are wrong."""
    tail = b"\x1a\0\x22\0"
    lengths = iter([1, 2])

    def growing(_: bytes) -> bytes:
        raw = b"x" * next(lengths)
        return b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12%c%b" % (len(raw), raw) + tail

    values = Values(0, Codec(lambda value: value, growing))
    with pytest.raises(EncodingAborted, match="other sizes"):
        answers(MediaType("protobuf"), values).page([good(1)], PageMeta("1"))


def test_a_body_tells_the_second_chunks_trouble_after_the_first() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a"
        raise Unreadable("no")

    body = Body(chunks())
    iterator = iter(body)
    assert next(iterator) == b"a"
    with pytest.raises(EncodingAborted, match="no"):
        next(iterator)
    with pytest.raises(NotAcceptable, match="no"):
        Body(chunks()).collected()


@pytest.mark.parametrize("media", FORMS, ids=str)
def test_who_stops_reading_leaves_nothing_behind(media: MediaType) -> None:
    class Elements(list[Element]):
        pass

    elements = Elements(good(i, 40_000) for i in range(100))
    held = weakref.ref(elements)
    body = answers(media).page(elements, PageMeta("1"))
    reader = iter(body)
    next(reader)
    next(reader)
    reader.close()  # type: ignore[attr-defined]
    del elements, reader, body
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("form", ["json", "protobuf"])
def test_what_is_no_list_is_not_answered_as_one(form: Format) -> None:
    with pytest.raises(NotAcceptable, match="not a list"):
        answers(MediaType(form, "PartialObjectMetadataList")).object(good(1))
    with pytest.raises(NotAcceptable, match="is a list"):
        answers(MediaType(form, "PartialObjectMetadata")).page([good(1)], PageMeta("1"))
    with pytest.raises(NotAcceptable, match="not a list"):
        answers(MediaType(form, "PartialObjectMetadataList")).frame(
            WatchEvent("ADDED", 1, good(1)), is_first=True
        )
