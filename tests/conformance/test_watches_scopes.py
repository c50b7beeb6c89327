"""Watches: what lies in one and what doesn't, by path, name and selector, over all eight targets.

All scopes are watched at once while the same things are written; then the cache is closed, which
ends every watch after what it has.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import product

import pytest

from btreecache.errors import BadRequest
from tests.conformance.conftest import Worlds
from tests.conformance.frames import CHANGES, labelled, tell
from tests.conformance.target import Kind, Library, Target, kinds

#: Upstream's 17 rows and those between them: namespace and name that are requested, and selectors
#: for metadata.namespace, metadata.name and a field of the kind.
SCOPES = [
    scope
    for scope in product(
        ("", "ns1"), ("", "foo"), ("", "ns1", "ns2"), ("", "foo", "bar"), ("", "n1")
    )
    if scope[0] or not scope[1]
]

#: Each object goes to node n1, leaves it, comes back, and is deleted there.
WRITES = [*product(("ns1", "ns2"), ("foo", "bar"), ("n1", "n2", "n1", ""))]


def selector_of(**wanted: str) -> str | None:
    """A field selector of what is wanted, dots for underscores; None if it is nothing."""
    terms = [f"{name.replace('_', '.')}={value}" for name, value in wanted.items() if value]
    return ",".join(terms) or None


def expected_of(scope: tuple[str, ...], revisions: list[int]) -> list[str]:
    """What is told of the writes, which had these revisions, in a scope."""
    namespace, name, in_ns, named, node = scope
    found = []
    seen: dict[tuple[str, str], str] = {}
    for (own_ns, own, on), revision in zip(WRITES, revisions, strict=True):
        lies_there = namespace in ("", own_ns) and name in ("", own)
        lies_there = lies_there and in_ns in ("", own_ns) and named in ("", own)
        was = seen.get((own_ns, own))
        before = lies_there and was is not None and node in ("", was)
        now = lies_there and bool(on) and node in ("", on)
        seen.pop((own_ns, own), None)
        if on:
            seen[own_ns, own] = on
        if now or before:
            kind = "DELETED" if not now else "MODIFIED" if before else "ADDED"
            found.append(f"{kind} {own_ns}/{own}@{revision}")
    return found


def test_namespace_scoped_watch(target: Target) -> None:
    with ExitStack() as stack:
        watches = {}
        for scope in SCOPES:
            namespace, name, in_ns, named, node = scope
            selector = selector_of(
                metadata_namespace=in_ns, metadata_name=named, spec_nodeName=node
            )
            events = target.watch(namespace, name, fieldSelector=selector, **CHANGES)
            watches[scope] = stack.enter_context(events)
        revisions = [
            labelled(target, f"{namespace}/{name}", node)
            if node
            else target.delete(f"{namespace}/{name}")
            for namespace, name, node in WRITES
        ]
        target.caught_up()
        target.cache.close()
        for scope, events in watches.items():
            assert tell(events.rest()) == expected_of(scope, revisions), scope
    assert len({tuple(expected_of(scope, revisions)) for scope in SCOPES}) > 10


@pytest.mark.parametrize("kind", kinds())
def test_cluster_scoped_watch(worlds: Worlds, kind: Kind) -> None:
    """What has no namespace, by requested name and by a selector."""
    rows = [*product(("", "foo"), ("", "foo", "bar"))]
    with worlds.open(kind, resource="nodes") as target, ExitStack() as stack:
        watches = [
            stack.enter_context(
                target.watch("", name, fieldSelector=selector_of(metadata_name=named), **CHANGES)
            )
            for name, named in rows
        ]
        changes = [("ADDED", name, target.put(name)) for name in ("foo", "bar", "foobar")]
        changes.append(("DELETED", "foo", target.delete("foo")))
        target.caught_up()
        target.cache.close()
        for (name, named), events in zip(rows, watches, strict=True):
            assert tell(events.rest()) == [
                f"{change} {own}@{revision}"
                for change, own, revision in changes
                if name in ("", own) and named in ("", own)
            ]


def test_key_schema(target: Target) -> None:
    """A resource ends at its slash, a namespace at its own, and a name at its end."""
    with ExitStack() as stack:
        watches = {
            scope: stack.enter_context(target.watch(*scope, **CHANGES))
            for scope in (("", ""), ("ns", ""), ("ns", "foo"))
        }
        value = target._value("ns/foo", None)
        for beside in (b"/pods.apps/ns/foo", b"/podsx", b"/pod/ns/foo"):
            target.backend.put(target.root + beside, value)
        paths = ["n/foo", "ns/foo", "ns/foo1", "ns1/foo"]
        written = [("ADDED", path, target.put(path)) for path in paths]
        # And all in one revision: each scope takes its own out of it.
        at_once = target.txn(*((path, target.object_at(path, {"a": "1"})) for path in paths))
        written += [("MODIFIED", path, at_once) for path in paths]
        target.caught_up()
        target.cache.close()
        for (namespace, name), events in watches.items():
            assert tell(events.rest()) == [
                f"{change} {path}@{revision}"
                for change, path, revision in written
                if path.startswith(f"{namespace}/" if namespace else "")
                and (not name or path == f"{namespace}/{name}")
            ]


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind.values[0].access == "library"])
def test_key_schema_of_the_library(worlds: Worlds, kind: Kind) -> None:
    """Prefixes as a program may say them: a slash is added, and what lies elsewhere is refused."""
    with worlds.open(kind) as target:
        access = target.access
        assert isinstance(access, Library)
        for prefix in (b"/pods.apps", b"/pod", b"/", b""):
            with pytest.raises(BadRequest, match="lies outside"):
                access.reader.watch(prefix=target.root + prefix)
        with pytest.raises(BadRequest, match="lies outside"):
            access.reader.watch(prefix=target.root + b"/pods", exact=True)
        streams = [
            access.reader.watch(prefix=target.root + prefix)
            for prefix in (b"/pods", b"/pods/", b"/pods/ns", b"/pods/ns/")
        ]
        target.put("ns1/foo")
        target.caught_up(target.put("ns/foo"))
        target.cache.close()
        assert [len([*stream]) for stream in streams] == [2, 2, 1, 1]
