"""Lists that go on: pages, selectors, what was compacted between two of them, what can't be read.

Each test has a namespace of its own on a target that the module keeps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from btreecache.fields import fields_of
from btreecache.options import ListOptions
from btreecache.selection import Keys, select
from tests.conformance.conftest import Worlds
from tests.conformance.rows import check_refused, token, token_members
from tests.conformance.target import Library, Namespace, Object, Target, kinds

TOO_OLD = "The resourceVersion for the provided list is too old."


def test_list_continuation(pods: Namespace) -> None:
    revisions = [pods.put(name) for name in ("one", "three", "two")]
    found, first = pods.page(limit=1)
    assert (found, first.remaining) == ("one", 2)
    assert token_members(first.token) == ("one\0", first.revision)
    found, rest = pods.page(continue_=first.token)
    assert (found, rest.token, rest.remaining) == ("three two", "", None)
    found, second = pods.page(continue_=first.token, limit=1)
    assert (found, second.remaining) == ("three", 1)
    found, third = pods.page(continue_=second.token, limit=1)
    assert (found, third.token) == ("two", "")
    assert {first.revision, second.revision, third.revision} == {rest.revision}
    assert first.revision >= max(revisions)


def test_list_paging(pods: Namespace) -> None:
    """What is written between two pages is not on the later one, whether before or behind it."""
    for number in range(4):
        pods.put(f"pod-{number}")
    found, page = pods.page(limit=1)
    walked, revision = [found], page.revision
    while page.token:
        pods.put(f"pod-{len(walked)}-later")
        pods.target.delete(f"{pods.name}/pod-{len(walked) - 1}")
        found, page = pods.page(continue_=page.token, limit=1)
        walked.append(found)
        assert page.revision == revision
    assert walked == ["pod-0", "pod-1", "pod-2", "pod-3"]
    assert pods.page()[0] == "pod-1-later pod-2-later pod-3 pod-3-later"


def test_list_pagination_rare_object(standing: Target) -> None:
    """The one that matches is behind a thousand that don't: it is on the first page."""
    pods = Namespace(standing)
    paths = [f"{pods.name}/pod-{number:04}" for number in range(999)]
    chunks = [paths[start : start + 100] for start in range(0, len(paths), 100)]
    for chunk in chunks:
        standing.txn(*[(path, standing.object_at(path)) for path in chunk])
    revision = pods.put("pod-9999", rare="yes")
    found, page = pods.page(labelSelector="rare", limit=1)
    assert (found, page.token) == ("pod-9999", "")
    with standing.counted() as calls:
        found, page = pods.page(labelSelector="rare", limit=1, resourceVersion=revision)
    assert (found, page.token, page.revision) == ("pod-9999", "", revision)
    # The source is read in pages that double from 1: ten of them hold a thousand pods.
    assert calls == ({} if standing.kind.snapshots else {"range_at": 10})
    for chunk in chunks:
        standing.txn(*[(path, None) for path in chunk])


def test_list_continuation_with_filter(pods: Namespace) -> None:
    """Of four all but the second match."""
    for number, name in enumerate(("foo", "bar", "foo", "foo"), 1):
        newest = pods.put(f"{number}", name=name)
    query = {"labelSelector": "name!=bar", "limit": 2}
    on = pods.target.kind.snapshots
    with pods.target.counted() as calls:
        found, first = pods.page(**query, resourceVersion=newest)
    assert (found, first.remaining) == ("1 3", None)
    assert token_members(first.token) == ("3\0", newest)
    assert calls == ({} if on else {"range_at": 2})
    with pods.target.counted() as calls:
        found, second = pods.page(**query, continue_=first.token)
    assert (found, second.token, second.remaining) == ("4", "", None)
    assert calls == ({} if on else {"range_at": 1})


def test_namespaces_with_a_common_beginning(standing: Target) -> None:
    """ "a-b" sorts before "a/": a list of a namespace is of it alone, pages too."""
    common = Namespace(standing).name
    for path in ("", "-b", "0", "a"):
        for name in ("x", "xy"):
            standing.put(f"{common}{path}/{name}")
    found, page = Namespace(standing, common).page(limit=1)
    assert (found, page.remaining) == ("x", 1)
    found, page = Namespace(standing, common).page(limit=1, continue_=page.token)
    assert (found, page.token) == ("xy", "")
    # Of all namespaces: in the order of whole keys.
    order = [path for path in standing.page().names if path.startswith(common)]
    assert order == [f"{common}{path}/{name}" for path in ("-b", "", "0", "a")
                     for name in ("x", "xy")]  # fmt: skip


# What was compacted.


def test_compact_revision(old_pods: Namespace) -> None:
    """A list at a revision that the source has compacted has the source's words."""
    pods, target = old_pods, old_pods.target
    old = pods.put("foo")
    newest = pods.put("foo", new="yes")
    exact = {"resourceVersion": old, "resourceVersionMatch": "Exact"}
    target.compact(newest, cache=False)
    if target.kind.snapshots:
        # The cache has not heard of it, and what it keeps can't be wrong.
        assert pods.page(**exact)[0] == "foo"
        target.cache.compact(newest)
    for query in (exact, {"resourceVersion": old, "limit": 1}):
        check_refused(pods.list(**query), 410, "Expired", TOO_OLD)
    check_refused(pods.get("foo", **exact), 410, "Expired", TOO_OLD)
    # At the compacted revision itself there is a state, also of what was quiet before it.
    found, page = pods.page(resourceVersion=newest, resourceVersionMatch="Exact")
    assert (found, page.revision) == ("foo", newest)
    later = target.put_elsewhere()
    target.compact(later)
    found, page = pods.page(resourceVersion=later, resourceVersionMatch="Exact")
    assert (found, page.revision) == ("foo", later)


def test_list_inconsistent_continuation(old_pods: Namespace) -> None:
    """A chain that was overtaken by a compaction says how to go on at the newest state."""
    pods = old_pods
    for name in ("a", "b", "c"):
        pods.put(name)
    _, first = pods.page(limit=1)
    pods.put("bb")
    pods.put("c", new="yes")
    newest = pods.delete("a")
    pods.target.compact(newest)
    gone = check_refused(
        pods.list(limit=1, continue_=first.token), 410, "Expired",
        "use the continue token in this response to retrieve the remainder",
    )  # fmt: skip
    assert token_members(gone.token) == ("a\0", -1)
    found, second = pods.page(limit=2, continue_=gone.token)
    assert (found, second.remaining) == ("b bb", 1)
    assert second.revision >= newest
    # From here on it is a chain at one revision again.
    pods.put("d")
    found, third = pods.page(limit=2, continue_=second.token)
    assert (found, third.revision, third.token) == ("c", second.revision, "")
    assert third.items[0]["metadata"]["labels"] == {"new": "yes"}


def test_list_resource_version_match(old_pods: Namespace) -> None:
    """Filtered pages, exactly at a revision and not older than it, while things go on."""
    pods = old_pods
    for number in range(10):
        revision = pods.put(str(number), even=str(number % 2 == 0))
    even = {"labelSelector": "even=True"}
    exactly = {"resourceVersion": revision, "resourceVersionMatch": "Exact"}
    not_older = {"resourceVersion": revision, "resourceVersionMatch": "NotOlderThan"}
    found, exact = pods.page(**even, **exactly, limit=2)
    assert (found, exact.revision) == ("0 2", revision)
    for number in (0, 4, 8):
        newest = pods.delete(str(number))
    found, rest = pods.page(**even, continue_=exact.token)
    assert (found, rest.revision) == ("4 6 8", revision)
    pods.target.caught_up()
    found, least = pods.page(**even, **not_older, limit=2)
    assert (found, least.revision >= newest) == ("2 6", True)
    assert pods.page(**even, **exactly, limit=2)[1] == exact
    pods.target.compact(newest)
    check_refused(pods.list(**even, **exactly), 410, "Expired", TOO_OLD)
    assert pods.page(**even, **not_older, limit=2)[0] == "2 6"


# Names, namespaces, selectors, indexes.

PLACED = {
    "t1/foo": "n1", "t1/bar": "n2", "t2/foo": "n1", "t2/foobar": "n3", "t3/bar": "n1",
}  # fmt: skip

#: namespace of the request, field selector, index that finds it ("": none), by upstream's names.
#: Names that are pinned need none: they are looked up by key.
SELECTED = [
    ("", "", ""),
    ("t1", "", ""),
    ("", "metadata.name=foo", ""),
    ("", "metadata.namespace=t1", ""),
    ("", "metadata.name=foo,metadata.namespace=t1", ""),
    ("", "spec.nodeName=n1", "f:spec.nodeName"),
    ("", "spec.nodeName=n1,metadata.name=foo", "f:spec.nodeName"),
    ("", "spec.nodeName=n1,metadata.namespace=t2", "f:spec.nodeName"),
    ("", "spec.nodeName=n1,metadata.name=foo,metadata.namespace=t2", "f:spec.nodeName"),
    ("", "spec.nodeName!=n1", ""),
    ("t1", "metadata.name=foo", ""),
    ("t1", "metadata.namespace=t1", ""),
    ("t1", "metadata.namespace=t2", ""),
    ("t1", "spec.nodeName=n1", "f:spec.nodeName"),
    ("t1", "spec.nodeName=n1,metadata.name=foo", "f:spec.nodeName"),
    ("t1", "spec.nodeName=n1,metadata.namespace=t1", "f:spec.nodeName"),
    ("t2", "spec.nodeName=n1,metadata.name=foobar,metadata.namespace=t2", "f:spec.nodeName"),
]


def placed(namespace: str, selector: str) -> list[str]:
    """What is selected of PLACED, by trying each."""

    def matches(path: str) -> bool:
        where, _, name = path.partition("/")
        has = {"metadata.name": name, "metadata.namespace": where, "spec.nodeName": PLACED[path]}
        for term in filter(None, selector.split(",")):
            unequal = "!=" in term
            label, _, value = term.replace("!=", "=").partition("=")
            if (has[label] == value) == unequal:
                return False
        return namespace in ("", where)

    return sorted(filter(matches, PLACED))


@pytest.fixture(scope="module", params=kinds())
def nodes(request: pytest.FixtureRequest, worlds: Worlds) -> Iterator[tuple[Target, int]]:
    """PLACED, and the revision of it; after that everything is moved to another node."""
    with worlds.open(request.param) as target:
        for path, node in PLACED.items():
            revision = target.put(path, target.object_at(path, nodeName=node))
        for path, node in PLACED.items():
            target.put(path, target.object_at(path, nodeName=f"moved-{node}"))
        target.caught_up()
        yield target, revision


@pytest.mark.parametrize(("namespace", "selector"), [row[:2] for row in SELECTED])
def test_namespace_scoped_list(nodes: tuple[Target, int], namespace: str, selector: str) -> None:
    """At a revision that is past, and now: there every node has another name."""
    target, revision = nodes
    query: dict[str, Any] = {"fieldSelector": selector} if selector else {}
    exact = target.page(
        namespace, resourceVersion=revision, resourceVersionMatch="Exact", **query
    )  # fmt: skip
    assert exact.names == placed(namespace, selector)
    moved = query | ({"fieldSelector": selector.replace("=n", "=moved-n")} if selector else {})
    for more in ({}, {"resourceVersion": 0}):
        assert target.page(namespace, **moved, **more).names == placed(namespace, selector)
    if "=n1" in selector.replace("!=", ""):
        assert target.page(namespace, **query).names == []


LIBRARY = [param for param in kinds(["simulated"]) if param.values[0].access == "library"]


@pytest.mark.parametrize("kind", LIBRARY[:1])
def test_list_indexer(worlds: Worlds, kind: Any) -> None:
    """Which index finds a list, and of how many it looks at: no more than the index holds."""
    with worlds.open(kind) as target:
        for path, node in PLACED.items():
            target.put(path, target.object_at(path, nodeName=node))
        for number, namespace in itertools.product(range(50), ("t1", "t2")):
            path = f"{namespace}/other-{number}"
            target.put(path, target.object_at(path, nodeName="n9"))
        target.caught_up()
        access = target.access
        assert isinstance(access, Library)
        fields = fields_of("", "pods")
        keys = Keys(target.cache.prefix, target.resource, access.reader.reads.names)
        snapshot = target.cache.snapshot()
        for namespace, selector, index in SELECTED:
            options = ListOptions(field_selector=selector)
            selection = select(options, options.validate, access.reader.reads.names, keys, fields)
            prefix = target.cache.prefix + (f"{namespace}/".encode() if namespace else b"")
            choice = snapshot.choose(selection.requirements, prefix)
            assert (choice.requirement[0] if choice.requirement else "") == index, selector
            fetched = [path for path in PLACED if PLACED[path] == "n1"
                       and path.startswith(namespace)]  # fmt: skip
            assert choice.candidates == (len(fetched) if index else choice.in_range)


# What can't be read.


@pytest.mark.parametrize("read", ["consistent", "exact", "any"])
def test_transformation_failure(standing: Target, read: str) -> None:
    """A list with an object that can't be decoded fails and names its key; the others are read."""
    pods = Namespace(standing)
    for name in ("a", "c"):
        pods.put(name)
    revision = standing.put(f"{pods.name}/b", b"\x00garbage")
    standing.caught_up()
    query: dict[str, Any] = {
        "consistent": {},
        "exact": {"resourceVersion": revision, "resourceVersionMatch": "Exact"},
        "any": {"resourceVersion": 0},
    }[read]
    key = standing.key(f"{pods.name}/b").decode()
    check_refused(pods.list(**query), 500, "InternalError", key)
    check_refused(pods.get("b", **query), 500, "InternalError", key)
    assert isinstance(pods.get("a", **query), Object)
    # Here it is only the page that would have to contain it.
    found, page = pods.page(limit=1, **query)
    assert (found, page.remaining) == ("a", 2)
    check_refused(pods.list(limit=1, continue_=page.token), 500, "InternalError", key)
    behind = token("b\0", revision)
    assert pods.page(continue_=behind)[0] == "c"
    pods.delete("b")
    assert pods.page()[0] == "a c"


def test_get_list_with_error_aggregation(pods: Namespace) -> None:
    """Everything on a page that can't be read is named, in one Status; ten of many."""
    target = pods.target
    pods.put("a")
    for number in range(12):
        target.put(f"{pods.name}/bad-{number:02}", b"{")
    answer = check_refused(pods.list(), 500, "InternalError")
    for number in range(10):
        assert target.key(f"{pods.name}/bad-{number:02}").decode() in answer.message
    assert "and 2 more" in answer.message
    assert f"{pods.name}/a" not in answer.message
    for number in range(12):
        target.delete(f"{pods.name}/bad-{number:02}")
