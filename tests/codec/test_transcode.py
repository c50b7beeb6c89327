"""Transcoding against what a real API server stored and answered, and against hostile values."""

from __future__ import annotations

import base64
import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btreecache.codec import Kubernetes
from btreecache.codec.base import Unreadable
from btreecache.codec.schema import WORDS, Schema, schema
from btreecache.codec.transcode import (
    Transcoder,
    UnknownFields,
    json_of,
    protobuf_of,
    transcoder,
)
from btreecache.codec.transcode_json import DEPTH_MAX
from btreecache.codec.transcode_tables import ITEMS_MAX
from tests.codec.objects import Recorded, recorded
from tests.schema.oracle import envelope, raw_of, sized

SCHEMA = Path(__file__).parents[1] / "schema"


def more() -> list[Recorded]:
    found = []
    for line in (SCHEMA / "kube-objects.jsonl").read_text().splitlines():
        one = json.loads(line)
        stored, answer = (base64.b64decode(one[name]) for name in ("etcd_value", "protobuf"))
        key, text = one["key"].encode(), one["json"].encode()
        found.append(Recorded(key, one["kind"], one["mod_revision"], stored, text, answer))
    return found


#: All that was recorded: a selection serves the other tests, the rest lies beside the tables.
OBJECTS = [*recorded(), *more()]
IDS = [one.key.decode() for one in OBJECTS]

#: Kinds whose JSON differs from the recorded server's, 1.20, in one thing: that one wrote
#: `"creationTimestamp":null` into their pod templates, which servers of today leave out.
NOT_IDENTICAL = {"DaemonSet", "Deployment", "Job"}

#: Kinds of which the server filled in a default as it answered, status.phase, that is not stored.
DEFAULTED = {"PersistentVolume", "PersistentVolumeClaim"}

NULL_TIME = b'"creationTimestamp":null'


@cache
def of_1_20() -> Transcoder:
    """By the facts of the version that was recorded."""
    return Transcoder(Schema((SCHEMA / "schema-1.20.txt").read_text()))


@pytest.mark.parametrize("one", OBJECTS, ids=IDS)
def test_json_is_the_servers(one: Recorded) -> None:
    unknown = UnknownFields()
    text, answered = json_of(one.protobuf, unknown), one.json.removesuffix(b"\n")
    assert (text != answered) is (one.kind in NOT_IDENTICAL)
    assert text == answered.replace(NULL_TIME + b",", b"").replace(NULL_TIME, b"")
    assert unknown.count == 0


@pytest.mark.parametrize("one", OBJECTS, ids=IDS)
def test_by_the_servers_own_facts_every_byte_is_the_servers(one: Recorded) -> None:
    answered = one.json.removesuffix(b"\n")
    assert of_1_20().json_of(one.protobuf) == answered
    assert of_1_20().protobuf_of(answered) == one.protobuf
    if one.stored.startswith(b"k8s\0"):
        assert of_1_20().protobuf_of(of_1_20().json_of(one.stored)) == one.stored


@pytest.mark.parametrize("one", OBJECTS, ids=IDS)
def test_back_to_protobuf_and_to_the_same_json(one: Recorded) -> None:
    """By today's facts the bytes are today's: strings added since 1.20 are written, empty."""
    unknown = UnknownFields()
    text = json_of(one.protobuf)
    again = protobuf_of(text, unknown)
    assert json_of(again) == text
    assert protobuf_of(json_of(again)) == again
    assert unknown.count == 0


@pytest.mark.parametrize("one", OBJECTS, ids=IDS)
def test_an_element_as_served_becomes_the_servers_json(one: Recorded) -> None:
    """With the resourceVersion that the codec wrote into the protobuf."""
    if not one.stored.startswith(b"k8s\0"):
        return
    served = Kubernetes().decode(one.element)
    assert served.problem is None
    text = of_1_20().json_of(served.value)
    assert (text == one.json.removesuffix(b"\n")) is (one.kind not in DEFAULTED)


def test_threads_may_share_a_transcoder_from_its_first_object_on() -> None:
    fresh = Transcoder(schema())
    with ThreadPoolExecutor(8) as pool:
        for texts in pool.map(
            lambda _: [fresh.json_of(one.protobuf) for one in OBJECTS], range(16)
        ):
            assert texts == [json_of(one.protobuf) for one in OBJECTS]
        for values in pool.map(
            lambda _: [fresh.protobuf_of(one.json) for one in OBJECTS], range(16)
        ):
            assert values == [protobuf_of(one.json) for one in OBJECTS]


# --- single facts -------------------------------------------------------------------------------


def pod(*fields: bytes) -> bytes:
    return envelope("v1", "Pod", b"".join(fields))


def meta(*fields: bytes) -> bytes:
    return sized(0x0A, b"".join(fields))


def test_an_empty_object_is_the_zero_value() -> None:
    text = b'{"kind":"Pod","apiVersion":"v1","metadata":{},"spec":{"containers":null},"status":{}}'
    assert json_of(pod()) == text
    with pytest.raises(Unreadable, match="raw is missing"):
        json_of(b"k8s\0" + sized(0x0A, sized(0x0A, b"v1") + sized(0x12, b"Pod")))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", rb"plain"),
        (b'\x00\x1f\x7f"\\/\b\f\n\r\t', b'\\u0000\\u001f\x7f\\"\\\\/\\b\\f\\n\\r\\t'),
        (b"<&>", rb"\u003c\u0026\u003e"),
        ("\u2028\u2029\u2030é\U0001f600\ufffd".encode(), r"\u2028\u2029‰é😀�".encode()),
        # Each invalid byte on its own, as Go takes them: cut off, surrogate, overlong, stray.
        (b"a\xe2\x82z", rb"a\ufffd\ufffdz"),
        (b"\xed\xa0\x80", rb"\ufffd\ufffd\ufffd"),
        (b"\xc0\x80\xff", rb"\ufffd\ufffd\ufffd"),
        (b"\xf0\x9f\x98", rb"\ufffd\ufffd\ufffd"),
        ("é".encode() + b"\xe9<", "é".encode() + rb"\ufffd\u003c"),
    ],
)
def test_strings_are_escaped_as_go_does(raw: bytes, text: bytes) -> None:
    assert b'"metadata":{"name":"' + text + b'"}' in json_of(pod(meta(sized(0x0A, raw))))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        # Go keeps whole seconds only; only an empty message is no time at all.
        (b"\x08\x00\x10\x00", b"1970-01-01T00:00:00Z"),
        (b"\x08\x8e\x96\x92\xd8\x06\x10\x05", b"2026-11-23T18:50:54Z"),
        (b"\x08" + b"\xff" * 9 + b"\x01", b"1969-12-31T23:59:59Z"),
        (b"\x08\x01\x10\x05\x08\x02\x10\x00", b"1970-01-01T00:00:02Z"),
    ],
)
def test_times(fields: bytes, text: bytes) -> None:
    made = json_of(pod(meta(sized(0x42, fields))))
    assert b'"creationTimestamp":"' + text + b'"' in made


def test_times_that_are_none() -> None:
    # year 1 is the zero value: left out where that is (omitzero), null behind a pointer
    year_1 = b"\x08\x80\x92\xb8\xc3\x98\xfe\xff\xff\xff\x01\x10\x00"
    assert b'"metadata":{}' in json_of(pod(meta(sized(0x42, year_1))))
    assert b'"metadata":{"deletionTimestamp":null}' in json_of(pod(meta(sized(0x4A, year_1))))
    assert b'"metadata":{}' in json_of(pod(meta(sized(0x42, b""))))


def test_maps_are_sorted_and_the_last_of_a_name_counts() -> None:
    def label(name: bytes, value: bytes) -> bytes:
        return sized(0x5A, sized(0x0A, name) + sized(0x12, value))

    labels = [label(b"b", b"1"), label("é".encode(), b"2"), label(b"Z", b"3"), label(b"b", b"4")]
    want = '"labels":{"":"","Z":"3","b":"4","é":"2"}'.encode()
    assert want in json_of(pod(meta(*labels, sized(0x5A, b""))))


def test_unknown_fields_are_counted_not_shown() -> None:
    unknown = UnknownFields()
    plain = pod(meta(sized(0x0A, b"a")))
    extra = b"\xf8\x3f\x05" + sized(0xFA, b"")[:1] + b"\x3f\x02ab" + b"\xfd\x3fabcd\xf9\x3fabcdefgh"
    assert json_of(pod(meta(sized(0x0A, b"a"), extra), extra), unknown) == json_of(plain)
    assert unknown.count == 8
    text = json_of(plain).replace(b'"name":"a"', b'"name":"a","x":1').replace(b"{", b'{"y":{},', 1)
    unknown = UnknownFields()
    assert protobuf_of(text, unknown) == protobuf_of(json_of(plain))
    assert unknown.count == 2


def test_items_that_are_kept_are_read_as_if_they_were_not() -> None:
    """Containers, which Pods share: kept by their bytes, never with unknown fields."""

    def spec(*containers: bytes) -> bytes:
        return pod(sized(0x12, b"".join(sized(0x12, one) for one in containers)))

    fresh = Transcoder(schema())
    plain, other = sized(0x0A, b"a"), sized(0x0A, b"b")
    strange = plain + b"\xf8\x3f\x05"
    value = spec(plain, strange, other, plain, strange)
    for _ in range(3):
        unknown = UnknownFields()
        text = fresh.json_of(value, unknown)
        names = [one["name"] for one in json.loads(text)["spec"]["containers"]]
        assert names == ["a", "a", "b", "a", "a"]
        assert unknown.count == 2
    # more than are kept
    many = [sized(0x0A, b"%d" % number) for number in range(3 * ITEMS_MAX)]
    assert [
        one["name"] for one in json.loads(fresh.json_of(spec(*many)))["spec"]["containers"]
    ] == [str(number) for number in range(3 * ITEMS_MAX)]


def test_retired_fields_are_written_only_where_they_are_set() -> None:
    text = json_of(pod(meta(sized(0x0A, b"a"), sized(0x7A, b""))))
    assert b"clusterName" not in text
    assert sized(0x7A, b"") not in protobuf_of(text)
    text = json_of(pod(meta(sized(0x7A, b"east"))))
    assert b'"clusterName":"east"' in text
    assert sized(0x7A, b"east") in protobuf_of(text)


def test_embedded_json_is_compact_and_checked() -> None:
    def revision(raw: bytes) -> bytes:
        return envelope("apps/v1", "ControllerRevision", sized(0x12, sized(0x0A, raw)))

    made = json_of(revision(b'{ "a" : [1, 2.50,\t"x y<"],\n"b": 1e3 }'))
    assert b'"data":{"a":[1,2.50,"x y\\u003c"],"b":1e3},' in made
    for bad in (b"{", b"nul", b"[1,]", b"{}{}", b'"\x01"', b"k8s\0", b"[" * 5000):
        with pytest.raises(Unreadable):
            json_of(revision(bad))
    # kept to the letter on the way back
    text = b'{"kind":"ControllerRevision","apiVersion":"apps/v1","data":{"b": 1.0,"a":"\\u003c"}}'
    assert b'{"b": 1.0,"a":"\\u003c"}' in protobuf_of(text)


def test_status_is_v1_and_unknown_kinds_are_refused() -> None:
    assert json_of(envelope("v1", "Status", b"")).startswith(b'{"kind":"Status","apiVersion":"v1"')
    assert transcoder().knows("apps/v1", "Deployment")
    for api_version, kind in (("v1", "Nope"), ("", ""), ("v2", "Pod"), ("v1", "PodSpec")):
        assert not transcoder().knows(api_version, kind)
        with pytest.raises(Unreadable, match="no table"):
            json_of(envelope(api_version, kind, b""))


def test_the_table_leads_nowhere_else() -> None:
    names = set(schema().names())
    for name in names:
        for field in schema().message(name).fields:
            assert field.type in WORDS or field.type in names
            assert 0 < field.number < 2048


# --- hostile values -----------------------------------------------------------------------------


def read(value: bytes) -> None:
    """Unreadable, or JSON that the stdlib reads."""
    try:
        text = json_of(value)
    except Unreadable:
        return
    json.loads(text)


@pytest.mark.parametrize("cut", ["whole", "inside"])
def test_an_object_cut_anywhere(cut: str) -> None:
    one = next(one for one in OBJECTS if one.key.endswith(b"/shop/bare"))
    raw = raw_of(one.protobuf)
    assert envelope("v1", "Pod", raw) == one.protobuf
    if cut == "whole":
        # The end of the envelope, two empty strings, may be missing.
        for end in range(4, len(one.protobuf) - 4):
            with pytest.raises(Unreadable):
                json_of(one.protobuf[:end])
    else:
        for end in range(len(raw)):
            read(envelope("v1", "Pod", raw[:end]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_an_object_with_some_bytes_changed(data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(OBJECTS))
    raw = bytearray(raw_of(one.protobuf))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    type_meta = json.loads(one.json)
    read(envelope(type_meta["apiVersion"], one.kind, bytes(raw)))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["Pod", "Service", "Node"]), st.binary(max_size=60))
def test_any_bytes(kind: str, raw: bytes) -> None:
    read(envelope("v1", kind, raw))
    read(b"k8s\0" + raw)
    read(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["metadata", "spec", "name", "labels", "containers", "status", "ports"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status"]), JSON))
def test_any_json(document: dict[str, object]) -> None:
    text = json.dumps({"kind": "Pod", "apiVersion": "v1"} | document).encode()
    try:
        stored = protobuf_of(text)
    except Unreadable:
        return
    assert protobuf_of(json_of(stored)) == stored


@pytest.mark.parametrize(
    "fields",
    [
        meta() + meta(),
        sized(0x12, b"") + sized(0x12, sized(0x1A, b"x")) + sized(0x12, sized(0x1A, b"y")),
        b"\x08\x05",
        b"\x0b\x0c",
        b"\x9b\x06\x9c\x06",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0a" + b"\xff" * 12,
        b"\x00\x01",
        b"\x82\x00",
        b"\x80",
        b"\x12",
        b"\xff\xff\xff\xff\xff\x0f",
        meta(sized(0x42, b"\x08" + b"\xff" * 8 + b"\x7f")),
        meta(sized(0x42, sized(0x0A, b""))),
        # numbers and a key that reach beyond their message
        meta(b"\x38") + b"\x12\x00",
        meta(b"\x8a") + b"\x12\x00",
        meta(sized(0x42, b"\x08")) + b"\x12\x00",
        # a time and the members of a struct, twice
        meta(sized(0x42, b"\x08\x01") + sized(0x42, b"\x08\x01")),
        sized(0x12, sized(0x0A, 2 * sized(0x12, sized(0x0A, sized(0x0A, b"/"))))),
        meta(b"\x38" + b"\x80" * 10 + b"\x01"),
    ],
    ids=range(20),
)
def test_what_is_no_message_is_refused(fields: bytes) -> None:
    with pytest.raises(Unreadable):
        json_of(pod(fields))


def test_nesting_is_bounded_both_ways() -> None:
    def custom(levels: int) -> bytes:
        nested = b""
        for _ in range(levels):
            # not (28): a schema in a schema
            nested = b"\xe2\x01" + sized(0, nested)[1:]
        version = sized(0x22, sized(0x0A, nested))
        return envelope(
            "apiextensions.k8s.io/v1", "CustomResourceDefinition", sized(0x12, sized(0x3A, version))
        )

    text = json_of(custom(DEPTH_MAX - 6))
    assert text.count(b'"not":{') == DEPTH_MAX - 6
    assert json_of(protobuf_of(text)) == text
    for levels in (DEPTH_MAX, 3_000):
        with pytest.raises(Unreadable, match="deep"):
            json_of(custom(levels))
    deep = text.replace(b'"not":{', b'"not":{' * 20, 1).replace(b"}", b"}" * 20, 1)
    with pytest.raises(Unreadable):
        protobuf_of(deep)
    with pytest.raises(Unreadable):
        protobuf_of(b'{"kind":"Pod","apiVersion":"v1","spec":' + b"[" * 100_000)


def test_memory_is_bounded_by_the_size() -> None:
    """The worst: two bytes on the wire, an empty object of a list, and all that it shows."""
    value = envelope("v1", "NodeList", b"\x12\x00" * 100_000)
    with pytest.raises(Unreadable, match="longer"):
        json_of(value)
    tracemalloc.start()
    with pytest.raises(Unreadable, match="longer"):
        json_of(value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * len(value)
    # What objects have in truth: many small items.
    value = envelope("v1", "PodList", (b"\x12\x02" + meta()) * 10_000)
    assert json_of(value).count(b'"containers":null') == 10_000


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"{}", b'{"kind":1,"apiVersion":"v1"}', b"\xff",
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":1}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"\xff"}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a\\ud800"}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"\\ud800 and more"}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":[]}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"labels":{"a":1}}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"labels":[]}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"generation":1.5}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"generation":true}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"generation":9223372036854775808}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"creationTimestamp":"yesterday"}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"creationTimestamp":"2026-02-30T00:00:00Z"}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"creationTimestamp":"2026-02-03T24:00:00Z"}}',
        b'{"kind":"Pod","apiVersion":"v1","spec":{"hostNetwork":"yes"}}',
        b'{"kind":"Pod","apiVersion":"v1","spec":{"containers":{}}}',
        b'{"kind":"Secret","apiVersion":"v1","data":{"a":"?"}}',
        b'{"kind":"Secret","apiVersion":"v1","data":{"a":"YQ"}}',
    ],
)  # fmt: skip
def test_json_that_is_no_such_object_is_refused(text: bytes) -> None:
    with pytest.raises(Unreadable):
        protobuf_of(text)


def test_json_is_taken_as_go_takes_it() -> None:
    """null is nothing, an offset is converted, what is finer than a microsecond is cut off."""
    text = json.dumps({
        "kind": "Event", "apiVersion": "v1", "count": None, "message": "a",
        "metadata": {"creationTimestamp": "2026-11-23T19:50:54.999+01:00", "labels": None},
        "eventTime": "2026-11-23T18:50:54.123456789Z",
    }).encode()  # fmt: skip
    stored = protobuf_of(text)
    made = msgspec.json.decode(json_of(stored))
    assert made["metadata"] == {"creationTimestamp": "2026-11-23T18:50:54Z"}
    assert made["eventTime"] == "2026-11-23T18:50:54.123456Z"
    assert "count" not in made
    assert sized(0x52, b"\x08\x8e\x96\x92\xd8\x06\x10\x80\x94\xef\x3a") in stored


def test_maps_are_written_by_key_and_null_is_the_zero_value() -> None:
    head = b'{"kind":"Secret","apiVersion":"v1",'
    a, e = sized(0x12, sized(0x0A, b"a")), "\u00e9".encode()
    data = (
        a
        + sized(0x12, sized(0x0A, b"b") + sized(0x12, b""))
        + sized(0x12, sized(0x0A, e) + b"\x12\x01x")
    )
    text = head + b'"data":{"' + e + b'":"eA==","b":"","a":null}}'
    assert data + sized(0x1A, b"") in protobuf_of(text)
    labels = sized(0x5A, sized(0x0A, b"a") + sized(0x12, b"")) + sized(
        0x5A, sized(0x0A, b"b") + b"\x12\x01c"
    )
    assert labels in protobuf_of(head + b'"metadata":{"labels":{"b":"c","a":null}}}')
