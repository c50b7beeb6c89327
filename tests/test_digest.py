"""Digests and comparisons are of what the source holds, whatever is served."""

from __future__ import annotations

import gc
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btreecache.codec import Kubernetes, Raw, strip_managed_fields
from btreecache.consistency import compare
from btreecache.digest import DIGESTS, Mode, element_digest, recompute
from btreecache.element import Edit, Element, restore, splice
from btreecache.tree import Tree

OBJECT = (
    b'{"apiVersion":"v1","kind":"A","metadata":'
    b'{"labels":{"a":"b"},"managedFields":[{"manager":"m"}],"name":"x"}}\n'
)
RAW = Element(b"/k", OBJECT, 5, 2, 3)
SERVED = Kubernetes().decode(RAW)
STRIPPED = strip_managed_fields(SERVED)


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, list[Edit]]:
    source = draw(st.binary(max_size=400))
    cuts = sorted(draw(st.lists(st.integers(0, len(source)), max_size=8)))
    new = st.binary(max_size=200)
    return source, [
        (start, stop, draw(new)) for start, stop in zip(cuts[::2], cuts[1::2], strict=False)
    ]


@given(edited())
def test_a_splice_can_be_undone(case: tuple[bytes, list[Edit]]) -> None:
    source, edits = case
    value, undo = splice(source, edits)
    assert restore(value, undo) == source
    plain = source
    for start, stop, new in reversed(edits):
        plain = plain[:start] + new + plain[stop:]
    assert value == plain


def test_the_format_of_a_digest() -> None:
    """From the text of docs/guarantees.md, not from the code."""
    head = len(RAW.key).to_bytes(8, "big") + RAW.key + (5).to_bytes(8, "big")
    for mode, text in (("keys", head), ("values", head + OBJECT)):
        want = int.from_bytes(blake2b(text, digest_size=32).digest(), "big")
        for element in (RAW, SERVED, STRIPPED):
            assert element_digest(element, mode) == want  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["keys", "values"])
def test_sums_agree_whatever_is_served(mode: Mode) -> None:
    assert len({RAW.value, SERVED.value, STRIPPED.value}) == 3
    sums = {recompute([element], mode) for element in (RAW, SERVED, STRIPPED)}
    kept = {
        Tree.from_sorted([(element.key, element)]).aggregate(DIGESTS[mode])
        for element in (RAW, SERVED, STRIPPED)
    }
    assert len(sums | kept) == 1


@pytest.mark.parametrize("mine", [RAW, SERVED, STRIPPED])
def test_a_comparison_sees_the_source(mine: Element) -> None:
    assert list(compare([mine], [RAW], 9, "values")) == []
    other = Element(b"/k", OBJECT.replace(b'"m"', b'"n"'), 5, 2, 3)
    assert [found.kind for found in compare([mine], [other], 9, "values")] == ["changed"]
    assert list(compare([mine], [other], 9, "keys")) == []
    # What is served is not what is held: equal to the answer is not equal to the source.
    served = Element(b"/k", SERVED.value, 5, 2, 3)
    assert [found.kind for found in compare([mine], [served], 9, "values")] == ["changed"]


def test_a_raw_element_costs_nothing_more() -> None:
    assert Raw().decode(RAW) is RAW
    assert RAW.source_value() is RAW.value
    assert not gc.is_tracked(RAW)
    assert Element(b"k", b"v", 1, 1, 1).labels is Element(b"l", b"", 2, 2, 1).fields


def test_a_transform_of_ones_own() -> None:
    short = SERVED.altered(b"{}")
    assert (short.value, short.labels, short.fields) == (b"{}", SERVED.labels, SERVED.fields)
    assert short.digest() == RAW.digest()
    assert short.same_source(RAW)
    assert RAW.same_source(short)
    assert short.altered(b"").digest() == RAW.digest()


def test_sizes() -> None:
    assert RAW.size_bytes() < SERVED.size_bytes() < RAW.size_bytes() + 300
    big = Element(b"k", b"v" * 1000, 1, 1, 1, ("a", "b"), ("c",), b"u", b"d" * 32, "p")
    assert big.size_bytes() > Element(b"k", b"v" * 1000, 1, 1, 1, ("a", "b")).size_bytes()
    assert RAW.size_bytes() - Element(b"/k", b"", 5, 2, 3).size_bytes() == len(OBJECT)
