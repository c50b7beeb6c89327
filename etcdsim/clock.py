"""Virtual time: it stands still until somebody advances it, so a run takes no time of its own.

Whole milliseconds inside. Nothing here ever looks at the machine's clock.
"""

from __future__ import annotations

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


class VirtualClock:
    """A clock that only `advance` moves. One thread."""

    __slots__ = ("_now_ms",)

    def __init__(self, start_ms: int = START_MS) -> None:
        self._now_ms = start_ms

    @property
    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self._now_ms

    @property
    def now_s(self) -> float:
        """Seconds since the Unix epoch, for code that takes an ordinary clock."""
        return self._now_ms / 1000

    def advance(self, ms: int) -> None:
        """Move forward by `ms` milliseconds. Raises ValueError if that would be backwards."""
        if ms < 0:
            raise ValueError(f"a clock can't go back: {ms} ms")
        self._now_ms += ms
