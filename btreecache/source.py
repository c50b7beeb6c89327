"""The Source protocol: what a cache follows and what a checker takes for the truth.

One contract suite (`tests/source/contract.py`) runs against every implementation. Nothing here does
I/O. Every call blocks; a source may be used from several threads, a stream from one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from btreecache.element import Element
from btreecache.event import Batch, Progress


class Listing(NamedTuple):
    """The state of a prefix at one revision. `elements` is in key order, may be consumed once and
    may fetch further pages as it goes, so that no more than a page is held at a time."""

    revision: int
    elements: Iterable[Element]


@dataclass(frozen=True, slots=True)
class RangePage:
    """One page of a range at a revision, in key order. With `keys_only` the values are empty.

    more           there are keys in the range after the last one here
    count          keys in the range from `start` on at that revision, this page included
    bytes_read     size of the answer as the source sent it
    """

    elements: list[Element]
    more: bool
    count: int
    bytes_read: int


class Stream(Protocol):
    """A watch in progress. Batches come in revision order, each revision whole (I5)."""

    def receive(self, timeout_s: float) -> Batch | Progress | None:
        """The next item, or None if nothing came within `timeout_s` seconds (0: don't wait).

        Raises Compacted when the position was compacted away, Unavailable when the connection is
        lost, SourceError when no retry will help. After any of these the stream is over.
        """

    def request_progress(self) -> bool:
        """Ask for a progress mark soon; any thread may. False, and nothing is sent, where marks
        can't be trusted."""

    def close(self) -> None:
        """End the watch. Idempotent."""


class Source(Protocol):
    """Where elements and their history come from."""

    @property
    def name(self) -> str:
        """What it is, for reports: `etcd 3.5.30 at 127.0.0.1:2379`, `simulated kubernetes`."""

    def list(self, prefix: bytes) -> Listing:
        """Every key that starts with `prefix` (b"": all keys), all pages at one revision.

        Raises Unavailable; iterating raises Compacted if the revision was compacted meanwhile.
        """

    def watch(self, prefix: bytes, after: int) -> Stream:
        """Every change of the prefix with a revision greater than `after`, then live.

        A position already compacted may be reported here or by the first `receive` (Compacted).
        """

    def current_revision(self) -> int:
        """The newest revision, linearizable: not less than any revision seen before the call."""

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        """The keys with `prefix`, from `start` on, as they were at `revision`.

        Raises Compacted or FutureRevision when that revision can't be read.
        """

    def close(self) -> None:
        """Let go of connections. Idempotent."""
