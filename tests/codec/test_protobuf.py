"""Objects stored as protobuf, well-meant and hostile: right, or said to be unreadable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btreecache.codec import Kubernetes, strip_managed_fields
from btreecache.codec.numbers import NUMBERS
from btreecache.fields import FIELDS
from btreecache.resources import BUILT_IN
from tests.codec.objects import Field, raw, recorded

CODEC = Kubernetes()


def dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


TYPE_META = b"\x0a\x02v1\x12\x03Pod"


def number(value: int, padding: int = 0) -> bytes:
    """A varint, with bytes that it doesn't need on request."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    for _ in range(padding):
        parts[-1] |= 0x80
        parts.append(0)
    return bytes(parts)


def field(tag: int, value: bytes, padding: int = 0) -> bytes:
    return number(tag << 3 | 2) + number(len(value), padding) + value


def envelope(metadata: bytes, rest: bytes = b"", padding: int = 0) -> bytes:
    inner = field(1, metadata, padding) + rest
    tail = field(3, b"") + field(4, b"")
    return b"k8s\0" + field(1, TYPE_META) + field(2, inner, padding) + tail


META = field(1, b"x") + field(2, b"") + field(3, b"ns") + field(4, b"") + field(5, b"u")


def test_lengths_follow_at_every_size() -> None:
    """The sizes around 127 and 16383 bytes, where a length takes a byte more."""
    for size in [*range(80, 130), *range(16_330, 16_390)]:
        for revision in (1, 12_345, 2**63 - 1):
            text = b"%d" % revision
            after = field(8, b"") + field(12, b"a" * size)
            stored = envelope(META + field(6, b"") + after, field(2, b"spec"))
            element = CODEC.decode(raw(stored, revision))
            assert element.value == envelope(META + field(6, text) + after, field(2, b"spec"))
            assert element.source_value() == stored


def test_what_no_go_server_writes_comes_back_byte_for_byte() -> None:
    """Lengths longer than need be, an old version, none at all, fields out of order."""
    labels = field(11, field(1, b"b") + field(2, b"1")) + field(11, field(1, b"a"))
    for padding in (0, 1, 3):
        for version in (field(6, b"", padding), field(6, b"99", padding), b""):
            for metadata in (META + version + labels, labels + version + META):
                stored = envelope(metadata, padding=padding)
                element = CODEC.decode(raw(stored))
                assert element.problem is None
                assert element.source_value() == stored
                assert element.labels == ("a", "", "b", "1")
                assert element.fields == ("x", "ns")
                assert element.value.count(b"\x32\x017") == 1
                assert CODEC.decode(raw(element.value)).value == element.value
    assert CODEC.decode(raw(envelope(b""))).value == envelope(field(6, b"7"))


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        (b"k8s\0", "kind is missing"),
        (b"k8s\0" + field(1, TYPE_META), "no object"),
        (b"k8s\0" + field(1, b"\x0a\x02v1") + field(2, field(1, META)), "kind is missing"),
        (b"k8s\0" + field(1, TYPE_META) + field(2, b""), "metadata is missing"),
        (b"k8s\0" + field(1, TYPE_META) * 2 + field(2, field(1, META)), "twice"),
        (b"k8s\0" + field(1, TYPE_META) + field(2, field(1, META)) * 2, "twice"),
        (b"k8s\0" + field(1, TYPE_META) + field(2, field(1, META) * 2), "twice"),
        (envelope(META + field(6, b"1") * 2), "twice"),
        (envelope(META + b"\x30\x05"), "no text"),
        (envelope(b"\x08\x05"), "no text"),
        (envelope(field(1, b"\xff")), "UTF-8"),
        (envelope(field(11, field(1, b"\xff"))), "UTF-8"),
        (envelope(b"\x58\x01"), "no map"),
        (envelope(META)[:-1] + b"\xff", "cut short"),
        (envelope(META)[:-1], "cut short"),
        (envelope(META + b"\x0b"), "wire type 3"),
        (envelope(META + b"\x02\x00"), "no number"),
        (envelope(META + b"\x38" + b"\xff" * 10), "too long"),
        (envelope(META + b"\x38" + b"\xff" * 9 + b"\x7f"), "too long"),
        (b"k8s\0" + field(1, TYPE_META) + field(2, field(1, META)) + field(3, b"gzip"), "encoded"),
        (envelope(META + b"\x0a" + number(2**63) + b"x"), "cut short"),
    ],
)
def test_unreadable(stored: bytes, problem: str) -> None:
    element = CODEC.decode(raw(stored))
    assert problem in (element.problem or "")
    assert (element.value, element.labels, element.fields) == (stored, (), ())
    assert element.source_value() == stored
    assert strip_managed_fields(element) is element


@given(
    st.sampled_from([one.stored for one in recorded() if one.stored.startswith(b"k8s\0")]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)), max_size=3),
)
def test_any_damage(stored: bytes, damage: list[tuple[int, int, bytes]]) -> None:
    for at, cut, noise in damage:
        stored = stored[:at] + noise + stored[at + cut :]
    element = CODEC.decode(raw(stored))
    assert element.source_value() == stored
    assert element.digest() == raw(stored).digest()
    if element.problem is None and stored.startswith(b"k8s\0"):
        again = CODEC.decode(raw(element.value))
        assert (again.value, again.labels, again.fields) == (
            element.value, element.labels, element.fields,
        )  # fmt: skip
        stripped = strip_managed_fields(element)
        left = CODEC.decode(raw(stripped.value))
        assert (left.value, left.fields) == (stripped.value, element.fields)
        assert stripped.digest() == element.digest()


def test_fields_by_number() -> None:
    def kind_codec(kind: tuple[str, str]) -> Kubernetes:
        return Kubernetes([Field(dotted(path), path, "-") for path in NUMBERS[kind]])

    for (group, kind), paths in NUMBERS.items():
        codec = kind_codec((group, kind))
        version = f"{group}/v1".lstrip("/").encode()
        type_meta = field(1, version) + field(2, kind.encode())
        for path, (steps, form) in paths.items():
            inner = number(steps[-1] << 3 | 2) + b"\x01v"
            if form is not str:
                inner = number(steps[-1] << 3) + (
                    b"\x01" if form is bool else b"\xff" * 9 + b"\x01"
                )
            for step in reversed(steps[:-1]):
                inner = field(abs(step), inner)
            stored = b"k8s\0" + field(1, type_meta) + field(2, field(1, META) + inner)
            element = codec.decode(raw(stored))
            want = {str: "v", bool: "true", int: "-1"}[form]
            found = dict(zip(codec.fields, element.fields, strict=True))
            assert found.pop(dotted(path)) == want
            assert set(found.values()) <= {"x", "ns", "-"}


def test_a_field_that_protobuf_can_not_tell_is_a_problem_not_a_default() -> None:
    codec = Kubernetes([Field("spec.color", ("spec", "color"))])
    problem = codec.decode(raw(envelope(META))).problem
    assert problem == "field spec.color can't be read from protobuf of kind Pod"


def test_messages_that_a_decoder_would_merge() -> None:
    codec = Kubernetes([Field("status.phase", ("status", "phase"))])
    for rest, problem in (
        (field(3, field(1, b"A")) * 2, "twice"),
        (b"\x18\x01", "no message"),
        (field(3, b"\x08\x01"), "no text"),
    ):
        assert problem in (codec.decode(raw(envelope(META, rest))).problem or "")
    last = codec.decode(raw(envelope(META, field(3, field(1, b"A") + field(1, b"B")))))
    assert last.fields[-1] == "B"


def test_kinds_are_remembered_within_bounds() -> None:
    for index in range(2_500):
        type_meta = field(1, b"v1") + field(2, b"K%d" % index)
        stored = b"k8s\0" + field(1, type_meta) + field(2, field(1, META))
        assert CODEC.decode(raw(stored)).problem is None
        assert len(CODEC._protobuf._known) <= 1_000


def test_every_field_that_a_selector_may_name_can_be_read() -> None:
    """Else no object of the kind that is stored as protobuf could be served."""
    for (group, plural), declared in FIELDS.items():
        resource = BUILT_IN.find(group, plural)
        if resource is None or group == "events.k8s.io":  # stored as the core group's
            continue
        paths = {path for field in declared.fields for path in field.paths}
        known = NUMBERS.get((group, resource.kind), {})
        assert {path for path in paths if path[0] != "metadata"} <= {*known}, plural
