"""What `get`, `list`, `diff` and `log` read: an archive, or a source, while it remembers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from btreecache.cli import origin
from btreecache.cli.arguments import Moment
from btreecache.cli.printing import key_text
from btreecache.element import Element
from btreecache.errors import BadRequest, Compacted
from btreecache.snapshot import prefix_end
from btreecache.source import Source
from btreecache.tree import ABSENT

if TYPE_CHECKING:
    from btreecache.archive.reading import Reading
    from btreecache.archive.records import GroupState

#: Where the keys of Kubernetes objects begin.
PREFIX = b"/registry/"

#: Keys in a page of the source.
PAGE_KEYS = 500

#: Times are printed to the microsecond, which may be just before what they stand for.
PRINTED_S = 1e-6

Change = Literal["created", "updated", "deleted", "gap"]

#: A key, and what it was and is.
Changed = tuple[bytes, Element | None, Element | None]


class Version(NamedTuple):
    """One change of one object.

    revision   of the change; of a gap, where it ends
    time_s     when it arrived, seconds since 1970; None: that isn't known
    note       what else is to be said, as of a gap why it is one
    """

    revision: int
    time_s: float | None
    change: Change
    previous: Element | None = None
    element: Element | None = None
    note: str = ""


class Past(Protocol):
    """Elements as they were. All of it raises Compacted, FutureRevision, and what reading does."""

    prefix: bytes

    def newest(self) -> int:
        """The newest revision."""

    def revision(self, moment: Moment | None) -> int:
        """The revision that is meant; None: the newest. Raises BadRequest."""

    def stored(self, prefix: bytes, revision: int) -> Iterator[Element]:
        """The elements at a revision, in key order, as the source has them."""

    def get(self, key: bytes, revision: int) -> Element | None:
        """One of them."""

    def changes(self, prefix: bytes, old: int, new: int) -> Iterator[Changed]:
        """The keys that differ between two revisions, in order."""

    def versions(self, key: bytes, upto: int) -> Iterator[Version]:
        """What became of one key up to a revision, the newest first."""


@contextmanager
def opened(options: argparse.Namespace, prefix: bytes | None) -> Iterator[Past]:
    """What the flags name, closed at the end; `prefix` of the keys of interest, None: as `--prefix`
    isn't given. Raises BadRequest."""
    if options.archive is None:
        with origin.opened(options, writes=0) as source:
            yield SourcePast(source, PREFIX if prefix is None else prefix)
        return
    origin.refuse(options, "--etcd or --sim", "cacert", "cert", "key", "user", *origin.SIMULATED)
    from btreecache.archive import Archive

    archive = Archive.open(options.archive, read_only=True)
    try:
        with archive.reading(_history(archive.prefixes(), prefix)) as reading:
            yield ArchivePast(reading, reading.prefix if prefix is None else prefix)
    finally:
        archive.close()


def _history(histories: list[bytes], prefix: bytes | None) -> bytes | None:
    """The history that has the keys with a prefix; None: the only one. Raises BadRequest."""
    if prefix is None:
        return None
    over = [history for history in histories if prefix.startswith(history)]
    below = [history for history in histories if history.startswith(prefix)]
    if over or len(below) == 1:
        return max(over or below, key=len)
    names = ", ".join(map(key_text, below or histories)) or "none"
    what = "several histories" if below else "no history"
    raise BadRequest(f"the archive has {what} of {key_text(prefix)}; there are: {names}")


class SourcePast:
    """The past of a source, as far as it isn't compacted."""

    def __init__(self, source: Source, prefix: bytes) -> None:
        self.prefix = prefix
        self._source = source

    def newest(self) -> int:
        return self._source.current_revision()

    def revision(self, moment: Moment | None) -> int:
        if moment is None:
            return self.newest()
        if not isinstance(moment, int):
            raise BadRequest("a source knows revisions, no times: those need --archive")
        return moment

    def stored(self, prefix: bytes, revision: int) -> Iterator[Element]:
        """As Past.stored, page by page."""
        return stored(self._source, prefix, revision)

    def get(self, key: bytes, revision: int) -> Element | None:
        found = self._source.range_at(revision, key, None, 1).elements
        return found[0] if found and found[0].key == key else None

    def changes(self, prefix: bytes, old: int, new: int) -> Iterator[Changed]:
        """As Past.changes. Reads both revisions, two pages in memory."""
        olds, news = self.stored(prefix, old), self.stored(prefix, new)
        was, now = next(olds, None), next(news, None)
        while was is not None or now is not None:
            if now is None or (was is not None and was.key < now.key):
                assert was is not None
                yield was.key, was, None
                was = next(olds, None)
            elif was is None or now.key < was.key:
                yield now.key, None, now
                now = next(news, None)
            else:
                if was.mod_revision != now.mod_revision:
                    yield now.key, was, now
                was, now = next(olds, None), next(news, None)

    def versions(self, key: bytes, upto: int) -> Iterator[Version]:
        """As Past.versions, back to where the object was created: what was before a deletion only
        an archive knows. A read for each."""
        element = self.get(key, upto)
        while element is not None:
            revision, before, note = element.mod_revision, None, ""
            is_created = revision == element.create_revision
            if not is_created:
                try:
                    before = self.get(key, revision - 1)
                except Compacted as error:
                    note = str(error)
            yield Version(revision, None, "created" if is_created else "updated", before, element)
            if note:
                yield Version(revision, None, "gap", note=note)
            element = before


def stored(source: Source, prefix: bytes, revision: int) -> Iterator[Element]:
    """The elements at a revision as the source has them, page by page."""
    start = None
    while True:
        page = source.range_at(revision, prefix, start, PAGE_KEYS)
        yield from page.elements
        if not page.more:
            return
        start = page.elements[-1].key + b"\0"


class ArchivePast:
    """The past that an archive has of one history."""

    def __init__(self, reading: Reading, prefix: bytes) -> None:
        self.prefix = prefix
        self._reading = reading

    def newest(self) -> int:
        return self._reading.newest

    def revision(self, moment: Moment | None) -> int:
        if moment is None:
            return self.newest()
        if isinstance(moment, int):
            return moment
        return self._reading.revision_at(moment.timestamp() + PRINTED_S)

    def stored(self, prefix: bytes, revision: int) -> Iterator[Element]:
        return self._reading.snapshot(revision).tree.values(prefix, prefix_end(prefix))

    def get(self, key: bytes, revision: int) -> Element | None:
        return self._reading.snapshot(revision).get(key)

    def changes(self, prefix: bytes, old: int, new: int) -> Iterator[Changed]:
        """As Past.changes. O(nodes that the two revisions don't share)."""
        before, after = self._reading.snapshot(old), self._reading.snapshot(new)
        for key, was, now in before.tree.changes(after.tree):
            if key.startswith(prefix):
                yield key, None if was is ABSENT else was, None if now is ABSENT else now

    def versions(self, key: bytes, upto: int) -> Iterator[Version]:
        """As Past.versions. O(groups * log n), and the logs in which the key may have changed."""
        self._reading.snapshot(upto)
        groups = self._reading.state.groups
        revisions = list(groups.keys())
        for at in reversed(range(len(revisions))):
            group = groups[revisions[at]].read()
            base = revisions[at - 1] if at else None
            if group.log is None and group.revision <= upto:
                yield from self._between(key, base, group)
            elif group.log is not None and group.base < upto:
                yield from self._of_group(key, group, min(upto, group.revision))

    def _of_group(self, key: bytes, group: GroupState, upto: int) -> Iterator[Version]:
        """What the log of a group says of a key, the newest first."""
        assert group.base is not None
        before, now = self.get(key, group.base), self.get(key, upto)
        if before is not None and now is not None and before.mod_revision == now.mod_revision:
            return
        found: list[Version] = []
        for batch, arrived_s in self._reading.batches(group.base, upto):
            for event in batch.events:
                if event.key == key:
                    made = _version(batch.revision, before, event.element)
                    found.append(made._replace(time_s=arrived_s))
                    before = event.element
        yield from reversed(found)

    def _between(self, key: bytes, base: int | None, group: GroupState) -> Iterator[Version]:
        """What the state of a group says of a key, that doesn't follow from the group before."""
        before = None if base is None else self.get(key, base)
        now = self.get(key, group.revision)
        if before is not None and now is not None and before.mod_revision == now.mod_revision:
            return  # Nothing happened to it in between: that is what the number proves.
        if now is not None:
            yield _version(now.mod_revision, before, now)
        elif before is not None:
            note = f"some time from {base} to {group.revision}"
            yield _version(group.revision, before, None)._replace(note=note)
        after, reason = base or 0, "the archive begins" if base is None else "no longer archived"
        for start, revision, why, _ in self._reading.state.gaps:
            if revision == group.revision and base is not None:
                after, reason = start, f"not archived ({why})"
        if base is not None or now is None or now.mod_revision != now.create_revision:
            note = f"changes from {after} to {group.revision}: {reason}"
            yield Version(group.revision, group.first_s, "gap", note=note)


def _version(revision: int, before: Element | None, now: Element | None) -> Version:
    if now is None:
        return Version(revision, None, "deleted", before)
    is_created = now.create_revision == now.mod_revision
    return Version(revision, None, "created" if is_created else "updated", before, now)
