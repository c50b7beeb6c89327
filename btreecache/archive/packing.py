"""Packing: what no retained revision needs is set free, while others read and write.

docs/archive.md, "Packing", says why that is safe.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IMVCCStorage
from ZODB.utils import u64

from btreecache.archive.file import private_files
from btreecache.archive.records import NAME, Groups
from btreecache.archive.storage import Transactions, told
from btreecache.errors import ArchiveError


def pack(database: Any) -> None:
    """O(all records). Raises ArchiveError; then everything is as it was, and nothing lies about."""
    with told("the archive can't be packed"), database.patience.boundless():
        if isinstance(database.storage, FileStorage):
            with _beside(database.storage.getName()):
                database.pack()
        elif IMVCCStorage.providedBy(database.storage):
            database.pack(_held(database))
        else:
            database.pack()


@contextmanager
def _beside(path: str) -> Iterator[None]:
    """A file is packed into another one beside it, which is at most as large."""
    needed = os.path.getsize(path)
    disk = os.statvfs(os.path.dirname(os.path.abspath(path)))
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise ArchiveError(f"packing {path} may need {needed} bytes, and only {free} are free")
    try:
        with private_files():
            yield
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(f"{path}.pack")
        raise


def _held(database: Any) -> int:
    """The transaction to pack to, before one in which all that the next groups may share is
    referred to once more.

    RelStorage lists all objects and then, from a later state, what is reachable. A group written in
    between isn't on the list, so what it refers to isn't followed; and the group that it shares
    with may have been forgotten in between. But what is newer than the transaction to pack to
    is kept, on the list or not, with all that it refers to.
    """
    manager = Transactions()
    connection = database.open(manager)
    try:
        manager.begin()
        before = connection._storage.lastTransaction()
        manager.abort()
        with manager:
            histories = [history.read() for history in connection.root()[NAME].state[1].values()]
            shared = [history.tail for history in histories if history.tail is not None]
            shared += [known.groups[known.groups.maxKey()] for known in histories if known.groups]
            # Nothing refers to this record: the next pack takes it.
            connection.add(Groups(dict(enumerate(shared))))
        return int(u64(before))
    finally:
        connection.close()
