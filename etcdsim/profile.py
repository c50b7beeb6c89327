"""Profile: the shape of a workload, and the bookkeeping that the workloads share.

A profile keeps its own list of what it has written, so that it never has to search the model for a
key to write next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from etcdsim.clock import VirtualClock
from etcdsim.model import Model
from etcdsim.prng import Prng

T = TypeVar("T")


class Roster(Generic[T]):
    """The live objects of one sort by key. Every operation O(1), in an order that depends only on
    the calls made."""

    __slots__ = ("_items", "_positions")

    def __init__(self) -> None:
        self._items: list[tuple[bytes, T]] = []
        self._positions: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: bytes) -> bool:
        return key in self._positions

    def add(self, key: bytes, item: T) -> None:
        """Note a new object, or what an object is now."""
        position = self._positions.setdefault(key, len(self._items))
        if position < len(self._items):
            self._items[position] = (key, item)
        else:
            self._items.append((key, item))

    def discard(self, key: bytes) -> None:
        """Forget an object, if there is one of that key. The last one takes its place."""
        position = self._positions.pop(key, None)
        last = self._items.pop() if position is not None else None
        if last is not None and position is not None and position < len(self._items):
            self._items[position] = last
            self._positions[last[0]] = position

    def pick(self, prng: Prng) -> tuple[bytes, T]:
        """Any one of them; there must be one."""
        return prng.choice(self._items)

    def pick_several(self, prng: Prng, n: int) -> list[tuple[bytes, T]]:
        """Up to `n` different ones: neighbours in the roster, from a random place on."""
        size = len(self._items)
        first = prng.below(size)
        return [self._items[(first + i) % size] for i in range(min(n, size))]


class Profile(ABC):
    """A seeded workload on one model. One thread.

    `load` once, then any number of `step`: each makes exactly one revision and lets time pass.
    """

    name: ClassVar[str]

    def __init__(self, prng: Prng, clock: VirtualClock) -> None:
        self.prng, self.clock = prng, clock

    @abstractmethod
    def load(self, model: Model, objects: int) -> None:
        """Create the initial objects, at least one, each by one put."""

    @abstractmethod
    def step(self, model: Model) -> None:
        """Make the next write."""
