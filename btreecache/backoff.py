"""Backoff: pauses after trouble, so that a source in trouble is not asked all the time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random


class Backoff:
    """Pauses that double from `first_s` to `ceiling_s`, each shortened at random by up to half.

    It starts afresh once there was no trouble for four times the pause before, or when told to.
    """

    def __init__(self, now: Callable[[], float], rng: Random, first_s: float, ceiling_s: float):
        self._now, self._rng = now, rng
        self._first_s, self._ceiling_s = first_s, ceiling_s
        self._pause_s = first_s
        self._until_s = float("-inf")

    def fail(self, *, afresh: bool = False) -> None:
        """There was trouble: begin a pause. `afresh`: something was gained since the last one."""
        now = self._now()
        if afresh or now > self._until_s + 4 * self._pause_s:
            self._pause_s = self._first_s
        else:
            self._pause_s = min(self._pause_s * 2, self._ceiling_s)
        self._until_s = now + self._pause_s * (1 - self._rng.random() / 2)

    def remaining_s(self) -> float:
        """How long the pause still lasts; 0 when it is over."""
        return max(self._until_s - self._now(), 0.0)
