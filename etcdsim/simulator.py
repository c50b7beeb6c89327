"""Simulator: seeded traffic on a model, seen through two handles.

`feed` is what a client gets: faults act on its watch streams and reads. `truth` is the model
itself, for whoever judges the client; nothing ever acts on it. Same profile, seed, objects and
faults: the same bytes, on every Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from etcdsim.clock import VirtualClock
from etcdsim.digest import RunningDigest
from etcdsim.errors import ErrCompacted, ErrFutureRev
from etcdsim.fault import FORCE_WITHIN_REVISIONS, Fault, FaultyChannel
from etcdsim.faults import Tallies
from etcdsim.model import KeyValue, Model, RangeResult, prefix_range
from etcdsim.prng import Prng
from etcdsim.traffic import make_profile
from etcdsim.watch import Watcher, WatchResponse

MARK_REVISIONS_MIN, MARK_REVISIONS_MAX = 5, 20  # between two progress marks on the feed
EXTRA_WRITES_MAX = 1000  # that one finish() may add


class Stream(Protocol):
    """A watch in progress, pulled."""

    def poll(self) -> WatchResponse | None:
        """The next response, None if there is nothing new."""

    def request_progress(self) -> None:
        """Ask for a progress mark, in its place behind the events so far."""

    def close(self) -> None:
        """End the watch. Idempotent."""


class Handle:
    """What an etcd client can ask, unchanged from the model's own answers."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        revision: int = 0,
        limit: int = 0,
        *,
        keys_only: bool = False,
        count_only: bool = False,
    ) -> RangeResult:
        """As `Model.range`."""
        return self._model.range(
            key, range_end, revision, limit, keys_only=keys_only, count_only=count_only
        )

    def current_revision(self) -> int:
        return self._model.revision


class Feed(Handle):
    """The store as a client sees it, through whatever faults there are."""

    def __init__(self, model: Model, tallies: Tallies) -> None:
        super().__init__(model)
        self._tallies = tallies
        self._streams: list[FaultyChannel] = []
        self._opened = 0

    def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        revision: int = 0,
        limit: int = 0,
        *,
        keys_only: bool = False,
        count_only: bool = False,
    ) -> RangeResult:
        """As `Model.range`; a read of the newest state may be answered by a member that lags."""
        if revision > 0:
            answered = self._model.revision
            if revision < self._tallies.compacted:
                raise ErrCompacted
        else:
            answered = revision = self.current_revision()
        found = super().range(
            key, range_end, revision, limit, keys_only=keys_only, count_only=count_only
        )
        return found._replace(revision=answered)

    def current_revision(self) -> int:
        """That of the member that answers."""
        floor = max(self._model.compact_revision, self._tallies.compacted, 1)
        return self._tallies.answered_at(self._model.revision, floor)

    def watch(
        self, key: bytes, range_end: bytes, start_revision: int, prev_kv: bool = False
    ) -> Stream:
        """A watch from `start_revision` on (0: from the next revision), one revision a response.

        Raises as `Watcher` does.
        """
        watcher = Watcher(self._model, key, range_end, start_revision, prev_kv, batch_revisions=1)
        compacted = self._tallies.compacted
        if not 0 < start_revision < compacted:
            compacted = 0
        stream = FaultyChannel(watcher, self._tallies.stages(self._opened), compacted)
        self._opened += 1
        self._streams.append(stream)
        return stream

    def open_streams(self) -> list[FaultyChannel]:
        """Those neither closed nor cancelled, in the order of opening."""
        self._streams = [stream for stream in self._streams if stream.is_open]
        return self._streams


class Page(NamedTuple):
    """Keys in order from the start asked for; `more`: there are others behind the last."""

    kvs: list[KeyValue]
    more: bool


class Truth(Handle):
    """The store as it is, and what a checker needs to know of it cheaply.

    Everything about digests is about the prefix given to `track`; before that it is a RuntimeError.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._digest: RunningDigest | None = None

    def watch(
        self, key: bytes, range_end: bytes, start_revision: int, prev_kv: bool = False
    ) -> Stream:
        """A watch that no fault touches; as `Watcher`."""
        return Watcher(self._model, key, range_end, start_revision, prev_kv)

    def track(self, prefix: bytes, with_values: bool) -> None:
        """Keep digest and count of a prefix (b"": all keys) at every revision from now on, and at
        those before that can still be read. O(records in the log), then O(changes) a revision."""
        self._digest = RunningDigest(self._model, prefix, with_values)

    def follow(self) -> None:
        """Bring the digests up to date, if there are any. O(changes since)."""
        if self._digest is not None:
            self._digest.follow()

    def _tracked(self) -> RunningDigest:
        if self._digest is None:
            raise RuntimeError("no prefix is tracked: call track() first")
        return self._digest

    def count_at(self, revision: int) -> int:
        """Live keys at `revision`. O(1). Raises ErrCompacted, ErrFutureRev."""
        return self._tracked().at(revision)[0]

    def digest_at(self, revision: int) -> int:
        """The digest at `revision` (see `etcdsim.digest`). O(1). Raises as `count_at`."""
        return self._tracked().at(revision)[1]

    def recompute_digest(self, revision: int) -> tuple[int, int]:
        """(count, digest) from scratch. O(keys). Raises ErrCompacted, ErrFutureRev."""
        return self._tracked().recompute(revision)

    def changed_keys(self, revision: int) -> tuple[bytes, ...]:
        """The keys with the tracked prefix that were written or deleted at `revision`, in the order
        of the changes. O(changes). Raises ErrCompacted, ErrFutureRev."""
        prefix = self._tracked().prefix
        records = self._model.records_at(revision)
        return tuple(kv.key for kv in records if kv.key.startswith(prefix))

    def page(self, revision: int, start: bytes | None = None, limit: int | None = None) -> Page:
        """Up to `limit` keys with the tracked prefix as they were at `revision`, from `start` on.

        O(log keys + keys passed). Raises ErrCompacted, ErrFutureRev (for revisions below 1 too).
        """
        if revision < 1:
            raise ErrFutureRev
        key, range_end = prefix_range(self._tracked().prefix)
        kvs: list[KeyValue] = []
        for kv in self._model.scan(max(key, start or key), range_end, revision):
            if limit is not None and len(kvs) == limit:
                return Page(kvs, more=True)
            kvs.append(kv)
        return Page(kvs, more=False)


class Simulator:
    """`load`, then `step` as often as wanted, then `finish`. One thread.

    Every `step` is one revision. At most 20 revisions apart a progress mark goes out on the open
    watch streams of the feed. Raises ValueError, in one line: unknown profile, seed or number of
    objects out of range, the same fault twice.
    """

    def __init__(
        self,
        profile: str = "kubernetes",
        *,
        seed: int = 0,
        objects: int = 10_000,
        faults: Iterable[Fault] = (),
    ) -> None:
        if objects < 1:
            raise ValueError(f"a run needs at least 1 object: {objects}")
        prng = Prng(seed)
        self.seed, self.objects, self.profile = seed, objects, profile
        self.clock = VirtualClock()
        self.model = Model()
        self.writes = 0  # steps made, those of finish() included
        self._profile = make_profile(profile, prng.fork(f"profile {profile}"), self.clock)
        self._marks = prng.fork("progress marks")
        self._next_mark = 0  # revision
        self._tallies = Tallies(faults, prng.fork("faults"))
        self.feed = Feed(self.model, self._tallies)
        self.truth = Truth(self.model)

    @property
    def faults(self) -> list[Fault]:
        """The faults at work, in the order in which they act."""
        return self._tallies.faults

    @property
    def injected(self) -> dict[str, int]:
        """Injections that a client has received so far, for each fault; what is on its way to a
        client doesn't count yet."""
        return self._tallies.injected

    @property
    def owed(self) -> tuple[str, ...]:
        """The faults at a rate above 0 that have injected nothing yet, not even on its way."""
        return self._tallies.owed

    def load(self) -> None:
        """Create the initial objects. Once, before anything else is written."""
        assert self.model.revision == 1, "load() comes first, and once"
        self._profile.load(self.model, self.objects)
        self._plan_mark()
        self.truth.follow()

    def step(self) -> None:
        """Make one write, and a progress mark if one is due."""
        before = self.model.revision
        self._profile.step(self.model)
        assert self.model.revision == before + 1, f"a step of {self.profile} is one revision"
        self.writes += 1
        self.truth.follow()
        if self.model.revision >= self._next_mark:
            self._mark()

    def _plan_mark(self) -> None:
        spread = MARK_REVISIONS_MAX - MARK_REVISIONS_MIN + 1
        gap = MARK_REVISIONS_MIN + self._marks.below(spread)
        self._next_mark = self.model.revision + gap

    def _mark(self) -> None:
        for stream in self.feed.open_streams():
            stream.request_progress()
        self._plan_mark()

    def finish(self) -> int:
        """End the traffic: every fault at a rate above 0 strikes at least once, then a last mark.

        If one hasn't yet, writes are added until it has, at most 1,000, as long as a stream of the
        feed is open -> how many were added. `owed` names the faults that still haven't: on a watch
        of few keys there may be nothing that they could touch. A client that closes its stream
        before it has polled everything throws injections away; if `owed` isn't empty then, finish()
        may be called again once it watches again.
        """
        extra = 0
        streams = self.feed.open_streams
        self._pump()
        while self._tallies.owed_on_streams and extra < EXTRA_WRITES_MAX and streams():
            if extra == FORCE_WITHIN_REVISIONS:
                self._tallies.force()  # few of the writes come by on the streams that are open
            self.step()
            self._pump()
            extra += 1
        self._mark()
        return extra

    def _pump(self) -> None:
        for stream in self.feed.open_streams():
            stream.pump()

    def compact(self, revision: int) -> None:
        """Compact the model. Streams that are further behind are cancelled at their next poll.

        Raises ErrCompacted, ErrFutureRev.
        """
        self.truth.follow()
        self.model.compact(revision)
