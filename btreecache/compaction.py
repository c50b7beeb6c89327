"""Compaction: the revision below which the source has forgotten, as far as anybody has told.

API servers agree on it in etcd, in a key of their own outside of all resources (`compact_rev_key`,
a decimal number): it is watched. And whoever is told by the source that a revision is gone says so
(`note`). Followers compact their caches there, so that a cache serves no history that its source
has given up (I8). It is a machine with one step, as a Follower.
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
from btreecache.source import Source, Stream

log = logging.getLogger(__name__)

#: Where API servers write down what they have compacted.
KEY = b"compact_rev_key"

#: Longest time that a stopping thread takes to notice.
POLL_S = 0.1

_DECIMAL = re.compile(rb"[0-9]{1,19}")


class Compaction:
    """What is known of one source's compaction, for all caches that follow it. Any thread; only one
    may call `step`, and `start` makes that thread.

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
        self.revision = 0
        self._source = source
        self._key = key
        self._backoff = Backoff(now, rng or Random(0), backoff_first_s, backoff_ceiling_s)
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, revision: int) -> None:
        """The source has said that everything below `revision` is gone."""
        with self._lock:
            self.revision = max(self.revision, revision)

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
        log.info("source=%s key=%s error=%s", self._source.name, self._key, error)
        self._close_stream()
        self._backoff.fail()

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def run(self) -> None:
        """Follow the key until `close` is called, in the caller's thread."""
        try:
            while not self._stopping.is_set():
                self.step(POLL_S)
        finally:
            self._close_stream()

    def start(self) -> Compaction:
        """Follow the key in a thread of its own until `close`."""
        assert self._thread is None, "started twice"
        self._thread = threading.Thread(target=self.run, name="btreecache-compaction", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop following, and wait for the thread to end. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        else:
            self._close_stream()
