"""Compaction: the revision below which the source has forgotten, as far as anybody has told.

API servers agree on it in etcd, in a key of their own outside of all resources (`compact_rev_key`,
a decimal number): it is watched. And whoever is told by the source that a revision is gone says so
(`note`). Followers compact their caches there, so that a cache serves no history that its source
has given up (I8).
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from random import Random

from btreecache.backoff import Backoff
from btreecache.errors import BtreecacheError, Compacted
from btreecache.event import Batch
from btreecache.logs import say
from btreecache.source import Source, Stream
from btreecache.stepper import Stepper

log = logging.getLogger(__name__)

#: Where API servers write down what they have compacted.
KEY = b"compact_rev_key"

_DECIMAL = re.compile(rb"[0-9]{1,19}")


class Compaction(Stepper):
    """What is known of one source's compaction, for all caches that follow it. Any thread may read
    and note it.

    revision   everything below it is gone; 0: nothing is known. It never falls
    """

    def __init__(
        self,
        source: Source,
        *,
        key: bytes = KEY,
        backoff_first_s: float = 0.5,
        backoff_ceiling_s: float = 30.0,
        now: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        super().__init__("btreecache-compaction")
        self.revision = 0
        self._source = source
        self._key = key
        self._backoff = Backoff(now, rng or Random(0), backoff_first_s, backoff_ceiling_s)
        self._lock = threading.Lock()

    def note(self, revision: int) -> None:
        """The source has said that everything below `revision` is gone."""
        with self._lock:
            rises = revision > self.revision
            self.revision = max(self.revision, revision)
        if rises:
            say(log, logging.INFO, "compacted", source=self._source.name, revision=revision)

    def step(self, timeout_s: float = 0.0) -> bool:
        """Read the key, watch it, or take one change. Whether anything was done. Never raises for
        what a source does."""
        if self._backoff.remaining_s() > 0:
            self._stopping.wait(min(timeout_s, self._backoff.remaining_s()))
            return False
        try:
            if self._stream is None:
                self._open()
                return True
            return self._receive(self._stream, timeout_s)
        except Compacted as error:
            self.note(error.oldest)
            self._recover(error)
        except BtreecacheError as error:
            self._recover(error)
        return True

    def _open(self) -> None:
        revision = self._source.current_revision()
        page = self._source.range_at(revision, self._key, None, 1)
        for element in page.elements:
            self._read(element.key, element.value)
        self._stream = self._source.watch(self._key, revision)

    def _receive(self, stream: Stream, timeout_s: float) -> bool:
        item = stream.receive(timeout_s)
        if isinstance(item, Batch):
            for event in item.events:
                if event.element is not None:
                    self._read(event.key, event.element.value)
        return item is not None

    def _read(self, key: bytes, value: bytes) -> None:
        """A value that is no number is somebody else's, and says nothing."""
        if key == self._key and _DECIMAL.fullmatch(value):
            self.note(int(value))

    def _recover(self, error: BtreecacheError) -> None:
        say(log, logging.INFO, "compaction_unknown", source=self._source.name, error=str(error))
        self._close_stream()
        self._backoff.fail()
