"""What becomes of groups after they were written: forgotten by retention, cut where the feed that
they came from can't be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from btreecache.archive.checkpoint import leaf_of
from btreecache.archive.log import packed, replayed, upto
from btreecache.archive.nodes import Nodes, Stub
from btreecache.archive.records import Branch, Group, GroupState, Leaf
from btreecache.archive.runs import size_of
from btreecache.digest import element_digest
from btreecache.node import ABSENT


def newest(groups: Any) -> GroupState | None:
    """The last group."""
    return groups[groups.maxKey()].read() if groups else None


def descending(groups: Any) -> Iterator[GroupState]:
    """The groups, the last one first. Lazy: O(log n) each."""
    revision = groups.maxKey() if groups else None
    while revision is not None:
        yield groups[revision].read()
        revision = groups.maxKey(revision - 1) if groups.minKey() < revision else None


def forget(groups: Any, revisions: Sequence[int]) -> None:
    """Take groups out. The log of a group whose base went leads nowhere, so it goes as well."""
    for revision in revisions:
        groups.pop(revision, None)  # Another process may trim the archive too.
        following = next(iter(groups.values(revision)), None)
        if following is not None:
            following.state = following.read()._replace(base=None, log=None)[:]


def cut(groups: Any, after: int) -> int | None:
    """Forget what is above a revision: the groups above go, and what the first of them had up to
    the revision becomes a group of its own. How far the history is known now, at most; None: as far
    as it was."""
    above = [*groups.keys(after + 1)]
    if not above:
        return None
    first: GroupState = groups[above[0]].read()
    for revision in above:
        del groups[revision]
    if first.base is None:
        before = newest(groups)
        return before.complete if before else 0
    nodes = Nodes()
    kept = upto(first.log, nodes, after)
    if kept.state[1]:
        part = _part(nodes, groups[first.base].read(), first, kept)
        groups[part.revision] = Group(part[:])
    return after


def _part(nodes: Nodes, base: GroupState, whole: GroupState, log: Any) -> GroupState:
    """A group of the first batches of another, with a checkpoint that is made of the one before and
    the log. O(events * log n)."""
    batches = log.state[1]
    before = nodes.tree(base.root, base.elements)
    after = replayed(before, log, batches[-1][0])
    digest = int.from_bytes(base.digest, "big")
    for _, old, new in before.changes(after):
        if old is not ABSENT:
            digest -= element_digest(old, "values")
        if new is not ABSENT:
            digest += element_digest(new, "values")
    return whole._replace(
        revision=batches[-1][0],
        complete=batches[-1][0],
        last_s=batches[-1][1],
        root=_record_of(after.root),
        elements=len(after),
        digest=packed(digest),
        log=log,
        batches=len(batches),
    )


def _record_of(node: Any) -> Leaf | Branch:
    """The record of a node of an archived tree: there is one, unless an editor made the node."""
    if isinstance(node, Stub):
        return node.record
    if node.height:
        counts = tuple([child.count for child in node.entries])
        return Branch((node.height, node.keys, tuple(map(_record_of, node.entries)), counts))
    runs = dict.fromkeys(run for run, _ in node.entries)
    return leaf_of(node.keys, node.entries, {run: size_of(run) for run in runs})
