"""Declared indexes: entries that sort as pairs, every change of a value, sharing, checks."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btreecache.element import Element
from btreecache.index import (
    LOOKUP_COST,
    NO_INDEXES,
    Choice,
    Index,
    Indexes,
    entry,
    field_index,
    head,
    label_index,
)
from btreecache.tree import Tree

# Values that stand in each other's way if an entry were just value + key.
VALUES = ["", "\0", "\0\0", "\0\1", "\1", "a", "a\0", "a\0\0", "a\0\1", "a\1", "aa", "\ud800", "😀"]
KEYS = [b"", b"\0", b"\0\0", b"\1", b"a", b"a\0", b"\xff"]


def element(key: bytes, *values: str | None, revision: int = 1) -> Element:
    """An element whose value holds one letter an index, "-" for none: see `letters`."""
    return Element(key, "".join(v or "-" for v in values).encode(), revision, 1, 1)


def letter(name: str, place: int) -> Index:
    def value_of(found: Element) -> str | None:
        value = chr(found.value[place])
        return None if value == "-" else value

    return Index(name, value_of)


DECLARED = (letter("l:app", 0), letter("f:node", 1))


# Entries


def pair(value: str, key: bytes) -> tuple[list[int], bytes]:
    return [ord(char) for char in value], key


def test_entries_sort_as_their_pairs_and_are_as_many() -> None:
    pairs = list(product(VALUES, KEYS))
    by_pair = sorted(pairs, key=lambda each: pair(*each))
    assert sorted(pairs, key=lambda each: entry(*each)) == by_pair
    assert len({entry(*each) for each in pairs}) == len(pairs)


# Few characters meet every edge more often than many.
texts = st.text(st.characters(codec=None)) | st.text("\0\1\2a\ud800\udc00\U0010ffff", max_size=6)
keys = st.binary() | st.lists(st.sampled_from([0, 1, 2, 255]), max_size=6).map(bytes)


@given(texts, keys, texts, keys)
def test_any_two_entries_sort_as_their_pairs(a: str, x: bytes, b: str, y: bytes) -> None:
    assert (entry(a, x) < entry(b, y)) == (pair(a, x) < pair(b, y))
    assert (entry(a, x) == entry(b, y)) == ((a, x) == (b, y))
    assert entry(a, x)[len(head(a)) :] == x
    assert entry(b, y).startswith(head(a)) == (a == b)


# Declarations


@pytest.mark.parametrize("name", ["", "app", "l:", "f:", "x:app", "L:app"])
def test_a_name_says_what_is_indexed(name: str) -> None:
    with pytest.raises(ValueError, match="named l:<label> or f:<field>"):
        Index(name, lambda _: None)


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="same name"):
        Indexes.of([letter("l:app", 0), letter("l:app", 1)])


@pytest.mark.parametrize(
    ("labels", "value"),
    [
        ((), None),
        (("app", "web"), "web"),
        (("app", ""), ""),
        (("a", "app", "b", "app"), None),  # as a value, "app" is no name
        (("a", "1", "app", "app", "z", "2"), "app"),
        (("a", "app", "app", "web"), "web"),
    ],
)
def test_a_label_that_is_missing_is_not_indexed(labels: tuple[str, ...], value: str | None) -> None:
    index = label_index("app")
    assert index.name == "l:app"
    assert index.value_of(Element(b"k", b"", 1, 1, 1, labels=labels)) == value


@pytest.mark.parametrize(
    ("fields", "value"), [((), ""), (("a",), ""), (("a", ""), ""), (("a", "n1", "b"), "n1")]
)
def test_a_field_that_is_missing_is_empty(fields: tuple[str, ...], value: str) -> None:
    index = field_index("spec.nodeName", 1)
    assert index.name == "f:spec.nodeName"
    assert index.value_of(Element(b"k", b"", 1, 1, 1, fields=fields)) == value


# Changes

LETTERS = (None, "x", "y")
STATES: list[tuple[str | None, str | None] | None]
STATES = [None, *((app, node) for app in LETTERS for node in LETTERS)]


@pytest.mark.parametrize("old", STATES)
@pytest.mark.parametrize("new", STATES)
def test_every_change_of_an_element(
    old: tuple[str | None, str | None] | None, new: tuple[str | None, str | None] | None
) -> None:
    """Only the indexes whose value changes are other trees, and everything equals a fresh load."""
    others = [element(b"a", "x", "y"), element(b"c", "y", None), element(b"d", None, "x")]
    previous = element(b"b", *old) if old else None
    now = element(b"b", *new, revision=2) if new else None
    before = Indexes.of(DECLARED, [*others, *([previous] if previous else [])])
    edit = before.edit()
    edit.change(previous, now)
    after = edit.freeze()
    elements = [*others, *([now] if now else [])]
    assert list(after.check(elements)) == []
    assert list(before.check([*others, *([previous] if previous else [])])) == []
    olds, news = old or (None, None), new or (None, None)
    for i in range(2):
        assert (after.trees[i] is before.trees[i]) == (olds[i] == news[i])
    assert (after is before) == (olds == news)
    assert (edit.copied > 0) == (olds != news)
    gone = [a for a, b in zip(olds, news, strict=True) if a not in (b, None)]
    assert edit.dropped_bytes == sum(len(entry(value, b"b")) for value in gone if value)


def test_one_batch_may_change_a_key_repeatedly() -> None:
    before = Indexes.of(DECLARED, [first := element(b"k", "x", "x")])
    edit = before.edit()
    edit.change(first, None)
    edit.change(None, second := element(b"k", "y", "x"))
    edit.change(second, third := element(b"k", "z", "x"))
    after = edit.freeze()
    assert list(after.check([third])) == []
    assert list(before.check([first])) == []


def test_a_previous_element_that_was_not_indexed_is_an_error() -> None:
    indexes = Indexes.of(DECLARED, [element(b"k", "x", "x")])
    with pytest.raises(KeyError):
        indexes.edit().change(element(b"k", "y", "x"), None)
    with pytest.raises(KeyError):
        indexes.edit().change(element(b"other", "x", "x"), None)
    assert list(indexes.check([element(b"k", "x", "x")])) == []


def test_nothing_declared_costs_nothing() -> None:
    edit = NO_INDEXES.edit()
    edit.change(None, element(b"k", "x"))
    assert edit.freeze() is NO_INDEXES
    assert edit.copied == 0
    assert NO_INDEXES.cheapest([("l:app", "x")], b"", None, 7) == Choice(None, 7, 7)


# Reads


def test_counts_and_keys_of_every_value_in_every_range() -> None:
    """Keys and values that would mix if their entries were not told apart."""
    by_key = {key: VALUES[i % 5] for i, key in enumerate(KEYS)}
    index = Index("f:v", lambda found: by_key[found.key])
    indexes = Indexes.of([index], [Element(key, b"", 1, 1, 1) for key in KEYS])
    for value in VALUES:
        for start, stop in product(KEYS, [*KEYS, None]):
            wanted = [
                key
                for key in sorted(KEYS)
                if by_key[key] == value and key >= start and (stop is None or key < stop)
            ]
            assert list(indexes.keys(("f:v", value), start, stop)) == wanted
            assert indexes.count(("f:v", value), start, stop) == len(wanted)


def test_an_index_that_was_not_declared() -> None:
    indexes = Indexes.of(DECLARED)
    assert indexes.tree("l:other") is None
    with pytest.raises(KeyError):
        indexes.count(("l:other", "x"), b"", None)
    with pytest.raises(KeyError):
        indexes.keys(("l:other", "x"), b"", None)
    assert repr(indexes) == "Indexes(l:app: 0, f:node: 0)"


# The choice


def made(apps: int, nodes: int, neither: int) -> tuple[Indexes, int]:
    """Elements of which some have app x, and some of those that follow have node x."""
    total = apps + nodes + neither
    elements = [
        element(b"%04d" % i, "x" if i < apps else "y", "x" if apps <= i < apps + nodes else "y")
        for i in range(total)
    ]
    return Indexes.of(DECLARED, elements), total


APP, NODE = ("l:app", "x"), ("f:node", "x")


@pytest.mark.parametrize(
    ("apps", "nodes", "neither", "requirements", "chosen"),
    [
        (3, 5, 100, [], None),
        (3, 5, 100, [APP], APP),
        (3, 5, 100, [APP, NODE], APP),
        (5, 3, 100, [APP, NODE], NODE),
        (5, 3, 100, [NODE, APP], NODE),
        (5, 3, 100, [("l:other", "x"), APP], APP),
        (5, 3, 100, [("l:other", "x")], None),
        (5, 0, 100, [APP, NODE], NODE),  # nothing has it: nothing to look at
        (10, 0, 10 * (LOOKUP_COST - 1), [APP], None),  # as dear as a scan: scan
        (10, 0, 10 * (LOOKUP_COST - 1) + 1, [APP], APP),
        (50, 50, 0, [APP, NODE], None),
    ],
)
def test_the_cheapest_way_is_chosen(
    apps: int,
    nodes: int,
    neither: int,
    requirements: list[tuple[str, str]],
    chosen: tuple[str, str] | None,
) -> None:
    indexes, total = made(apps, nodes, neither)
    choice = indexes.cheapest(requirements, b"", None, total)
    candidates = {APP: apps, NODE: nodes, None: total}[chosen]
    assert choice == Choice(chosen, candidates, total)


def test_the_choice_is_of_the_range_that_is_read() -> None:
    """All of app x is below 0010: above it the index is empty, and for the few below a scan."""
    indexes, _ = made(10, 0, 90)
    assert indexes.cheapest([APP], b"0000", b"0010", 10) == Choice(None, 10, 10)
    assert indexes.cheapest([APP], b"0010", None, 90) == Choice(APP, 0, 90)


# The check


def test_the_check_names_what_is_wrong() -> None:
    elements = [element(b"a", "x", "x"), element(b"b", "y", None)]
    right = Indexes.of(DECLARED, elements)
    assert list(right.check(elements)) == []
    assert list(right.check(elements[:1])) == [f"I12: l:app has {entry('y', b'b')!r} too much"]
    lacking = Indexes(DECLARED, (right.trees[0].delete(entry("x", b"a")), right.trees[1]))
    assert list(lacking.check(elements)) == [f"I12: l:app lacks {entry('x', b'a')!r}"]
    broken: Tree[bytes, None] = Tree.from_sorted((key, None) for key in right.trees[1])
    broken._root.count += 1
    found = list(Indexes(DECLARED, (right.trees[0], broken)).check(elements))
    assert any(problem.startswith("f:node: I2 at root") for problem in found)
