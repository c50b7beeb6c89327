"""The judge: what was noted against what was written.

A list or a chain of pages at revision r is right if it is the state at r, and not older than what
was acknowledged before it was asked for. A watch is right if it said every change of its namespace,
once, in the order of revisions. Nothing here knows how the server does it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from tests.load.notes import Compacted, Read, Seen, Written
from tests.load.objects import DIGEST_MODULUS, digest

#: Findings that are shown.
SHOWN_MAX = 20


class Event(NamedTuple):
    revision: int
    type: str
    name: str
    mark: int


class Truth:
    """What was written, by revision.

    events   what the watch of each namespace that begins after `since` has to say
    """

    def __init__(self, written: Iterable[Written], since: int) -> None:
        self._revisions, self._states = [0], [(0, 0)]
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.sent_s: dict[int, float] = {}
        acknowledged: list[tuple[float, int]] = []
        marks: dict[tuple[str, str], tuple[int, int]] = {}
        total = 0
        # Within a revision in the order of the transaction, which is that of the notes.
        for one in sorted(written, key=lambda one: one.revision):
            pod = one.namespace, one.name
            before = marks.pop(pod, None)
            if before is not None:
                total -= digest(*pod, *before)
            if one.mark:
                marks[pod] = one.revision, one.mark
                total += digest(*pod, *marks[pod])
            if one.revision == self._revisions[-1]:
                self._states.pop()
            else:
                self._revisions.append(one.revision)
            self._states.append((len(marks), total % DIGEST_MODULUS))
            self.sent_s[one.revision] = one.sent_s
            acknowledged.append((one.acknowledged_s, one.revision))
            if one.revision > since:
                kind = "DELETED" if not one.mark else "MODIFIED" if before else "ADDED"
                mark = one.mark or (before or (0, 0))[1]
                self.events[one.namespace].append(Event(one.revision, kind, one.name, mark))
        acknowledged.sort()
        self._known_s = [at_s for at_s, _ in acknowledged]
        self._known, newest = [0], 0
        for _, revision in acknowledged:
            newest = max(newest, revision)
            self._known.append(newest)

    def at(self, revision: int) -> tuple[int, int]:
        """How many objects there were, and their digest."""
        return self._states[bisect_right(self._revisions, revision) - 1]

    def known(self, at_s: float) -> int:
        """The newest revision that was acknowledged by then."""
        return self._known[bisect_right(self._known_s, at_s)]


def wrong_reads(truth: Truth, reads: Iterable[Read], compacted: list[Compacted]) -> list[str]:
    """What is wrong with lists and chains, one line each."""
    found = []
    for one in reads:
        where = f"{one.kind} at {one.revision}"
        if one.problem:
            found.append(f"{where}: {one.problem}")
        elif one.kind == "expired":
            ended_s = one.began_s + one.seconds
            gone = max((each.revision for each in compacted if each.at_s <= ended_s), default=0)
            if one.revision >= gone:
                found.append(f"{where}: 410, and the source keeps everything from {gone} on")
        elif one.kind in ("list", "chain"):
            wanted = truth.at(one.revision)
            if (one.count, one.digest) != wanted:
                found.append(f"{where}: {one.count} objects, {wanted[0]} wanted, or other ones")
            elif one.revision < (known := truth.known(one.began_s)):
                found.append(f"{where}: it was asked for when {known} was acknowledged")
    return found


def wrong_watches(truth: Truth, namespaces: Iterable[str], seen: Iterable[Seen]) -> list[str]:
    """What is wrong with watches, one line for each namespace."""
    heard: dict[str, list[Event]] = defaultdict(list)
    found = []
    for one in seen:
        if one.type == "END":
            found.append(f"{one.namespace}: the watch ended: {one.detail}")
        else:
            heard[one.namespace].append(Event(one.revision, one.type, one.name, one.mark))
    for namespace in namespaces:
        wanted, got = truth.events[namespace], heard[namespace]
        if wanted == got:
            continue
        dropped, extra = Counter(wanted) - Counter(got), Counter(got) - Counter(wanted)
        if dropped or extra:
            found.append(
                f"{namespace}: {dropped.total()} dropped, {extra.total()} too many, first"
                f" {min([*dropped, *extra])}"
            )
        else:
            first = next(one for one, other in zip(got, wanted, strict=True) if one != other)
            found.append(f"{namespace}: out of order at {first}")
    return found


def delays_s(truth: Truth, seen: Iterable[Seen]) -> list[float]:
    """From when each change was sent to the source to when a watcher had read it."""
    return [one.at_s - truth.sent_s[one.revision] for one in seen if one.type != "END"]


def quantile(values: list[float], share: float) -> float:
    """The nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def slope(samples: list[tuple[float, float]]) -> float:
    """By least squares, of (x, y)."""
    count = len(samples)
    mean_x = sum(x for x, _ in samples) / count
    mean_y = sum(y for _, y in samples) / count
    over = sum((x - mean_x) * (y - mean_y) for x, y in samples)
    under = sum((x - mean_x) ** 2 for x, _ in samples)
    return over / under if under else 0.0
