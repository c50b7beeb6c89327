"""A simulator, a cache that follows it, and a checker, all in one thread on the virtual clock."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from random import Random
from typing import Literal

from btreecache.cache import Cache
from btreecache.cli.progress import Advance
from btreecache.consistency import Checker, Round
from btreecache.digest import Mode
from btreecache.follow import Follower
from btreecache.sources.simulated import SimulatedSource, SimulatedTruth
from btreecache.window import Bounds
from etcdsim import Simulator, parse_fault

#: The follower reads after so many writes, drawn anew each time: sometimes level, sometimes behind.
LAG_WRITES_MAX = 40

#: Longest pause of the follower after a feed fault, in virtual seconds.
BACKOFF_CEILING_S = 30.0


class Simulation:
    """Writes go to the simulator, the follower reads its feed, the checker its truth.

    Raises ValueError for an unknown profile or fault, a malformed rate, the same fault twice.
    """

    def __init__(
        self,
        profile: str,
        *,
        seed: int,
        objects: int,
        faults: Iterable[str],
        prefix: bytes,
        mode: Mode,
        bounds: Bounds,
    ) -> None:
        parsed = [parse_fault(fault) for fault in faults]
        self.simulator = Simulator(profile, seed=seed, objects=objects, faults=parsed)
        self.simulator.truth.track(prefix, mode == "values")
        clock = self.simulator.clock
        self._now = lambda: clock.now_s
        name = f"simulated {profile}"
        self.source = SimulatedSource(self.simulator.feed, name, sleep=self._sleep)
        self._truth = SimulatedTruth(self.simulator.truth, name)
        self._cache = Cache(prefix, bounds=bounds, now=self._now)
        self._follower = Follower(
            self.source,
            self._cache,
            backoff_ceiling_s=BACKOFF_CEILING_S,
            now=self._now,
            rng=Random(seed),
        )
        self._checker = Checker(
            self._cache,
            self._truth,
            mode=mode,
            request_progress=self._follower.request_progress,
            now=self._now,
            sleep=self._sleep,
            rng=Random(seed),
        )
        self._rng = Random(seed)
        self._loaded = False

    @property
    def retained(self) -> int:
        """Snapshots in the window."""
        return self._cache.stats().snapshots

    def _sleep(self, seconds: float) -> None:
        """Let virtual time pass; the follower goes on meanwhile."""
        self.simulator.clock.advance(max(round(seconds * 1000), 1))
        self._follow()

    def _follow(self) -> None:
        while self._follower.step():
            pass

    def write(self, writes: int, stopping: threading.Event, advance: Advance) -> None:
        """Make `writes` revisions, the follower in their wake, and a last progress mark."""
        if not self._loaded:
            self.simulator.load()
            self._loaded = True
        self._follow()
        lag = 0
        for done in range(writes):
            self.simulator.step()
            lag -= 1
            if lag <= 0:
                self._follow()
                advance(done + 1)
                lag = self._rng.randint(1, LAG_WRITES_MAX)
                if stopping.is_set():
                    break
        self._finish()

    def _finish(self) -> None:
        """Let every fault strike that is owed, and the follower see all of it.

        A follower that pauses after a fault has no stream that another fault could strike on, so
        virtual time passes until it watches again.
        """
        self._follow()
        while True:
            self.simulator.finish()
            self._follow()
            if not self.simulator.owed or self._follower.trouble is None:
                return
            self._sleep(BACKOFF_CEILING_S)

    def check(
        self,
        revisions: int | Literal["latest", "all"],
        stopping: threading.Event,
        advance: Advance,
    ) -> Round:
        """Compare the retained revisions that are asked for with the truth."""
        if revisions != "all":
            return self._checker.check(revisions)
        outcome = Round()
        for outcome in self._checker.check_history(self._truth):
            advance(outcome.revisions_checked)
            if stopping.is_set():
                return self._checker.judge(outcome)
        return outcome
