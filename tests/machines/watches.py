"""What one open watch of the reader's machine must say, held against the truth (I5, I6).

The events of a watch, one after another, are what its filter makes of each step of the history
between its start and its position: whole revisions in order, nothing twice, nothing missing.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from btreecache import (
    BtreecacheError,
    Cache,
    Compacted,
    Element,
    FutureRevision,
    SourceError,
    Unavailable,
)
from btreecache.errors import Unsupported
from btreecache.options import WatchOptions
from btreecache.watch_stream import BOOKMARK_INTERVAL_S, WatchEvent, WatchStream
from tests.fakes import Clock
from tests.machines.pods import PREFIX, Change, Chosen, History, Pod


class Said(NamedTuple):
    """An event as it must be; an ERROR is about the object at `key`."""

    type: str
    revision: int
    key: bytes = b""
    pod: Pod | None = None


@dataclass
class View:
    """What a watch looks at: the keys with a prefix or one key, and of these what is chosen.

    keys_known   the reader knows what keys say about objects
    """

    prefix: bytes
    exact: bool
    chosen: Chosen
    keys_known: bool

    def __str__(self) -> str:
        return f"{self.prefix!r}{' alone' if self.exact else ''} {self.chosen[:2]}"

    def holds(self, key: bytes) -> bool:
        return key == self.prefix if self.exact else key.startswith(self.prefix)

    def matches(self, pod: Pod | None) -> bool:
        return pod is not None and pod.readable and self.chosen.takes(pod)

    def fails(self, key: bytes, pod: Pod) -> bool:
        """Whether nobody can say if it is chosen: it can't be read, and its key doesn't tell."""
        if pod.readable:
            return False
        parts = key[len(PREFIX) :].decode().split("/")
        return not self.keys_known or len(parts) != 2 or self.chosen.may_take(*parts)

    def of(self, revision: int, changes: tuple[Change, ...]) -> Iterator[Said]:
        """A step through the filter: who matched before and who does now."""
        for key, old, new in changes:
            if not self.holds(key):
                continue
            left = new or old
            assert left is not None
            if self.fails(key, left):
                yield Said("ERROR", revision, key)
            elif self.matches(new):
                yield Said("MODIFIED" if self.matches(old) else "ADDED", revision, key, new)
            elif self.matches(old):
                yield Said("DELETED", revision, key, old)

    def state(self, history: History, revision: int) -> Iterator[Said]:
        """The state at a revision, in key order."""
        for key, pod in sorted(history.at(revision).items()):
            if self.holds(key) and self.fails(key, pod):
                yield Said("ERROR", revision, key)
            elif self.holds(key) and self.matches(pod):
                yield Said("ADDED", revision, key, pod)


@dataclass(kw_only=True)
class Watched:
    """An open watch and what it has yet to say.

    start      where it begins: its initial state's revision, or the position after which it watches
    least      how old that state may be
    excuses    the errors that it may say instead of everything, for they had their reason when it
               was opened
    epoch      how often history had been cut by then
    asked_s    when it was asked for
    revision   everything up to it was said
    """

    stream: WatchStream
    options: WatchOptions
    view: View
    history: History
    cache: Cache
    clock: Clock
    initial: bool
    start: int
    least: int
    excuses: set[type[BtreecacheError]]
    epoch: int
    asked_s: float
    revision: int = 0
    drained: int | None = None
    closed: bool = False
    queue: deque[Said] = field(default_factory=deque)
    marked: int = 0

    def __post_init__(self) -> None:
        timeout_s = self.options.timeout_s
        self.deadline_s = inf if timeout_s is None else self.asked_s + timeout_s
        if self.initial:
            self.queue.extend(self.view.state(self.history, self.start))
            if self.options.send_initial_events and self.options.allow_watch_bookmarks:
                self.queue.append(Said("BOOKMARK", self.start))
        if not self.queue:
            self.revision = self.start

    def poll(self, epoch: int) -> bool:
        """One look at the stream, judged; `epoch` as history is now. Whether there may be more."""
        event = self.stream.poll()
        if event is None:
            self.judge_silence(epoch)
            return False
        assert not self.closed, "it was closed"
        if event.type == "ERROR":
            self.judge_error(event, epoch)
            return False
        self.excuses.clear()
        assert self.start >= self.least, "I6: the state is older than what was asked for"
        self.judge(event, epoch)
        # Inside a revision it stands where that began; inside its initial state, nowhere.
        begun = 0 if self.initial and not self.revision else event.revision - 1
        most = begun if self.queue else self.revision
        assert self.stream.position <= most, "I5: a position inside a revision"
        return True

    def judge(self, event: WatchEvent, epoch: int) -> None:
        if not self.queue:
            if event.type == "BOOKMARK":
                self.judge_bookmark(event)
                return
            assert event.revision > self.revision, "I6: told before"
            assert event.revision <= self.servable(), "told of what may be wrong"
            assert epoch == self.epoch, "I6: went on though history was cut"
            self.skip(event.revision - 1)
            self.queue.extend(self.view.of(event.revision, self.step(event.revision)))
            assert self.queue, "I6: told of what didn't happen"
        said = self.queue.popleft()
        assert (event.type, event.revision) == (said.type, said.revision), f"I6: not {said}"
        assert event.ends_initial_events == (said.type == "BOOKMARK")
        if said.pod is not None:
            assert event.element is not None
            same(event.element, said)
        if not self.queue:
            self.revision = event.revision

    def step(self, revision: int) -> tuple[Change, ...]:
        base = self.history.gaps.get(revision, 0)
        assert not base or not base < self.revision < revision, "I6: went on from inside a gap"
        return self.history.changes(revision)

    def skip(self, revision: int) -> None:
        """Nothing was said of the steps until `revision`: there was nothing to say."""
        for passed in self.history.steps(self.revision, revision):
            left_out = [*self.view.of(passed, self.step(passed))]
            assert not left_out, f"I6: never told of {left_out}"

    def pass_by(self, revision: int) -> None:
        """It has come to `revision` without a word."""
        self.skip(revision)
        self.revision = max(self.revision, revision)

    def judge_bookmark(self, event: WatchEvent) -> None:
        assert self.options.allow_watch_bookmarks, "nobody asked for bookmarks"
        assert not event.ends_initial_events
        assert event.revision > self.start, "a bookmark at the start says nothing"
        assert event.revision >= max(self.revision, self.marked), "I6: a bookmark went back"
        self.pass_by(event.revision)
        self.marked = event.revision

    def servable(self) -> int:
        state, current = self.cache.state, self.cache.revision
        return current if state.suspect_after is None else min(current, state.suspect_after)

    def judge_silence(self, epoch: int) -> None:
        """Nothing is said: there is nothing new, or it has ended, and had to."""
        stream, late = self.stream, self.clock.now_s >= self.deadline_s
        if stream.ended:
            assert late or self.closed or self.drained is not None, "ended for no reason"
            if not self.closed and not (late and self.initial and not self.revision):
                assert not self.queue, "I5: ended inside a revision"
            if self.drained is not None and not (late or self.closed):
                self.skip(min(self.drained, self.servable()))
            return
        assert not late, "went on after its deadline"
        assert not self.closed, "went on after it was closed"
        assert self.drained is None, "went on after all that it should still say"
        assert not self.queue, "I5: stopped inside a revision"
        assert epoch == self.epoch, "I6: went on though history was cut"
        assert not self.excuses & {FutureRevision, Unavailable, Unsupported}
        assert self.start >= self.least, "I6: the state is older than what was asked for"
        state, served = self.cache.state, self.servable()
        assert state.suspect_after is not None or stream.position >= served, "I6: it is behind"
        self.pass_by(stream.position)
        self.skip(served)

    def judge_error(self, event: WatchEvent, epoch: int) -> None:
        """The last event, and it has its reason."""
        error = event.error
        assert self.stream.poll() is None
        assert self.stream.ended
        if type(error) in self.excuses:
            return
        match error:
            case SourceError():
                self.judge_unreadable(event)
            case Compacted():
                assert not self.queue, "I5: an error inside a revision"
                assert epoch != self.epoch or self.has_lost(), "410 for what is still there"
            case _:
                raise AssertionError(f"for no reason: {error!r}")

    def judge_unreadable(self, event: WatchEvent) -> None:
        if not self.queue:
            self.skip(event.revision - 1)
            self.queue.extend(self.view.of(event.revision, self.step(event.revision)))
        assert self.queue, "I6: an error for nothing"
        said = self.queue[0]
        assert (said.type, said.revision) == ("ERROR", event.revision), f"I6: not {said}"
        assert said.key.decode() in str(event.error)

    def has_lost(self) -> bool:
        """Whether a change inside the scope that wasn't told yet is gone, or it began in a gap."""
        history, floor = self.history, self.cache.state.readable().watch_floor
        if any(base < self.revision < end for end, base in history.gaps.items()):
            return True
        return any(
            self.view.holds(change.key)
            for step in history.steps(self.revision, floor)
            for change in history.changes(step)
        )

    def end(self, *, drain: bool) -> None:
        """Close it, or let it say what has happened until now."""
        if drain:
            self.drained = self.servable()
            self.stream.drain()
        else:
            self.closed = True
            self.stream.close()

    def finish(self, epoch: int) -> None:
        """All that it has yet to say, and the bookmark that comes last."""
        while self.poll(epoch):
            pass
        if self.stream.ended or not self.options.allow_watch_bookmarks:
            return
        self.clock.now_s += BOOKMARK_INTERVAL_S + 1
        told = [self.poll(epoch), self.poll(epoch)]
        due = self.clock.now_s < self.deadline_s and self.stream.position > self.start
        if due:
            assert told == [True, False], "no bookmark came"
            assert self.marked == self.stream.position, "a bookmark before what there is"


def same(element: Element, said: Said) -> None:
    """The object as it is, or as it was with the revision at which it went."""
    pod = said.pod
    assert pod is not None
    revision = said.revision if said.type == "DELETED" else pod.revision
    assert element.key == said.key, "I6: another object"
    assert element.source_value() == pod.value, "I6: another state of the object"
    assert element.mod_revision == revision, "I6: another revision of the object"
    assert json.loads(element.value)["metadata"]["resourceVersion"] == str(revision)
