"""I12 for indexes: with an index the answer is the same as without, at every retained revision."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btreecache import index as index_module
from btreecache import snapshot as snapshot_module
from btreecache.element import Element
from btreecache.index import Index, Indexes, Requirement
from btreecache.snapshot import Page, Snapshot
from btreecache.tree import Node, Tree

Content: TypeAlias = dict[bytes, Element]

KEYS = [b"a/%d" % i for i in range(12)] + [b"a/", b"a\0", b"b/1", b"b/2", b"b/\xff", b"c"]
PREFIXES = [b"", b"a/", b"a/1", b"b/", b"b/\xff", b"nothing"]
APPS = [None, "", "x", "x\0", "xy"]
NODES = ["", "n1", "n2"]
NAMES = ["l:app", "f:node", "l:undeclared"]


def values(app: str | None, node: str) -> bytes:
    return f"{'-' if app is None else '+' + app}|{node}".encode()


def app_of(element: Element) -> str | None:
    app = element.value.decode().partition("|")[0]
    return app[1:] if app.startswith("+") else None


def node_of(element: Element) -> str:
    return element.value.decode().partition("|")[2]


DECLARED = (Index("l:app", app_of), Index("f:node", node_of))
VALUE_OF: dict[str, Callable[[Element], str | None]] = {
    "l:app": app_of,
    "f:node": node_of,
    "l:undeclared": lambda element: element.value.decode()[-1:],
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of four, looking ahead at two, and an index even where a scan would be cheaper."""
    monkeypatch.setattr(Node, "most", 4)
    monkeypatch.setattr(Node, "least", 2)
    monkeypatch.setattr(snapshot_module, "LOOK_AHEAD", 2)
    monkeypatch.setattr(index_module, "LOOKUP_COST", 0)


def history(rng: Random, steps: int) -> list[tuple[Snapshot, Content]]:
    """Snapshots of batches of one to four events, each with what it must hold, all retained."""
    content: Content = {}
    tree: Tree[bytes, Element] = Tree()
    indexes = Indexes.of(DECLARED)
    kept = [(Snapshot(1, tree, indexes), content)]
    for revision in range(2, steps + 2):
        content, edit, index_edit = dict(content), tree.edit(), indexes.edit()
        for key in rng.sample(KEYS, rng.randint(1, 4)):
            previous = content.get(key)
            if previous and rng.random() < 0.3:
                del content[key]
                edit.delete(key)
                index_edit.change(previous, None)
            else:
                value = values(rng.choice(APPS), rng.choice(NODES))
                element = Element(key, value, revision, revision, 1)
                content[key] = element
                edit.set(key, element)
                index_edit.change(previous, element)
        tree, indexes = edit.freeze(), index_edit.freeze()
        kept.append((Snapshot(revision, tree, indexes), content))
    return kept


def requirements_of(rng: Random) -> list[Requirement]:
    names = rng.sample(NAMES, rng.randint(0, 3))
    return [(name, rng.choice([*NODES, "x", "x\0", "none"])) for name in names]


def predicate_of(rng: Random, requirements: list[Requirement]) -> Callable[[Element], bool]:
    """All requirements, sometimes more."""
    parity = rng.choice([None, 0, 1])

    def predicate(element: Element) -> bool:
        if parity is not None and element.mod_revision % 2 != parity:
            return False
        return all(VALUE_OF[name](element) == value for name, value in requirements)

    return predicate


def walk(
    page_from: Callable[[bytes | None], Page], wanted: list[Element], limit: int
) -> list[Element]:
    """A chain of pages, each judged: full but for the last, which only the last may be empty."""
    read: list[Element] = []
    start = None
    while True:
        page = page_from(start)
        read += page.elements
        assert len(page.elements) <= limit
        if page.next_start is None:
            assert page.remaining == 0
            return read
        assert len(page.elements) == limit
        assert page.remaining is None
        assert page.next_start == page.elements[-1].key + b"\0"
        assert read == wanted[: len(read)]
        start = page.next_start


def compare(snapshot: Snapshot, content: Content, rng: Random) -> None:
    requirements = requirements_of(rng)
    predicate = predicate_of(rng, requirements)
    prefix, limit = rng.choice(PREFIXES), rng.choice([1, 2, 3, 7])
    plain = Snapshot(snapshot.revision, snapshot.tree)
    wanted = [
        element
        for key, element in sorted(content.items())
        if key.startswith(prefix) and predicate(element)
    ]
    page = Page(snapshot.revision, wanted, None, 0)
    assert snapshot.select(predicate, requirements, prefix) == page
    assert plain.select(predicate, requirements, prefix) == page
    choice = snapshot.choose(requirements, prefix)
    useful = [each for each in requirements if each[0] != "l:undeclared"]
    if choice.requirement is None:
        assert choice.candidates == choice.in_range == snapshot.count(prefix)
        assert not useful or choice.in_range == 0
    else:
        name, value = choice.requirement
        assert choice.candidates == sum(
            VALUE_OF[name](e) == value for k, e in content.items() if k.startswith(prefix)
        )
    for shot in (snapshot, plain):
        read = walk(
            lambda start, shot=shot: shot.select(  # type: ignore[misc]
                predicate, requirements, prefix, start=start, limit=limit
            ),
            wanted,
            limit,
        )
        assert read == wanted


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_an_index_changes_no_answer_at_any_revision(seed: int) -> None:
    rng = Random(seed)
    kept = history(rng, 20)
    for snapshot, content in kept:
        assert list(snapshot.indexes.check(content.values())) == []
        assert list(snapshot) == [content[key] for key in sorted(content)]
        for _ in range(4):
            compare(snapshot, content, rng)


def test_a_quiet_index_is_shared_by_all_snapshots() -> None:
    """Forty updates of a hundred elements, of which every tenth moves to another node."""
    elements = [Element(b"%03d" % i, values("x", "n1"), 1, 1, 1) for i in range(100)]
    indexes = Indexes.of(DECLARED, elements)
    seen = {id(indexes): indexes}
    for revision in range(2, 42):
        old = elements[revision]
        node = "n2" if revision % 10 == 0 else "n1"
        elements[revision] = Element(old.key, values("x", node), revision, 1, 2)
        edit = indexes.edit()
        edit.change(old, elements[revision])
        after = edit.freeze()
        assert after.trees[0] is indexes.trees[0]
        indexes = after
        seen[id(indexes)] = indexes
    assert len(seen) == 1 + 4
    assert list(indexes.check(elements)) == []


def test_indexes_of_a_window_survive_mass_deletes() -> None:
    """Merges and steals in the index trees must not reach older snapshots (I3)."""
    elements = [Element(b"%03d" % i, values("x", f"n{i % 3}"), 1, 1, 1) for i in range(120)]
    kept = [(Indexes.of(DECLARED, elements), elements)]
    rng = Random(7)
    while elements:
        gone = rng.sample(elements, min(7, len(elements)))
        edit = kept[-1][0].edit()
        for element in gone:
            edit.change(element, None)
        elements = [element for element in elements if element not in gone]
        kept.append((edit.freeze(), elements))
    for indexes, held in kept:
        assert list(indexes.check(held)) == []
