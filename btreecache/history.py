"""The History protocol: where a cache writes down what it publishes, and finds it again.

It stands above the cache, so that the cache knows no storage; `archive` implements it. What is
archived is the source's elements: what a codec makes of them is made anew when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from btreecache.element import Element
from btreecache.event import Batch
from btreecache.snapshot import Snapshot
from btreecache.tree import Tree
from btreecache.window import Bounds

#: The source's element -> the element as the cache serves it.
Reading = Callable[[Element], Element]


class RestoredStep(NamedTuple):
    """A batch and the tree after it.

    age_s              seconds since it arrived, by the wall clock
    superseded_bytes   as the window counts them
    """

    batch: Batch
    tree: Tree[bytes, Element]
    age_s: float
    superseded_bytes: int


@dataclass(frozen=True, slots=True)
class Restored:
    """A window as it was: its first state, and what came after it.

    revision, tree, age_s   the first state: everything before it is forgotten
    steps                   what came after it
    current                 how far the history is known to be complete
    """

    revision: int
    tree: Tree[bytes, Element]
    age_s: float
    steps: Sequence[RestoredStep]
    current: int


class History(Protocol):
    """The durable history of one cache. `began`, `appended`, `progressed` and `distrusted` are
    called by the cache's writer, in that order of events, and never wait for a disk; the rest may
    come from any thread.
    """

    def began(self, revision: int, tree: Tree[bytes, Element]) -> None:
        """The state at `revision` was listed. What lies between it and the last state is a gap."""

    def appended(self, batch: Batch, tree: Tree[bytes, Element]) -> None:
        """A batch was applied: `tree` is the state after it."""

    def progressed(self, revision: int) -> None:
        """Everything up to `revision` has been told."""

    def distrusted(self, after: int) -> None:
        """What was told above `after` may be wrong, and is to be forgotten."""

    @property
    def oldest(self) -> int:
        """The lowest revision that can be read; 0 if there is none. Quick."""

    @property
    def durable_revision(self) -> int:
        """Everything up to it is safe, whatever happens to this process; 0 if nothing is. Quick."""

    def restore(self, read: Reading, bounds: Bounds, recipe: bytes = b"") -> Restored | None:
        """What was archived, as much as a window within `bounds` keeps at least; None: nothing yet.
        Reads the disk. To be called before anything is written. Raises ArchiveError.

        recipe   of the cache's codec, if its elements are what that makes (`Codec.recipe`): they
                 may be archived as they are served then, and needn't be made again
        """

    def snapshot(
        self, revision: int, read: Reading, recipe: bytes = b""
    ) -> AbstractContextManager[Snapshot]:
        """The state at `revision`, for one thread, until the end of the context. Reads the disk.

        Raises Compacted where it is no longer retained or was never archived, FutureRevision."""
