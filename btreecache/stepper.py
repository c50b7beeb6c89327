"""Stepper: a machine with one step that reads a stream of a source.

The same code runs as a thread (`start`), in the caller's loop (`step`), or on a simulated clock.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from btreecache.source import Stream

#: Longest time that a stopping thread takes to notice.
POLL_S = 0.1


class Stepper(ABC):
    """Only one thread may call `step`; `start` makes that thread. The constructor makes none."""

    def __init__(self, thread_name: str) -> None:
        self._thread_name = thread_name
        self._stream: Stream | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def step(self, timeout_s: float = 0.0) -> bool:
        """Do the next thing, waiting up to `timeout_s` for it. Whether anything was done. Never
        raises for what a source does."""

    def run(self) -> None:
        """Step until `close` is called, in the caller's thread."""
        try:
            while not self._stopping.is_set():
                self.step(POLL_S)
        finally:
            self._close_stream()

    def start(self) -> Self:
        """Step in a thread of its own until `close`."""
        assert self._thread is None, "started twice"
        self._thread = threading.Thread(target=self.run, name=self._thread_name, daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop, and wait for the thread to end. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        else:
            self._close_stream()

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
