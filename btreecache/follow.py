"""Follower: keeps a cache in step with a source: list, watch, apply, resynchronise, back off.

What it does after each kind of trouble:

    connection lost        watch again after the last revision applied; nothing is lost
    position compacted     list again: a new window
    the feed broke its     list again, after a pause that doubles while faults keep coming;
    contract (FeedFault)   the cache serves nothing suspect meanwhile
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from random import Random
from typing import Literal

from btreecache.backoff import Backoff
from btreecache.cache import Cache
from btreecache.compaction import Compaction
from btreecache.element import Element
from btreecache.errors import (
    ArchiveError,
    BtreecacheError,
    Compacted,
    FeedFault,
    FutureRevision,
    Unavailable,
)
from btreecache.event import Batch
from btreecache.logs import Field, say
from btreecache.snapshot import Snapshot
from btreecache.source import Source, Stream
from btreecache.stepper import Stepper

log = logging.getLogger(__name__)


#: Of so many keys the revisions are compared before an archived state is taken up.
CONFIRMED_KEYS = 500


class Follower(Stepper):
    """Feeds one cache from one source. Only one thread may call `step`; `start` makes that thread.

    It begins with a list, or where the cache or its archive holds a state of this source already,
    right after it. What is archived is served while the source is away.

    on_gap      what a watcher sees of a resynchronisation: "resync", Compacted (it must list
                again); "diff", the net change as one batch marked synthetic
    compaction  what is known of the source's compaction: the cache is compacted there too, and
                told of what the follower meets. None: only the window's bounds count
    now, rng    clock in seconds and jitter, for tests and simulation
    """

    def __init__(
        self,
        source: Source,
        cache: Cache,
        *,
        on_gap: Literal["resync", "diff"] = "resync",
        compaction: Compaction | None = None,
        backoff_first_s: float = 0.05,
        backoff_ceiling_s: float = 30.0,
        now: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        super().__init__("btreecache-follower")
        self._source = source
        self._cache = cache
        self._on_gap = on_gap
        self._compaction = compaction
        # Reproducible unless the caller brings entropy: jitter is no secret.
        self._backoff = Backoff(now, rng or Random(0), backoff_first_s, backoff_ceiling_s)
        self._watched_after = 0  # where the stream began
        self._must_list = not cache.ready
        self._must_restore = self._must_list and cache.archive is not None
        self._must_confirm = False
        self._trouble: BtreecacheError | None = None

    @property
    def trouble(self) -> BtreecacheError | None:
        """What went wrong last, None while all is well."""
        return self._trouble

    def step(self, timeout_s: float = 0.0) -> bool:
        """Do the next thing: list, open a watch, or apply one item. Whether anything was done.

        Waits up to `timeout_s` for an item; 0 doesn't wait. Never raises for what a source does.
        """
        self._compact()
        if self._backoff.remaining_s() > 0:
            self._stopping.wait(min(timeout_s, self._backoff.remaining_s()))
            return False
        try:
            if self._must_restore:
                self._restore()
                return True
            if self._must_confirm:
                self._must_list = not self._goes_on(self._cache.snapshot())
                self._must_confirm = False
                return True
            if self._must_list:
                self._list()
                return True
            if self._stream is None:
                self._watched_after = self._cache.revision
                self._stream = self._source.watch(self._cache.prefix, self._watched_after)
                return True
            return self._receive(self._stream, timeout_s)
        except (Compacted, FeedFault) as error:
            if self._compaction and isinstance(error, Compacted):
                self._compaction.note(error.oldest)
            self._must_list = True
            self._recover(error)
        except BtreecacheError as error:
            self._recover(error)
        return True

    def _compact(self) -> None:
        """Forget what the source has forgotten."""
        cache, known = self._cache, self._compaction.revision if self._compaction else 0
        if cache.oldest < known and cache.oldest < cache.revision:
            cache.compact(min(known, cache.revision))

    def _restore(self) -> None:
        """Go on from what is archived; a source that has compacted it is listed, as ever, and so is
        one whose archive can't be read."""
        try:
            self._must_list = not self._cache.restore(self._may_go_on)
        except ArchiveError as error:
            self._say(logging.WARNING, "archive_unreadable", error=str(error))
        self._must_restore = False

    def _may_go_on(self, archived: Snapshot) -> bool:
        """Whether the archived state is taken up. While the source is away it is: a process that
        had not ended would serve the same. What the source says once it is back goes on from there,
        or is listed."""
        try:
            return self._goes_on(archived)
        except Unavailable as error:
            self._must_confirm, self._must_list = True, False
            self._recover(error)
            return True

    def _goes_on(self, archived: Snapshot) -> bool:
        """Whether the source holds the archived state, and so isn't another one, or an older state
        of the same: by the number of keys, and the revisions of the first."""
        try:
            page = self._source.range_at(
                archived.revision, self._cache.prefix, None, CONFIRMED_KEYS, keys_only=True
            )
        except (Compacted, FutureRevision):
            return False
        mine = archived.list(self._cache.prefix, limit=CONFIRMED_KEYS).elements
        return page.count == len(archived) and [*map(_revisions, page.elements)] == [
            *map(_revisions, mine)
        ]

    def _list(self) -> None:
        listing = self._source.list(self._cache.prefix)
        cache = self._cache
        cache.replace(listing.revision, listing.elements, as_batch=self._on_gap == "diff")
        why = str(self._trouble) if self._trouble else "nothing was there"
        count = cache.stats().elements
        self._say(logging.INFO, "listed", revision=listing.revision, elements=count, why=why)
        self._must_list = False
        self._trouble = None

    def _receive(self, stream: Stream, timeout_s: float) -> bool:
        item = stream.receive(timeout_s)
        if item is None:
            return False
        if isinstance(item, Batch):
            self._cache.apply(item)
        else:
            self._cache.progress(item)
        self._trouble = None
        return True

    def _say(self, level: int, event: str, **fields: Field) -> None:
        prefix = self._cache.prefix.decode(errors="backslashreplace")
        say(log, level, event, source=self._source.name, prefix=prefix, **fields)

    def _recover(self, error: BtreecacheError) -> None:
        # A lost connection is everyday; a broken feed is not.
        level = logging.INFO if isinstance(error, Unavailable | Compacted) else logging.WARNING
        kind = error.kind if isinstance(error, FeedFault) else type(error).__name__
        self._say(level, "feed_trouble", kind=kind, error=str(error), lists_again=self._must_list)
        self._trouble = error
        # A stream that broke but brought the cache on is no reason to wait: it would fall behind.
        brought_on = self._stream is not None and self._cache.revision > self._watched_after
        self._close_stream()
        self._backoff.fail(afresh=brought_on and not self._must_list)

    def request_progress(self) -> bool | None:
        """Ask the source how far the cache may consider itself complete. Any thread.

        False where progress can't be asked for or can't be trusted; None where nobody knows: there
        is no stream just now.
        """
        stream = self._stream
        return None if stream is None else stream.request_progress()


def _revisions(element: Element) -> tuple[bytes, int, int, int]:
    return element.key, element.mod_revision, element.create_revision, element.version
