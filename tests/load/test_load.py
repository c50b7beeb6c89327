"""The judge of the load test finds every kind of wrong answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.load.judge import Event, Truth, quantile, slope, wrong_reads, wrong_watches
from tests.load.notes import Compacted, Read, Seen, Written
from tests.load.objects import digest
from tests.load.readers import Digested

#: Two pods are made before the watches begin, after 2. At 5 one transaction changes both.
WRITTEN = [
    Written(1, "a", "x", 1, 0.0, 0.1),
    Written(2, "b", "y", 2, 1.0, 1.1),
    Written(3, "a", "x", 3, 2.0, 2.1),
    Written(5, "b", "y", 4, 4.0, 4.1),
    Written(5, "a", "x", 5, 4.0, 4.1),
    Written(4, "a", "z", 6, 3.0, 5.0),
    Written(6, "a", "x", 0, 5.0, 5.1),
]
A = [(3, "MODIFIED", "x", 3), (4, "ADDED", "z", 6), (5, "MODIFIED", "x", 5), (6, "DELETED", "x", 5)]
B = [(5, "MODIFIED", "y", 4)]
TRUTH = Truth(WRITTEN, 2)


def seen(namespace: str, events: list[tuple[int, str, str, int]]) -> list[Seen]:
    return [Seen(namespace, kind, name, at, mark, 9.0) for at, kind, name, mark in events]


def test_what_is_right_passes() -> None:
    assert TRUTH.events == {"a": [Event(*one) for one in A], "b": [Event(*one) for one in B]}
    assert wrong_watches(TRUTH, ["a", "b", "c"], seen("a", A) + seen("b", B)) == []


@pytest.mark.parametrize(
    ("events", "found"),
    [
        (A[1:], "1 dropped, 0 too many"),
        (A[:-1], "1 dropped, 0 too many"),
        ([A[0], *A], "0 dropped, 1 too many"),
        ([A[1], A[0], *A[2:]], "out of order"),
        ([(3, "MODIFIED", "x", 1), *A[1:]], "1 dropped, 1 too many"),
        ([(3, "ADDED", "x", 3), *A[1:]], "1 dropped, 1 too many"),
        ([(4, "MODIFIED", "x", 3), *A[1:]], "1 dropped, 1 too many"),
        ([*A, B[0]], "0 dropped, 1 too many"),
        ([], "4 dropped"),
    ],
)
def test_a_wrong_watch_is_found(events: list[tuple[int, str, str, int]], found: str) -> None:
    wrong = wrong_watches(TRUTH, ["a", "b"], seen("a", events) + seen("b", B))
    assert len(wrong) == 1
    assert wrong[0].startswith("a: ")
    assert found in wrong[0]


def test_a_watch_that_ended_is_found() -> None:
    ended = Seen("b", "END", "", 0, 0, 9.0, "why")
    assert wrong_watches(TRUTH, ["a", "b"], [*seen("a", A), *seen("b", B), ended]) == [
        "b: the watch ended: why"
    ]


AT_5 = (digest("a", "x", 5, 5) + digest("b", "y", 5, 4) + digest("a", "z", 4, 6)) % (1 << 64)
RIGHT = Read("list", 5, 3, AT_5, 4.2, 0.1)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ""),
        ({"kind": "chain"}, ""),
        ({"revision": 4}, "3 objects, 3 wanted, or other ones"),
        ({"count": 2}, "2 objects, 3 wanted"),
        ({"digest": AT_5 + 1}, "or other ones"),
        ({"revision": 7, "count": 2, "digest": 0}, "or other ones"),
        ({"began_s": 5.2}, "asked for when 6 was acknowledged"),
        ({"problem": "out of order"}, "out of order"),
        ({"kind": "page", "digest": 0}, ""),
        ({"kind": "expired", "revision": 3}, ""),
        ({"kind": "expired", "revision": 4}, "the source keeps everything from 4 on"),
        ({"kind": "expired", "revision": 3, "began_s": 1.0}, "everything from 0 on"),
    ],
)
def test_a_wrong_read_is_found(changes: dict[str, Any], found: str) -> None:
    wrong = wrong_reads(TRUTH, [msgspec.structs.replace(RIGHT, **changes)], [Compacted(4, 4.25)])
    assert len(wrong) == bool(found)
    assert found in "".join(wrong)


def test_a_chain_is_its_pages() -> None:
    pages = [
        Digested(7, 2, 5, "a/a", "a/b", "t", True, 10.0, 1.0),
        Digested(7, 1, 6, "a/c", "a/c", "", True, 12.0, 0.5),
    ]
    whole = Digested().then(pages[0]).then(pages[1])
    assert whole == Digested(7, 3, 11, "a/a", "a/c", "", True, 10.0, 2.5)
    for other in (
        pages[1]._replace(revision=8),
        pages[1]._replace(first="a/b"),
        pages[1]._replace(in_order=False),
    ):
        assert not pages[0].then(other).in_order


def test_figures() -> None:
    assert [quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 2, 3, 3]
    assert quantile([], 0.5) == 0
    assert slope([(0, 1), (1, 3), (2, 5)]) == 2
    assert slope([(1, 3)]) == 0
