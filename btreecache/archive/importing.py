"""Importing a history: from lines, or from what `etcdctl get -w json` says.

Groups are written as they come, under a name of their own beside the histories, and become one by
the last transaction, once the whole file was found to be right. So nothing is ever half imported;
what a killed import leaves is removed by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NoReturn

import msgspec
from ZODB.POSException import ConflictError

from btreecache.archive import lines
from btreecache.archive.pending import Pending
from btreecache.archive.records import NAME, History, Root
from btreecache.archive.retention import Retention
from btreecache.archive.storage import Transactions, told
from btreecache.archive.writer import HistoryWriter
from btreecache.digest import MODULUS, element_digest, recompute
from btreecache.element import Element
from btreecache.errors import ArchiveError, BadRequest, FeedFault
from btreecache.event import Batch, Event
from btreecache.feed import check_event, check_keys
from btreecache.tree import Editor, Tree

#: The name that a history has in ZODB's root until it is complete begins so.
STAGED = f"{NAME}-import-"

#: A group is written at each checkpoint, and where so much has come without one.
GROUP_REVISIONS, GROUP_BYTES = 10_000, 64 << 20

#: Other writers may commit at the same time.
TRIES = 10


class Importer:
    """One history on its way into an archive. For one thread; `close` it.

    number   of its writer, as HistoryWriter's
    """

    def __init__(self, database: Any, prefix: bytes, number: int) -> None:
        self.prefix = prefix
        self._name = f"{STAGED}{number}"
        self._now_s = 0.0
        self._pending = Pending(
            lambda: self._now_s, lambda: None, revisions_max=1 << 62, bytes_max=1 << 62
        )
        self._writer = HistoryWriter(
            prefix, self._pending, Retention(), number, lambda: self._now_s
        )
        self._tree: Tree[bytes, Element] = Tree()
        self._editor: Editor[bytes, Element] | None = None
        self._listed = lines.Listed(0, 0.0)
        self._digest = 0
        self._last = 0
        self.revisions = 0
        self._manager = Transactions()
        with told("the archive can't be written"):
            self._connection = database.open(self._manager)

    def take(self, found: Iterable[lines.AnyLine]) -> None:
        """All lines after the header, and make a history of them.

        Raises BadRequest for what can't be a history, ArchiveError.
        """
        with told("the archive can't be written"):
            self._clear()
            number = 1
            for number, line in enumerate(found, 2):
                try:
                    self._line(line)
                except (BadRequest, FeedFault) as error:
                    raise BadRequest(f"line {number}: {error}") from None
            if not self._last or self._editor is not None:
                raise BadRequest(f"line {number}: it ends without a checkpoint")
            self._commit()
            self._publish()

    def close(self) -> None:
        """Remove what isn't complete. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._manager.abort()
            with told("the archive can't be written"):
                self._manager.begin()
                if connection.root().pop(self._name, None) is not None:
                    self._manager.commit()
            self._manager.abort()
            connection.close()

    def _clear(self) -> None:
        """That there is room; what killed imports left goes."""
        self._manager.begin()
        root = self._connection.root()
        self._check_absent(root[NAME])
        left = [name for name in root if name.startswith(STAGED)]
        for name in left:
            del root[name]
        if left:
            self._manager.commit()
        self._manager.abort()

    def _check_absent(self, root: Root) -> None:
        if self.prefix in root.state[1]:
            raise BadRequest(f"the archive has a history of {self.prefix!r} already")

    # Lines.

    def _line(self, line: lines.AnyLine) -> None:
        if isinstance(line, lines.Put | lines.Delete):
            self._change(line)
        elif isinstance(line, lines.Checkpoint):
            self._checkpoint(line)
        elif self._editor is not None:
            raise BadRequest("a list ends with a checkpoint")
        elif isinstance(line, lines.Listed):
            self._check_above(line.revision)
            self._commit()
            self._listed, self._editor = line, self._tree.edit()
        elif not self._last:
            raise BadRequest("it begins with a list")
        elif isinstance(line, lines.BatchLine):
            self._batch(line)
        elif isinstance(line, lines.Progressed):
            self._check_above(line.revision)
            self._pending.progressed(line.revision)
            self._last = line.revision
        else:
            raise BadRequest("a second header")

    def _check_above(self, revision: int) -> None:
        if revision <= self._last:
            raise BadRequest(f"revision {revision} after {self._last}")

    def _change(self, line: lines.Put | lines.Delete) -> None:
        """A difference to the state before, in a list."""
        if self._editor is None:
            raise BadRequest("an element outside a list")
        element = lines.element_of(line) if isinstance(line, lines.Put) else None
        key = element.key if element else lines.bytes_of(line.key, line.key_base64)
        if not key.startswith(self.prefix):
            raise BadRequest(f"key {key!r} is outside the prefix {self.prefix!r}")
        if element is not None:
            if not element.create_revision <= element.mod_revision <= self._listed.revision:
                raise BadRequest(f"key {key!r} is of revision {element.mod_revision}")
            self._editor.set(key, element)
        elif self._editor.get(key) is None:
            raise BadRequest(f"a delete of a key not known, {key!r}")
        else:
            self._editor.delete(key)

    def _checkpoint(self, line: lines.Checkpoint) -> None:
        if self._editor is not None:
            self._tree, self._editor = self._editor.freeze(), None
            self._digest = recompute(self._tree.values(), "values")
            self._last, self._now_s = self._listed.revision, self._listed.time_s
            self._pending.began(self._last, self._tree, self._listed.reason)
            self.revisions += 1
        found = (self._last, len(self._tree), f"{self._digest:064x}")
        if (line.revision, line.elements, line.digest) != found:
            raise BadRequest("the lines before don't come to this checkpoint")
        self._commit()

    def _batch(self, line: lines.BatchLine) -> None:
        self._check_above(line.revision)
        editor, events = self._tree.edit(), []
        for one in line.events:
            element = lines.element_of(one) if isinstance(one, lines.Put) else None
            key = element.key if element else lines.bytes_of(one.key, one.key_base64)
            previous = editor.get(key)
            events.append(Event(key, element, previous))
        batch = Batch(line.revision, tuple(events))
        check_keys(batch)
        digest = self._digest
        for event in batch.events:
            check_event(batch, event, event.previous, self.prefix)
            if event.previous is not None:
                digest -= element_digest(event.previous, "values")
            if event.element is None:
                editor.delete(event.key)
            else:
                digest += element_digest(event.element, "values")
                editor.set(event.key, event.element)
        self._tree, self._digest = editor.freeze(), digest % MODULUS
        self._last, self._now_s = line.revision, line.time_s
        self._pending.appended(batch, self._tree)
        self.revisions += 1
        if len(self._pending) >= GROUP_REVISIONS or self._pending.held_bytes >= GROUP_BYTES:
            self._commit()

    # Transactions.

    def _commit(self) -> None:
        """Write what has come, as one group for each list and the batches in between."""
        while True:
            self._manager.begin()
            self._writer.attach(self._connection)
            root = self._connection.root()
            staged: History | None = root.get(self._name)
            if staged is None and self._pending.durable_revision:
                raise ArchiveError("another import has removed what this one had written")
            histories = {} if staged is None else {self.prefix: staged}
            if self._writer.prepare(histories, 1 << 30, 1 << 62):
                if staged is None:
                    root[self._name] = histories[self.prefix]
                self._manager.commit()
            self._writer.keep()
            self._manager.abort()
            if not len(self._pending):
                return

    def _publish(self) -> None:
        """Make it a history of the archive."""
        for left in range(TRIES - 1, -1, -1):
            self._manager.begin()
            root = self._connection.root()
            archive: Root = root[NAME]
            self._check_absent(archive)
            archive.state = (archive.state[0], {**archive.state[1], self.prefix: root[self._name]})
            del root[self._name]
            try:
                self._manager.commit()
                return
            except ConflictError:
                if not left:
                    raise
                self._manager.abort()


def opened_file(
    file: BinaryIO, prefix: bytes | None, now: Callable[[], float]
) -> tuple[bytes, Iterator[lines.AnyLine]]:
    """The prefix of the history that a file has, and its lines after the header.

    A file whose first line isn't ours is taken for the JSON of etcdctl. Raises BadRequest.
    """
    start = file.readline(lines.LINE_BYTES_MAX)
    if not start.startswith(b'{"type":'):
        if prefix is None:
            raise BadRequest("etcdctl's JSON doesn't say what it was asked for: name the --prefix")
        return prefix, of_etcdctl(start + file.read(), now())
    found = lines.read(_From(start, file))  # type: ignore[arg-type]
    header = next(found, None)
    if not isinstance(header, lines.Header):
        raise BadRequest("line 1: not a header")
    if header.format > lines.FORMAT:
        text = f"format {header.format}; this version reads formats up to {lines.FORMAT}"
        raise BadRequest(f"line 1: {text}")
    own = lines.bytes_of(header.prefix, header.prefix_base64)
    return own if prefix is None else prefix, found


class _From:
    """A file whose first line was read."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start, self._file = start, file

    def readline(self, most: int) -> bytes:
        start, self._start = self._start, b""
        return start or self._file.readline(most)

    def read(self, most: int) -> bytes:
        return self._file.read(most)


class _KeyValue(msgspec.Struct):
    key: bytes
    create_revision: lines.Revision
    mod_revision: lines.Revision
    version: lines.Revision = 0
    value: bytes = b""


class _ResponseHeader(msgspec.Struct):
    revision: lines.Revision


class _Response(msgspec.Struct):
    header: _ResponseHeader
    kvs: list[_KeyValue] = []
    count: int = 0
    more: bool = False


def of_etcdctl(text: bytes, now_s: float) -> Iterator[lines.AnyLine]:
    """What `etcdctl get --prefix .. -w json` says, as the lines of a history of one revision.

    Raises BadRequest.
    """
    try:
        found = msgspec.json.decode(text, type=_Response)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        _refuse(f"neither an export nor etcdctl's JSON: {error}")
    if found.more or found.count != len(found.kvs):
        _refuse(f"{len(found.kvs)} of {found.count} keys: it was made with --limit or --count-only")
    elements = [
        Element(kv.key, kv.value, kv.mod_revision, kv.create_revision, kv.version)
        for kv in found.kvs
    ]
    yield lines.Listed(found.header.revision, now_s)
    yield from map(lines.put, elements)
    digest = recompute(elements, "values")
    yield lines.Checkpoint(found.header.revision, len(elements), f"{digest:064x}")


def _refuse(text: str) -> NoReturn:
    raise BadRequest(text)
