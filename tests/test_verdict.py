"""The verdict rules, one row each: the table of docs/guarantees.md is the expectation.

A row is a story: a cache, a truth, and what happens while the round waits. The page names each
story and says what it comes to; here is how each is staged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from btreecache import Bounds, Cache, Checker, Element, FeedFault, Progress, Unavailable
from btreecache.consistency import PATIENCE_S
from btreecache.source import RangePage
from tests.fakes import Clock, DictTruth, batch, element, put

GUARANTEES = Path(__file__).parents[1] / "docs/guarantees.md"
ROW = re.compile(r"^\| ([^|`]+?) \| `(consistent|inconsistent|unknown)` \|$", re.M)

A, B, C = element(b"a", b"1", 3), element(b"b", b"2", 12), element(b"c", b"3", 15)
NEW = element(b"d", b"", 20)


class Truth(DictTruth):
    """A dict per revision that is away until `back_s`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__({10: {b"a": A}, 12: {b"a": A, b"b": B}})
        self.states[15] = {b"a": A, b"b": B, b"c": C}
        self._clock = clock
        self.back_s = 0.0

    def _answer(self) -> None:
        if self._clock.now_s < self.back_s:
            raise Unavailable("the source is away")

    def current_revision(self) -> int:
        self._answer()
        return super().current_revision()

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        self._answer()
        return super().range_at(revision, prefix, start, limit, keys_only)


@dataclass
class Story:
    """A cache and a truth that agree at 10, 12 and 15, and what the story makes of them."""

    clock: Clock = field(default_factory=Clock)
    cache: Cache = field(default_factory=lambda: Cache(bounds=Bounds(age_s=None)))
    mode: str = "keys"
    revisions: str = "latest"
    while_waiting: Callable[[], object] = lambda: None
    rounds: int = 1

    def __post_init__(self) -> None:
        self.start_s = self.clock.now_s
        self.truth = Truth(self.clock)
        self.cache.replace(10, [A])
        self.cache.apply(batch(12, put(b"b", b"2", 12)))
        self.cache.apply(batch(15, put(b"c", b"3", 15)))

    def verdict(self) -> str:
        def sleep(seconds: float) -> None:
            self.clock.now_s += seconds
            self.while_waiting()

        checker = Checker(
            self.cache, self.truth, mode=self.mode, now=self.clock, sleep=sleep  # type: ignore[arg-type]
        )  # fmt: skip
        for _ in range(self.rounds - 1):
            checker.check()
        outcome = checker.check(self.revisions)  # type: ignore[arg-type]
        assert self.clock.now_s - self.start_s <= self.rounds * (2 * PATIENCE_S + 5), "it gives up"
        said = bool(outcome.reason)
        assert outcome.verdict == "inconsistent" or said == (outcome.verdict == "unknown"), "I11"
        return outcome.verdict

    def truth_gains(self, *elements: Element, revision: int = 20) -> None:
        newest = self.truth.states[max(self.truth.states)]
        self.truth.states[revision] = {**newest, **{kept.key: kept for kept in elements}}

    def fault(self) -> None:
        with pytest.raises(FeedFault):
            self.cache.apply(batch(15, put(b"c", b"3", 15)))

    def relist(self, *elements: Element, revision: int = 15) -> None:
        self.cache.replace(revision, elements)


def told_by_an_event(story: Story) -> None:
    story.truth_gains(NEW)
    story.cache.apply(batch(20, put(b"d", b"", 20)))


def told_by_a_mark(story: Story) -> None:
    story.truth_gains()
    story.cache.progress(Progress(20))


def not_told(story: Story) -> None:
    story.truth_gains()


def event_in_time(story: Story) -> None:
    story.truth_gains(NEW)
    applied: list[int] = []

    def arrive() -> None:
        if story.clock.now_s - story.start_s > PATIENCE_S / 2 and not applied:
            applied.append(1)
            story.cache.apply(batch(20, put(b"d", b"", 20)))

    story.while_waiting = arrive


def differs_after_an_event(story: Story) -> None:
    story.truth_gains(NEW, element(b"e", b"", 19))
    story.cache.apply(batch(20, put(b"d", b"", 20)))


def differs_after_a_mark(story: Story) -> None:
    story.truth_gains(NEW)
    story.cache.progress(Progress(20))


def differs_after_a_mark_in_time(story: Story) -> None:
    story.truth_gains(NEW)
    story.while_waiting = lambda: story.cache.progress(Progress(20))


def differs_and_not_told(story: Story) -> None:
    story.truth_gains(NEW)


def older_differs(story: Story) -> None:
    story.truth.states[12] = {b"a": A}
    story.revisions = "all"


def older_differs_unasked(story: Story) -> None:
    story.truth.states[12] = {b"a": A}


def value_differs_by_keys(story: Story) -> None:
    story.truth.states[15] = {**story.truth.states[15], b"c": element(b"c", b"!", 15)}


def value_differs_by_values(story: Story) -> None:
    value_differs_by_keys(story)
    story.mode = "values"


def fault_mended(story: Story) -> None:
    story.fault()
    story.relist(A, B, C)


def fault_of_an_earlier_round(story: Story) -> None:
    fault_mended(story)
    story.rounds = 2


def fault_not_mended(story: Story) -> None:
    story.fault()


def fault_and_truth_away(story: Story) -> None:
    fault_mended(story)
    story.truth.back_s = story.clock.now_s + 1e9


def spoiled_state_differs(story: Story) -> None:
    """The round before saw the fault; the state that it spoiled is held against the truth once."""
    story.truth.states[15] = {b"a": A, b"b": B}
    story.fault()
    story.relist(A, B)


def away(story: Story) -> None:
    story.truth.back_s = story.clock.now_s + 1e9


def back_in_time(story: Story) -> None:
    story.truth.back_s = story.clock.now_s + PATIENCE_S / 2


def never_filled(story: Story) -> None:
    story.cache = Cache()


def closed(story: Story) -> None:
    story.truth_gains(NEW)
    story.cache.close()


def all_compacted(story: Story) -> None:
    story.truth.compacted = 99
    story.revisions = "all"


def some_compacted(story: Story) -> None:
    story.truth.compacted = 13
    story.revisions = "all"


def truth_stays_behind(story: Story) -> None:
    story.relist(A, B, C, NEW, revision=20)


STORIES: dict[str, Callable[[Story], None]] = {
    "equal at R, which an event told the cache of": told_by_an_event,
    "equal at R, which a progress mark told the cache of": told_by_a_mark,
    "equal at R, which the cache was not told of": not_told,
    "equal at R, once an event within 30 s brought the cache there": event_in_time,
    "different at R, which an event told the cache of": differs_after_an_event,
    "different at R, which a progress mark told the cache of": differs_after_a_mark,
    "different at R, which a mark within 30 s told the cache of": differs_after_a_mark_in_time,
    "different at R, which the cache is not told of within 30 s": differs_and_not_told,
    "an older revision differs and was asked for": older_differs,
    "an older revision differs and was not asked for": older_differs_unasked,
    "only a value differs, in mode keys": value_differs_by_keys,
    "only a value differs, in mode values": value_differs_by_values,
    "a feed fault, mended by a list, all equal": fault_mended,
    "a feed fault that an earlier round reported, all equal": fault_of_an_earlier_round,
    "a feed fault that no list mends within 30 s": fault_not_mended,
    "a feed fault, and the source away": fault_and_truth_away,
    "the state that a feed fault spoiled differs": spoiled_state_differs,
    "the source away for longer than 30 s": away,
    "the source away and back within 30 s, all equal": back_in_time,
    "the cache was never filled": never_filled,
    "the cache was closed before it reached R": closed,
    "every revision compacted at the source": all_compacted,
    "some revisions compacted at the source, the others equal": some_compacted,
    "the source stays behind the oldest revision of the cache": truth_stays_behind,
}

PAGE = dict(ROW.findall(GUARANTEES.read_text()))


def test_the_page_has_every_story() -> None:
    assert list(PAGE) == list(STORIES)
    assert set(PAGE.values()) == {"consistent", "inconsistent", "unknown"}


@pytest.mark.parametrize("name", STORIES)
def test_verdict(name: str) -> None:
    story = Story()
    STORIES[name](story)
    assert story.verdict() == PAGE[name]
