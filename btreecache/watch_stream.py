"""WatchStream: a watch as the Kubernetes API promises it, from a Watcher and a snapshot.

The state first if it was asked for, then every change, as seen through a filter: an object that
enters it is added, one that leaves it is deleted. Bookmarks between; every error is the last event.

A stream is a cursor like the Watcher below it. What it has yet to say lies in the cache, so a slow
reader holds no memory but the snapshot whose state it has not finished, and costs others nothing.
Nothing here encodes: an event names an element, and what a bookmark looks like is the server's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from threading import Event as Signal
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import msgspec

from btreecache.cache import Cache
from btreecache.codec.revision import with_revision
from btreecache.element import Element
from btreecache.errors import BtreecacheError, Compacted, SourceError
from btreecache.event import Batch
from btreecache.index import Requirement
from btreecache.plan import After, StartWatch
from btreecache.snapshot import Snapshot, prefix_end
from btreecache.watch import Watcher

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

#: Seconds between bookmarks, and how long before its end a watch gets its last (as upstream).
BOOKMARK_INTERVAL_S, LAST_BOOKMARK_S = 60.0, 2.0

#: Seconds that a reader sleeps at most in one go: a deadline may be further than threads can wait.
PAUSE_S_MAX = 3600.0

#: Events after which an asynchronous reader lets others have the loop, if they come without a wait.
BURST = 64

#: Deleted elements that DeletedElements keeps. Readers of one event come close together.
DELETED_MAX = 256

Predicate = Callable[[Element], bool]


class WatchEvent(msgspec.Struct, frozen=True, gc=False):
    """One thing that a watch says.

    revision              of the change; of the state for what it begins with; of a bookmark:
                          everything up to it was sent
    element               ADDED, MODIFIED: as it is now; DELETED: as it was, at `revision`
    error                 of an ERROR, which is the last event
    ends_initial_events   the bookmark that says that the state is complete
    """

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    revision: int
    element: Element | None = None
    error: BtreecacheError | None = None
    ends_initial_events: bool = False


class DeletedElements:
    """`with_revision`, remembered for the last few: made once however many streams say the same.

    One for all the streams of a cache (`WatchStream(deleted=...)`). Any thread. Never more than
    `size` elements.
    """

    def __init__(self, size: int = DELETED_MAX) -> None:
        self._size = size
        self._known: dict[tuple[bytes, int], tuple[Element, Element]] = {}
        self._lock = Lock()

    def __call__(self, element: Element, revision: int) -> Element:
        name = element.key, revision
        known = self._known.get(name)
        # The same element, or it is another history's: one that was cut off by a list.
        if known is not None and known[0] is element:
            return known[1]
        made = with_revision(element, revision)
        with self._lock:
            self._known[name] = element, made
            while len(self._known) > self._size:
                del self._known[next(iter(self._known))]
        return made


class WatchStream:
    """The events of one watch: iterate it, with `for` or `async for`, or call `poll` and `receive`.

    Used by one thread or one task; `drain` and `close` may be called from any. It ends without an
    event at its deadline and when the cache is closed, and after an ERROR.

    cache                 what is watched; NotReady is raised if it has no state to begin with
    start                 as planned, `After.ASKED` resolved. Not one from the source. An error is
                          the stream's only event, as the API has it: a client that watches has to
                          be ready for one there anyway
    prefix                the keys that are watched; with `exact` that key alone
    predicate             of these the elements that it selects, None: all. It must depend on the
                          element only. What it raises ends the stream and goes to the reader
    unreadable            which elements that the codec can't read may match as well, None: any.
                          One of these ends the stream, as nobody knows whether it does
    requirements          what the predicate implies, as in Snapshot.select: how initial elements
                          are found
    deleted               `with_revision`, or a DeletedElements that many streams share
    now                   clock in seconds, that of `start.deadline_s`
    bookmark_interval_s   seconds between bookmarks

    position   everything up to this revision was handed out, and a watch that starts after it goes
               on without a gap; 0 until the state was. It is never inside a revision (I5)
    """

    __slots__ = (
        "_ahead", "_bookmark_s", "_burst", "_cache", "_deadline_s", "_deleted", "_ended", "_filter",
        "_interval_s", "_now", "_pending", "_start", "_stop_after", "_waiters",
        "_watcher", "position",
    )  # fmt: skip

    def __init__(
        self,
        cache: Cache,
        start: StartWatch | BtreecacheError,
        prefix: bytes,
        *,
        exact: bool = False,
        predicate: Predicate | None = None,
        unreadable: Predicate | None = None,
        requirements: Sequence[Requirement] = (),
        deleted: Callable[[Element, int], Element] = with_revision,
        now: Callable[[], float] = monotonic,
        bookmark_interval_s: float = BOOKMARK_INTERVAL_S,
    ) -> None:
        self._cache = cache
        self._filter = _Filter(predicate, unreadable)
        self._deleted = deleted
        self._now = now
        self._deadline_s = math.inf
        self._interval_s = bookmark_interval_s
        self._ended = False
        self._stop_after: int | None = None
        self._waiters: tuple[Callable[[], object], ...] = ()
        self._burst = 0
        # What is to be said before the watcher is asked again; `_ahead` is the first of it, if it
        # was looked at already.
        self._pending: Iterator[WatchEvent] | None = None
        self._ahead: WatchEvent | None = None
        self._watcher: Watcher | None = None
        self.position = 0
        self._bookmark_s = math.inf
        self._start = 0
        if isinstance(start, BtreecacheError):
            self._fail(start)
        else:
            self._begin(start, prefix, exact, requirements)

    def _begin(
        self, start: StartWatch, prefix: bytes, exact: bool, requirements: Sequence[Requirement]
    ) -> None:
        assert not start.source, "the source watches itself"
        assert start.after is not After.ASKED, "the driver asks"
        if start.deadline_s is not None:
            self._deadline_s = start.deadline_s
        cache = self._cache
        if start.initial:
            snapshot, self._watcher = _begin(cache, prefix, exact)
            # No index knows what can't be read, and that has to be met. What is mended by now, but
            # was not yet in the snapshot, comes as a change.
            usable = () if cache.unreadable else requirements
            found = _elements(snapshot, prefix, exact, usable)
            self._pending = _initial(found, self._filter, snapshot.revision, start.end_bookmark)
            self._start = snapshot.revision
        else:
            after = start.after if isinstance(start.after, int) else None
            try:
                self._watcher = cache.watch(after, prefix, exact=exact)
                self.position = self._watcher.position
            except Compacted as error:
                self.position = error.revision
                self._fail(error)
            self._start = self.position
        if start.bookmarks:
            self._bookmark_s = self._next_bookmark_s(self._now())

    def _fail(self, error: BtreecacheError) -> None:
        """Have the error be the next and last thing to say."""
        self._pending = iter([_failed(error, self.position)])

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to come, ever."""
        return self._ended

    def next_wakeup_s(self) -> float | None:
        """When `poll` has more to say though nothing happened, on the clock; None: never.

        For drivers: poll until None, then again at this time or when a waiter is called.
        """
        soonest = min(self._bookmark_s, self._deadline_s)
        return None if self._ended or soonest == math.inf else soonest

    def poll(self) -> WatchEvent | None:
        """The next event; None if there is none yet, or none any more (`ended`).

        O(log window) amortised, beside what the filter leaves out.
        """
        while not self._ended:
            now_s = self._now()
            # A revision that was begun is finished (I5); the state needn't be, it can't be resumed.
            if now_s >= self._deadline_s and (self._pending is None or not self.position):
                self._ended = True
            elif self._pending is not None:
                if (event := self._take()) is not None:
                    return event
            elif not self._advance(now_s):
                break
        return None

    def _take(self) -> WatchEvent | None:
        """The first of what is to be said, None if there is nothing left of it."""
        pending = self._pending
        assert pending is not None
        try:
            event = self._ahead or next(pending, None)
            # Whether it was the last of its revision: then a reader may resume behind it. What the
            # state begins with is not looked at in advance: it may be far to the next match.
            follows = None if event is None or not self.position else next(pending, None)
        except BaseException:
            # What the filter did not get to see is lost: never go on as if nothing had happened.
            self._ended = True
            raise
        self._ahead = follows
        if event is not None and event.type == "ERROR":
            self._ended = True
        is_whole = event is None or event.ends_initial_events or bool(self.position)
        if follows is None and is_whole and self._watcher is not None and not self._ended:
            self._pending = None
            self.position = self._watcher.position
        return event

    def _advance(self, now_s: float) -> bool:
        """Ask the watcher. False if nothing came of it: nothing to say, and not ended."""
        watcher, stop_after = self._watcher, self._stop_after
        assert watcher is not None
        # Looked at before the watcher is asked, so that the last batch before it isn't missed.
        closed = self._cache.closed
        try:
            batch = watcher.poll()
        except Compacted as error:
            self._fail(error)
            return True
        due = now_s >= self._bookmark_s
        if stop_after is not None and (batch is None or batch.revision > stop_after):
            self._ended = True
        elif batch is not None:
            changes = _changes(batch, self._filter, self._deleted)
            self._pending = chain(changes, self._bookmark(now_s)) if due else changes
        else:
            self.position = watcher.position
            if due:
                self._pending = iter(self._bookmark(now_s))
            if closed:
                self._ended = True
        return due or batch is not None or self._ended

    def _bookmark(self, now_s: float) -> tuple[WatchEvent, ...]:
        """The bookmark that is due, none if there is nothing new to say; sets the next one's time.

        It is at the watcher's position, and comes after everything up to there.
        """
        assert self._watcher is not None
        self._bookmark_s = self._next_bookmark_s(now_s)
        revision = self._watcher.position
        # Not at the start itself: that may be a revision that nobody has reached yet.
        return (WatchEvent("BOOKMARK", revision),) if revision > self._start else ()

    def _next_bookmark_s(self, now_s: float) -> float:
        soonest = min(now_s + self._interval_s, self._deadline_s - LAST_BOOKMARK_S)
        return soonest if soonest > now_s else math.inf

    def drain(self) -> None:
        """End the stream after what has happened until now. Any thread."""
        self._stop_after = self._cache.revision
        for waiter in self._waiters:
            waiter()

    def close(self) -> None:
        """End the stream at once. Any thread. Idempotent."""
        self._ended = True
        for waiter in self._waiters:
            waiter()

    def add_waiter(self, waiter: Callable[[], object]) -> None:
        """Have `waiter` called, from any thread, when `poll` may have more to say before
        `next_wakeup_s`. It must be quick and must not raise."""
        self._waiters = (*self._waiters, waiter)
        if self._watcher is not None:
            self._watcher.add_waiter(waiter)

    def remove_waiter(self, waiter: Callable[[], object]) -> None:
        """Forget a waiter; nothing if it isn't known."""
        self._waiters = tuple(known for known in self._waiters if known != waiter)
        if self._watcher is not None:
            self._watcher.remove_waiter(waiter)

    def _pause_s(self) -> float:
        """Seconds until `next_wakeup_s`, as long as anybody can sleep."""
        wakeup_s = self.next_wakeup_s()
        return PAUSE_S_MAX if wakeup_s is None else min(wakeup_s - self._now(), PAUSE_S_MAX)

    def receive(self, timeout_s: float | None = None) -> WatchEvent | None:
        """The next event; None on timeout or when the stream has ended.

        `timeout_s` 0 doesn't wait, None waits for ever. Waits are in real time, whatever the clock.
        """
        found = self.poll()
        if found is not None or self._ended or timeout_s == 0:
            return found
        give_up_s = math.inf if timeout_s is None else monotonic() + timeout_s
        signal = Signal()
        self.add_waiter(signal.set)
        try:
            while (found := self.poll()) is None and not self._ended:
                left_s = give_up_s - monotonic()
                if left_s <= 0:
                    break
                signal.wait(max(0.0, min(self._pause_s(), left_s)))
                signal.clear()
        finally:
            self.remove_waiter(signal.set)
        return found

    def __iter__(self) -> Iterator[WatchEvent]:
        while (event := self.receive()) is not None:
            yield event

    async def receive_async(self) -> WatchEvent | None:
        """The next event; None when the stream has ended. Waits on the running event loop."""
        found = self.poll()
        if found is not None or self._ended:
            return found
        # Here, so that whoever has no event loop needn't load it.
        from asyncio import get_running_loop  # noqa: PLC0415

        loop = get_running_loop()
        while found is None and not self._ended:
            woken = loop.create_future()
            wake = partial(_wake, loop, woken)
            self.add_waiter(wake)
            try:
                found = self.poll()
                if found is None and not self._ended:
                    timer = loop.call_later(max(0.0, self._pause_s()), _settle, woken)
                    try:
                        await woken
                    finally:
                        timer.cancel()
            finally:
                self.remove_waiter(wake)
        return found

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        self._burst += 1
        if self._burst % BURST == 0:
            from asyncio import sleep  # noqa: PLC0415

            await sleep(0)
        event = await self.receive_async()
        if event is None:
            raise StopAsyncIteration
        return event


def _wake(loop: AbstractEventLoop, woken: Future[None]) -> None:
    """Settle a future from any thread."""
    # RuntimeError: the loop was closed meanwhile. That is not the writer's trouble.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, woken)


def _settle(woken: Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _begin(cache: Cache, prefix: bytes, exact: bool) -> tuple[Snapshot, Watcher]:
    """The newest state, and a watcher that misses nothing after it. Raises NotReady."""
    while True:
        state = cache.state
        snapshot = state.at(None)
        try:
            watcher = cache.watch(snapshot.revision, prefix, exact=exact)
        except Compacted:
            # Already evicted, in a window of next to nothing: there is a newer state.
            continue
        # Else a list came between the two: the watcher is of another history than the state.
        if cache.state.epoch == state.epoch:
            return snapshot, watcher


def _elements(
    snapshot: Snapshot, prefix: bytes, exact: bool, requirements: Sequence[Requirement]
) -> Iterator[Element]:
    """The elements that a filter has to look at, in key order, lazily."""
    if exact:
        found = snapshot.get(prefix)
        return iter(() if found is None else (found,))
    requirement = snapshot.choose(requirements, prefix).requirement if requirements else None
    if requirement is None:
        return snapshot.tree.values(prefix, prefix_end(prefix))
    keys = snapshot.indexes.keys(requirement, prefix, prefix_end(prefix))
    return map(snapshot.tree.__getitem__, keys)


class _Filter(NamedTuple):
    """What a stream selects, and what of the unreadable it can't rule out; None: everything."""

    predicate: Predicate | None
    unreadable: Predicate | None

    def selects(self, element: Element | None) -> bool:
        if element is None or element.problem is not None:
            return False
        return self.predicate is None or self.predicate(element)

    def fails(self, element: Element | None) -> bool:
        """Whether nobody can say if it is selected."""
        if element is None or element.problem is None:
            return False
        return self.unreadable is None or self.unreadable(element)


def _initial(
    elements: Iterator[Element], chosen: _Filter, revision: int, end_bookmark: bool
) -> Iterator[WatchEvent]:
    """The state as events."""
    for element in elements:
        if chosen.fails(element):
            yield _unreadable(element, revision)
        elif chosen.selects(element):
            yield WatchEvent("ADDED", revision, element)
    if end_bookmark:
        yield WatchEvent("BOOKMARK", revision, ends_initial_events=True)


def _changes(
    batch: Batch, chosen: _Filter, deleted: Callable[[Element, int], Element]
) -> Iterator[WatchEvent]:
    """What a filter makes of a batch: who matched before and who does now decide, not the write.

    An element that the codec can't read may match or not: nobody knows, so it is an error. One that
    couldn't be read before was never sent, so whatever follows it is new.
    """
    revision = batch.revision
    for event in batch.events:
        new, old = event.element, event.previous
        last = old if new is None else new
        if last is not None and chosen.fails(last):
            yield _unreadable(last, revision)
            continue
        was = chosen.selects(old)
        if new is not None and chosen.selects(new):
            yield WatchEvent("MODIFIED" if was else "ADDED", revision, new)
        elif was:
            assert old is not None
            yield WatchEvent("DELETED", revision, deleted(old, revision))


def _failed(error: BtreecacheError, revision: int) -> WatchEvent:
    """The last event. The error without its frames, which would hold on to the reader's."""
    error.__context__ = None
    return WatchEvent("ERROR", revision, error=error.with_traceback(None))


def _unreadable(element: Element, revision: int) -> WatchEvent:
    return _failed(SourceError(f"{element.key!r} can't be decoded: {element.problem}"), revision)
