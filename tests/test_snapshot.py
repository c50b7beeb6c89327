"""Snapshot: selective lists with pages, as upstream's list tests name them, and their costs.

Rows marked DIFFERS are where a Kubernetes API server says "more" and an empty page follows; here
the list is known to be at its end (see Snapshot.select).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from btreecache.element import Element
from btreecache.errors import BadRequest
from btreecache.index import Index, Indexes
from btreecache.snapshot import LOOK_AHEAD, Page, Snapshot
from btreecache.tree import Tree

#: name asked for, limit, start; elements wanted, next_start
Row: TypeAlias = tuple[str, int | None, bytes | None, list[str], bytes | None]

FIXTURE = ["first/bar", "second/bar", "second/foo", "third/barfoo", "third/foo"]


def name_of(element: Element) -> str:
    return element.key.decode().rpartition("/")[2]


NAME = Index("f:metadata.name", name_of)


def pod(path: str) -> Element:
    return Element(b"/pods/" + path.encode(), b"", 5, 5, 1)


def snapshot_of(paths: list[str], *, indexed: bool) -> Snapshot:
    elements = [pod(path) for path in sorted(paths)]
    tree = Tree.from_sorted((element.key, element) for element in elements)
    return Snapshot(9, tree, Indexes.of([NAME] if indexed else [], elements))


@pytest.fixture(params=[False, True], ids=["scan", "index"])
def make(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Snapshot]:
    """Makes snapshots without an index, or with one that is used whatever it costs."""
    monkeypatch.setattr("btreecache.index.LOOKUP_COST", 0)
    return lambda paths: snapshot_of(paths, indexed=request.param)


def named(shot: Snapshot, name: str, **where: object) -> tuple[list[str], bytes | None]:
    page = shot.select(
        lambda element: name_of(element) == name,
        [("f:metadata.name", name)],
        b"/pods/",
        **where,  # type: ignore[arg-type]
    )
    assert page.revision == 9
    assert page.remaining == (0 if page.next_start is None else None)
    return [element.key.decode()[6:] for element in page.elements], page.next_start


def after(path: str) -> bytes:
    return b"/pods/" + path.encode() + b"\0"


@pytest.mark.parametrize(
    "row",
    [
        # filter one item: single page / covers entire list
        ("barfoo", 1, None, ["third/barfoo"], None),  # DIFFERS: third/foo follows, no match
        ("barfoo", 5, None, ["third/barfoo"], None),
        ("barfoo", None, None, ["third/barfoo"], None),
        # filter two items: "more pages possible"
        ("bar", 2, None, ["first/bar", "second/bar"], None),  # DIFFERS
        # filter two items, split across multiple pages
        ("foo", 1, None, ["second/foo"], after("second/foo")),
        ("foo", 1, after("second/foo"), ["third/foo"], None),
        ("bar", 1, None, ["first/bar"], after("first/bar")),
        ("bar", 1, after("first/bar"), ["second/bar"], None),  # DIFFERS
        # one item for the last page: ends on the last item, not full
        ("foo", 2, after("second/foo"), ["third/foo"], None),
        # one item for the last page: starts on the last item, full
        ("foo", 1, after("third/barfoo"), ["third/foo"], None),
        # one item for the last page: starts on the last item, partial page
        ("foo", 2, after("third/barfoo"), ["third/foo"], None),
        # two items, page size equal to the total list size
        ("foo", 5, None, ["second/foo", "third/foo"], None),
        # no match
        ("baz", 1, None, [], None),
        ("baz", None, None, [], None),
        ("foo", 1, after("third/foo"), [], None),
    ],
)
def test_filtered_pages(make: Callable[..., Snapshot], row: Row) -> None:
    name, limit, start, wanted, next_start = row
    assert named(make(FIXTURE), name, limit=limit, start=start) == (wanted, next_start)


def test_list_pagination_rare_object(make: Callable[..., Snapshot]) -> None:
    """A thousand pods of which only the last matches: it comes on the first page, no token."""
    shot = make([f"pod-{i:03}" for i in range(1000)])
    assert named(shot, "pod-999", limit=1) == (["pod-999"], None)


def test_list_continuation_with_filter(make: Callable[..., Snapshot]) -> None:
    """name != bar, limit 2: the items 1 and 3 and a token, then item 4 and none."""
    shot = make(["1-foo/foo", "2-bar/bar", "3-baz/baz", "4-foo/foo"])
    page = shot.select(lambda e: name_of(e) != "bar", (), b"/pods/", limit=2)
    assert page == Page(9, [pod("1-foo/foo"), pod("3-baz/baz")], after("3-baz/baz"), None)
    page = shot.select(lambda e: name_of(e) != "bar", (), b"/pods/", limit=2, start=page.next_start)
    assert page == Page(9, [pod("4-foo/foo")], None, 0)


@pytest.mark.parametrize("requirements", [(), [("f:metadata.name", "foo")], [("f:other", "x")]])
def test_a_predicate_that_takes_all_gives_the_list(
    make: Callable[..., Snapshot], requirements: list[tuple[str, str]]
) -> None:
    """Requirements only ever narrow what the predicate would drop: all are named foo."""
    shot = make(["a/foo", "b/foo", "b/foo/foo", "c/foo"])
    for prefix in (b"", b"/pods/", b"/pods/b/", b"/none/"):
        for limit in (None, 1, 2, 3, 4, 5):
            listed = shot.list(prefix, limit=limit)
            chosen = shot.select(lambda _: True, requirements, prefix, limit=limit)
            assert chosen[:3] == listed[:3]
            assert (chosen.remaining == 0) == (listed.remaining == 0)


# Looking ahead


def looked_at(paths: int, matches: set[int], limit: int) -> tuple[Page, int]:
    """A page of the pods with these numbers, and how often the predicate was asked."""
    shot = snapshot_of([f"{i:06}" for i in range(paths)], indexed=False)
    asked = 0

    def predicate(element: Element) -> bool:
        nonlocal asked
        asked += 1
        return int(name_of(element)) in matches

    return shot.select(predicate, limit=limit), asked


@pytest.mark.parametrize(
    ("following", "decided"),
    [(0, True), (1, True), (LOOK_AHEAD, True), (LOOK_AHEAD + 1, False), (LOOK_AHEAD * 9, False)],
)
def test_a_full_page_looks_a_little_further(following: int, decided: bool) -> None:
    """Undecided, the page says that more may come, and the next is empty."""
    page, asked = looked_at(1 + following, {0}, 1)
    assert (page.next_start is None) == decided
    assert asked == 1 + min(following, LOOK_AHEAD)


@pytest.mark.parametrize("first", [LOOK_AHEAD, LOOK_AHEAD * 3])
def test_a_page_that_was_hard_to_fill_looks_as_far_again(first: int) -> None:
    page, asked = looked_at(2 * first, {first - 1}, 1)
    assert (page.next_start, asked) == (None, 2 * first)
    page, asked = looked_at(2 * first + 1, {first - 1}, 1)
    assert (page.next_start is not None, asked) == (True, 2 * first)


def test_what_earlier_pages_looked_at_is_no_reason_to_look_further() -> None:
    shot = snapshot_of([f"{i:06}" for i in range(1000 + 2 + LOOK_AHEAD)], indexed=False)
    page = shot.select(lambda e: name_of(e) == "001000", start=b"/pods/001000", limit=1)
    assert page == Page(9, [pod("001000")], b"/pods/001000\0", None)


def test_it_looks_no_further_than_the_next_match() -> None:
    page, asked = looked_at(1000, {3, 7}, 1)
    assert (page.next_start is not None, asked) == (True, 8)


def test_a_chain_looks_at_each_candidate_at_most_twice() -> None:
    """Save LOOK_AHEAD a page; here matches are rare enough that the looking ahead is long."""
    matches = {700, 1500, 1501, 4000}
    shot = snapshot_of([f"{i:06}" for i in range(5000)], indexed=False)
    asked: dict[bytes, int] = {}

    def predicate(element: Element) -> bool:
        asked[element.key] = asked.get(element.key, 0) + 1
        return int(name_of(element)) in matches

    start, found = None, list[int]()
    while True:
        page = shot.select(predicate, start=start, limit=1)
        found += [int(name_of(element)) for element in page.elements]
        start = page.next_start
        if start is None:
            break
    assert found == sorted(matches)
    assert sum(asked.values()) <= 2 * 5000 + LOOK_AHEAD * len(matches)


def test_an_index_is_read_only_as_far_as_the_page() -> None:
    shot = snapshot_of([f"{i:05}/x" for i in range(3000)] + ["y"] * 1, indexed=True)
    asked = 0

    def predicate(element: Element) -> bool:
        nonlocal asked
        asked += 1
        return name_of(element) == "y"

    assert shot.choose([("f:metadata.name", "y")]).candidates == 1
    assert len(shot.select(predicate, [("f:metadata.name", "y")], limit=1).elements) == 1
    assert asked == 1


# Refusals


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_positive(limit: int) -> None:
    shot = snapshot_of(FIXTURE, indexed=True)
    for read in (shot.list, lambda **given: shot.select(lambda _: True, **given)):
        with pytest.raises(BadRequest, match=f"limit must be positive: {limit}"):
            read(limit=limit)


@pytest.mark.parametrize("start", [b"/node", b"/pods", b"/pods0", b"/pods1", b""])
def test_a_start_lies_inside_the_prefix(start: bytes) -> None:
    shot = snapshot_of(FIXTURE, indexed=True)
    if start == b"/pods0":  # where the prefix ends: nothing follows, and nothing is wrong
        assert shot.select(lambda _: True, (), b"/pods/", start=start) == Page(9, [], None, 0)
        return
    for read in (
        lambda: shot.list(b"/pods/", start=start),
        lambda: shot.select(lambda _: True, (), b"/pods/", start=start),
        lambda: shot.choose((), b"/pods/", start=start),
    ):
        with pytest.raises(BadRequest, match="outside the prefix"):
            read()


def test_what_a_predicate_raises_comes_out() -> None:
    shot = snapshot_of(FIXTURE, indexed=False)
    with pytest.raises(ZeroDivisionError):
        shot.select(lambda _: bool(1 // 0))


def test_indexes_of_another_tree_give_no_answer() -> None:
    """A key that only the index knows: an error, never a list without it."""
    theirs = snapshot_of([*FIXTURE, "zzz/zzz"], indexed=True)
    mine = Snapshot(9, snapshot_of(FIXTURE, indexed=False).tree, theirs.indexes)
    with pytest.raises(KeyError):
        mine.select(lambda _: True, [("f:metadata.name", "zzz")])
