"""Checker: compares a cache with a truth, names what differs, gives a verdict.

A round asks the truth for its newest revision R and compares the cache's snapshot at R, then
whichever older retained revisions were asked for, each with the truth's own answer at that
revision. Keys and mod_revisions by default (a truth may send keys only), values on request.

Not verified here: that the truth is right; revisions that the truth has compacted (they are counted
as not checkable); keys outside the cache's prefix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Literal, Protocol, TypeVar

from btreecache.cache import Cache
from btreecache.digest import Mode, kept_digest, recompute
from btreecache.element import Element
from btreecache.errors import (
    BtreecacheError,
    Compacted,
    FeedFault,
    FutureRevision,
    NotReady,
    Unavailable,
)
from btreecache.snapshot import Snapshot
from btreecache.source import RangePage
from btreecache.window import Window

Verdict = Literal["consistent", "inconsistent", "unknown"]

#: missing: only the truth has the key. extra: only the cache has it. stale: the cache has an older
#: mod_revision. changed: a newer one, or the same one with another value. count, digest: the sums
#: differ although no key was seen to.
Kind = Literal["missing", "extra", "stale", "changed", "count", "digest"]

#: Differences kept in full; all are counted.
DIFFERENCES_MAX = 1_000

#: Keys asked for at a time: about 1 MB, a page that no server refuses (kubernetes#138631).
PAGE_KEYS = 10_000

#: Keys of the page that `check_history` compares at every revision.
SAMPLE_KEYS = 100

#: Hashes of elements that a checker remembers, about 150 bytes each.
REMEMBERED_MAX = 1_000_000

#: Differing sums of a history that are traced to the keys behind them; the others are only counted.
TRACED_MAX = 20

#: How long a round waits for the cache to reach R, or for a source that went away.
PATIENCE_S = 30.0

#: How often it looks meanwhile, and how long nothing must have come before the contents are
#: compared although the cache was not told of R: while events come, comparing holds them up.
POLL_S, QUIET_S = 0.1, 0.5

T = TypeVar("T")


class Truth(Protocol):
    """What a checker asks of the truth; every Source can. See source.py."""

    def current_revision(self) -> int: ...

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage: ...


class HistoryTruth(Truth, Protocol):
    """A truth that also keeps sums for each revision, so that all of them can be compared.

    The sums are made by code of its own (digest.py says of what).
    """

    def count_at(self, revision: int) -> int: ...

    def digest_at(self, revision: int) -> int: ...

    def recompute_digest(self, revision: int) -> tuple[int, int]:
        """Count and digest at `revision` from its whole content."""

    def changed_keys(self, revision: int) -> Iterable[bytes]:
        """The keys written at exactly `revision`."""

    def page_at(self, revision: int, start: bytes, limit: int) -> list[Element]:
        """The first `limit` elements from `start` on, without counting those behind them."""

    def get_at(self, revision: int, key: bytes) -> Element | None: ...


@dataclass(frozen=True, slots=True)
class Difference:
    """One key, or one sum, that the cache and the truth answer differently at a revision."""

    revision: int
    key: bytes
    kind: Kind


@dataclass(slots=True)
class Round:
    """What one round compared and found. `reason` says why a verdict is unknown."""

    verdict: Verdict = "unknown"
    reason: str = ""
    revision: int = 0
    revisions_checked: int = 0
    keys_compared: int = 0
    bytes_read: int = 0
    not_checkable: int = 0
    differences: list[Difference] = field(default_factory=list)
    differences_total: int = 0
    feed_faults: list[FeedFault] = field(default_factory=list)
    feed_faults_total: int = 0
    traced: int = 0

    def add(self, difference: Difference) -> None:
        self.differences_total += 1
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(difference)


def compare(
    mine: Iterable[Element], truth: Iterable[Element], revision: int, mode: Mode
) -> Iterator[Difference]:
    """The keys that differ between two ordered lists of elements. O(n), lazily."""
    left, right = iter(mine), iter(truth)
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.key < b.key):
            assert a is not None
            yield Difference(revision, a.key, "extra")
            a = next(left, None)
        elif a is None or b.key < a.key:
            yield Difference(revision, b.key, "missing")
            b = next(right, None)
        else:
            if a.mod_revision < b.mod_revision:
                yield Difference(revision, a.key, "stale")
            elif a.mod_revision > b.mod_revision or (mode == "values" and not a.same_source(b)):
                yield Difference(revision, a.key, "changed")
            a, b = next(left, None), next(right, None)


class Checker:
    """Compares `cache` with `truth`. Used by one thread, which may be any.

    mode              keys: key and mod_revision; values: the value too
    request_progress  asked while waiting for the cache to reach the truth's revision
    now, sleep, rng   clock in seconds, pause, and choice of revisions and pages, for tests
    """

    def __init__(
        self,
        cache: Cache,
        truth: Truth,
        *,
        mode: Mode = "keys",
        page_keys: int = PAGE_KEYS,
        patience_s: float = PATIENCE_S,
        request_progress: Callable[[], object] = lambda: None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        rng: Random | None = None,
    ) -> None:
        self._cache = cache
        self._truth = truth
        self._mode: Mode = mode
        self._page_keys = page_keys
        self._patience_s = patience_s
        self._request_progress = request_progress
        self._now, self._sleep = now, sleep
        self._rng = rng or Random(0)
        self._faults_seen = 0
        self._suspect_seen: Snapshot | None = None
        self._digest = kept_digest(mode, REMEMBERED_MAX)

    def check(self, revisions: int | Literal["latest", "all"] = "latest") -> Round:
        """One round: the newest revision, and of the retained ones all or as many as are asked for.

        Never raises for what a source or a cache does: a round that could not decide is `unknown`
        (I11). Costs a read of the prefix from the truth for each revision.
        """
        outcome = Round()
        try:
            window = self._align(outcome)
            for revision in self._choose(window, outcome.revision, revisions):
                self._compare_at(window.snapshot(revision), outcome)
            self._compare_suspects(outcome)
        except BtreecacheError as error:
            outcome.reason = str(error)
        return self.judge(outcome)

    def check_history(self, truth: HistoryTruth, scratch_every: int = 200) -> Iterator[Round]:
        """Every retained revision against the truth's sums; the round so far after each of them.

        At each: the keys that changed, the count, a page of 100 at a random start, the digest. At
        the oldest, the newest and every `scratch_every`-th also the whole content, and the digests
        recomputed from it on both sides. The last round yielded carries the verdict.
        """
        outcome = Round()
        try:
            window = self._align(outcome)
            # From the oldest revision that may be read to the newest that progress vouches for.
            retained = [*window.revisions()]
            if outcome.revision > retained[-1] and outcome.revision <= window.current:
                retained.append(outcome.revision)
            for index, recorded in enumerate(retained):
                revision = max(recorded, window.oldest)
                snapshot = window.snapshot(revision)
                whole = index in (0, len(retained) - 1) or index % scratch_every == 0
                self._compare_sums(snapshot, truth, outcome, whole)
                yield outcome
            self._compare_suspects(outcome)
        except BtreecacheError as error:
            outcome.reason = str(error)
        yield self.judge(outcome)

    # Aligning

    def _align(self, outcome: Round) -> Window:
        """A window whose newest state may be compared with the truth at `outcome.revision`.

        That is one that has reached it, or one that has not been told of it but is equal (the
        source changed elsewhere). Otherwise wait, and give up when patience ends. A revision from
        before a resynchronisation is replaced by a newer one.
        """
        deadline = self._now() + self._patience_s
        outcome.revision = self._retrying(self._truth.current_revision)
        seen: Window | None = None
        seen_s, compared = 0.0, False
        while True:
            state, now = self._cache.state, self._now()
            window = state.window
            if window is not None and state.suspect_after is None:
                if outcome.revision < window.oldest:
                    outcome.revision = self._retrying(self._truth.current_revision)
                if window.oldest <= outcome.revision <= window.current:
                    return window
                if seen is None or seen.newest is not window.newest:
                    seen, seen_s, compared = window, now, False
                elif not compared and now - seen_s >= QUIET_S:
                    # Nothing comes any more: all there is has come, or it differs.
                    compared = True
                    if self._equal(window, outcome):
                        return window.progress(outcome.revision)
            if now >= deadline or self._cache.closed:
                raise self._not_aligned(window, outcome.revision)
            self._request_progress()
            self._sleep(POLL_S)

    def _not_aligned(self, window: Window | None, target: int) -> BtreecacheError:
        if window is None:
            return NotReady(f"the cache was not filled within {self._patience_s:g} s")
        return FutureRevision(target, window.current)

    def _equal(self, window: Window, outcome: Round) -> bool:
        theirs = self._truth_elements(outcome.revision, outcome)
        mine = window.newest.values()
        return next(compare(mine, theirs, outcome.revision, self._mode), None) is None

    def _retrying(self, call: Callable[[], T]) -> T:
        """The answer, asking again while the truth is away, for as long as patience lasts."""
        deadline: float | None = None
        while True:
            try:
                return call()
            except Unavailable:
                now = self._now()
                deadline = now + self._patience_s if deadline is None else deadline
                if now >= deadline:
                    raise
                self._sleep(0.2)

    # Comparing

    def _choose(
        self, window: Window, newest: int, revisions: int | Literal["latest", "all"]
    ) -> list[int]:
        """The newest, the oldest and seeded ones between; newest first, it is what matters most."""
        if revisions == "latest":
            revisions = 1
        if revisions == 1:
            return [newest]
        retained = {max(revision, window.oldest) for revision in window.revisions()}
        chosen = sorted(revision for revision in retained if revision < newest)
        if revisions != "all" and len(chosen) > revisions - 1:
            between = self._rng.sample(chosen[1:], revisions - 2)
            chosen = [chosen[0], *sorted(between)]
        return [newest, *reversed(chosen)]

    def _truth_elements(self, revision: int, outcome: Round) -> Iterator[Element]:
        start: bytes | None = None
        while True:
            ask = partial(
                self._truth.range_at,
                revision,
                self._cache.prefix,
                start,
                self._page_keys,
                self._mode == "keys",
            )
            page = self._retrying(ask)
            outcome.bytes_read += page.bytes_read
            yield from page.elements
            if not page.more:
                return
            start = page.elements[-1].key + b"\0"

    def _compare_at(self, snapshot: Snapshot, outcome: Round) -> None:
        """The whole content of one snapshot with the truth's at the same revision."""
        try:
            theirs = self._truth_elements(snapshot.revision, outcome)
            counted = _Counted(theirs)
            for difference in compare(snapshot, counted, snapshot.revision, self._mode):
                outcome.add(difference)
        except (Compacted, FutureRevision) as error:
            if snapshot.revision == outcome.revision and isinstance(error, FutureRevision):
                raise
            outcome.not_checkable += 1
            return
        outcome.revisions_checked += 1
        outcome.keys_compared += counted.count

    def _compare_sums(
        self, snapshot: Snapshot, truth: HistoryTruth, outcome: Round, whole: bool
    ) -> None:
        revision, mode, before = snapshot.revision, self._mode, outcome.differences_total
        for key in truth.changed_keys(revision):
            mine, theirs = snapshot.get(key), truth.get_at(revision, key)
            self._compare_some(
                [mine] if mine else [], [theirs] if theirs else [], outcome, revision
            )
        if len(snapshot):
            first = snapshot.tree.select(self._rng.randrange(len(snapshot)))[0]
            page = truth.page_at(revision, first, SAMPLE_KEYS)
            outcome.bytes_read += sum(len(kept.key) + len(kept.value) for kept in page)
            listed = snapshot.list(self._cache.prefix, start=first, limit=SAMPLE_KEYS).elements
            self._compare_some(listed, page, outcome, revision)
        if whole:
            self._compare_at(snapshot, outcome)
            self._compare_scratch(snapshot, truth, outcome)
        else:
            outcome.revisions_checked += 1
        if outcome.differences_total > before:
            return
        if len(snapshot) != truth.count_at(revision):
            outcome.add(Difference(revision, b"", "count"))
        if snapshot.tree.aggregate(self._digest) != truth.digest_at(revision):
            outcome.add(Difference(revision, b"", "digest"))
        if outcome.differences_total > before and outcome.traced < TRACED_MAX:
            outcome.traced += 1
            for difference in compare(
                snapshot, self._truth_elements(revision, outcome), revision, mode
            ):
                outcome.add(difference)

    def _compare_some(
        self, mine: list[Element], theirs: list[Element], outcome: Round, revision: int
    ) -> None:
        outcome.keys_compared += len(theirs)
        if mine != theirs:
            for difference in compare(mine, theirs, revision, self._mode):
                outcome.add(difference)

    def _compare_scratch(self, snapshot: Snapshot, truth: HistoryTruth, outcome: Round) -> None:
        """Both digests against a recomputation that uses nothing kept with nodes or per write."""
        count, digest = truth.recompute_digest(snapshot.revision)
        mine = recompute(snapshot, self._mode)
        if mine != snapshot.tree.aggregate(self._digest) or mine != digest:
            outcome.add(Difference(snapshot.revision, b"", "digest"))
        if count != truth.count_at(snapshot.revision):
            outcome.add(Difference(snapshot.revision, b"", "count"))

    def _compare_suspects(self, outcome: Round) -> None:
        """The newest state that a feed fault spoiled, once: what would have been served wrongly."""
        suspect = self._cache.suspect
        if suspect is not None and suspect is not self._suspect_seen:
            self._suspect_seen = suspect
            self._compare_at(suspect, outcome)

    def judge(self, outcome: Round) -> Round:
        """Give the verdict on what was compared so far, feed faults since the last one included."""
        total = self._cache.stats().feed_faults
        outcome.feed_faults = self._cache.feed_faults[self._faults_seen :]
        outcome.feed_faults_total = total - self._faults_seen
        self._faults_seen = total
        if outcome.differences_total or outcome.feed_faults_total:
            outcome.verdict = "inconsistent"
        elif outcome.reason:
            outcome.verdict = "unknown"
        elif outcome.revisions_checked == 0:
            outcome.verdict, outcome.reason = "unknown", "nothing could be compared"
        else:
            outcome.verdict = "consistent"
        return outcome


class _Counted:
    """An iterable that counts what was taken from it."""

    def __init__(self, elements: Iterable[Element]) -> None:
        self._elements = elements
        self.count = 0

    def __iter__(self) -> Iterator[Element]:
        for element in self._elements:
            self.count += 1
            yield element
