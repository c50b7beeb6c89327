"""Trimming: forgetting what a retention doesn't keep, in an archive that nobody may be writing."""

from __future__ import annotations

from typing import Any

import transaction
from ZODB.POSException import ConflictError

from btreecache.archive.groups import forget
from btreecache.archive.records import NAME
from btreecache.archive.retention import Retention, dropped
from btreecache.archive.storage import told
from btreecache.archive.writer import summary
from btreecache.errors import ArchiveError

#: A writer may commit at the same time: then once more, from what is there by then.
TRIES = 10


def trim(database: Any, retention: Retention, prefix: bytes | None, now_s: float) -> int:
    """Forget groups of one history, or of all (None); how many. A pack sets the space free.

    O(groups). Raises ArchiveError.
    """
    manager = transaction.TransactionManager()
    connection = database.open(manager)
    try:
        with told("the archive can't be written"):
            for _ in range(TRIES):
                manager.begin()
                try:
                    histories = connection.root()[NAME].state[1]
                    count = sum(
                        _forget(history.read().groups, retention, now_s)
                        for of, history in histories.items()
                        if prefix is None or of == prefix
                    )
                    manager.commit()
                    return count
                except ConflictError:
                    manager.abort()
    finally:
        manager.abort()
        connection.close()
    raise ArchiveError("another process writes to the archive all the time")


def _forget(groups: Any, retention: Retention, now_s: float) -> int:
    gone = [*dropped(retention, [summary(group.read()) for group in groups.values()], now_s)]
    forget(groups, gone)
    return len(gone)
