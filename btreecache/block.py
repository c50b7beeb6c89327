"""Blocks: bulky values kept with nodes, such as encoded runs of items, under one byte budget.

The one idea: a node holds a small `Block`, the block holds an entry, the entry holds the value. The
store knows entries only. So it can empty one without touching the node (I3), keeps no node alive,
and when the last snapshot with a node goes, node and block go by reference count and so do the
bytes, at once.

Recency is a stamp that a hit puts on the entry: no lock, no list to mend. A heap of the stamps as
they once were is put right only when room is needed, and then gives the exact least recently used.

What this module deliberately does not do: no choice of what is worth keeping, no size of blocks, no
limit on what readers hold for themselves, no timeout: a computation is work, not waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from threading import Lock, get_ident
from typing import Any, Final, Generic, Protocol, TypeVar, cast

#: What a kept block costs beside its value, counted for each. By tracemalloc over 10,000 blocks on
#: CPython 3.11: 519 for the first of a node (`kept` 224, entry 72, Block 48, place in the heap with
#: its two integers and the list's slack the rest), 297 for each further one. For each living block
#: the entry of a dead one may wait in the heap to be cleaned up: 190 more, so 709 at the worst.
BLOCK_BYTES: Final = 720

#: What an emptied block still costs until its node goes: 356 the first, 133 each further one.
EMPTIED_BYTES: Final = 370

#: A heap shorter than this isn't worth cleaning of entries whose node is gone.
_HEAP_MIN: Final = 64


class Holder(Protocol):
    """What a block hangs on: a tree node, or anything else that never changes but for `kept`."""

    kept: dict[Any, Any] | None


H = TypeVar("H", bound=Holder)
V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
class Kind(Generic[H, V]):
    """A kind of block: the value of a node, as `compute` makes it, and the bytes that it takes.

    `compute` must be pure, as the value is shared by every tree and thread, and must not return
    None. It may get other blocks, of nodes below its own only: two computations that wait for each
    other would wait for ever. Equality is identity, so make a kind once; use it with one store.
    """

    name: str
    compute: Callable[[H], V]
    size_bytes: Callable[[V], int]


class _Entry:
    """A value in the account. `cost` is 0 once it is out of the account; set under the lock."""

    __slots__ = ("cost", "stamp", "value")

    def __init__(self, value: Any, cost: int, stamp: int) -> None:
        self.value = value
        self.cost = cost
        self.stamp = stamp


class Block:
    """What a node keeps of one kind: full or emptied."""

    __slots__ = ("_dead", "entry")

    def __init__(self, entry: _Entry, dead: deque[_Entry]) -> None:
        self.entry = entry
        self._dead = dead

    def __del__(self) -> None:
        # Runs in any thread at any point, even in one that holds the store's lock: so it takes no
        # lock. The bytes are free now; the account follows when the store next looks.
        self.entry.value = None
        if self.entry.cost:
            self._dead.append(self.entry)


class _Flight:
    """A computation going on, and how many wait for it."""

    __slots__ = ("done", "error", "retry", "thread", "value", "waiting")

    def __init__(self) -> None:
        self.thread = get_ident()
        self.done = Lock()  # Held until it has landed. An Event costs more than all the rest.
        self.done.acquire()
        self.value: Any = None
        self.error: Exception | None = None
        self.retry = False
        self.waiting = 0  # under the store's lock


@dataclass(frozen=True, slots=True)
class BlockStats:
    """Gauges, and counters since the store was made.

    blocks, used_bytes     what is in the account
    waiting                threads that wait for what another thread computes
    computed               values made and paid for, kept or not
    evicted, too_large     blocks emptied for room or by `clear`, and values larger than the budget
    """

    blocks: int
    used_bytes: int
    waiting: int
    computed: int
    evicted: int
    too_large: int


class Blocks:
    """A store of blocks that keeps at most `budget_bytes` of them, the most recently used.

    Any thread may call anything at any time; no lock is held while a Kind's functions run. The
    account covers the values kept and BLOCK_BYTES for each, and never exceeds the budget. On top of
    that come values being computed, those that readers still hold, and EMPTIED_BYTES for each
    living node whose block was emptied, since the Block stays with the node.
    """

    def __init__(self, budget_bytes: int) -> None:
        """ValueError if the budget is negative. A budget of 0 keeps nothing."""
        if budget_bytes < 0:
            raise ValueError(f"budget_bytes must not be negative: {budget_bytes}")
        self.budget_bytes = budget_bytes
        self._lock = Lock()
        self._stamps = count(1)
        self._heap: list[tuple[int, int, _Entry]] = []
        self._dead: deque[_Entry] = deque()
        self._flights: dict[tuple[int, object], _Flight] = {}
        self._used = self._blocks = self._added = 0
        self._computed = self._evicted = self._too_large = 0

    def get(self, node: H, kind: Kind[H, V]) -> V:
        """The block of `node`: kept, or computed now. O(1) on a hit, without a lock.

        Computed once however many threads ask at the same time: the others wait. What it raises
        (an Exception) reaches everyone who waits, and is not kept; an interrupt reaches its own
        thread only, and another computes. A value that is larger than the whole budget is returned,
        not kept. RuntimeError if a computation asks for its own result.
        """
        kept = node.kept
        if kept is not None:
            block = kept.get(kind)
            if block is not None:
                entry = block.entry
                value: V | None = entry.value
                if value is not None:
                    # Without a global lock two threads may draw one stamp: a tie, no harm.
                    entry.stamp = next(self._stamps)
                    return value
        return self._miss(node, kind)

    @property
    def used_bytes(self) -> int:
        """What the account says: at most `budget_bytes`."""
        with self._lock:
            self._settle()
            return self._used

    def stats(self) -> BlockStats:
        """How full the store is and what it did so far."""
        with self._lock:
            self._settle()
            return BlockStats(
                self._blocks,
                self._used,
                sum(flight.waiting for flight in self._flights.values()),
                self._computed,
                self._evicted,
                self._too_large,
            )

    def clear(self) -> None:
        """Empty every block. Computations under way are kept all the same once they are done."""
        freed: list[object] = []
        with self._lock:
            self._settle()
            self._make_room(self.budget_bytes, freed)

    def _miss(self, node: H, kind: Kind[H, V]) -> V:
        # While a flight is on, its caller holds the node: nobody else can have the same id.
        place = (id(node), kind)
        while True:
            with self._lock:
                block: Block | None = (node.kept or {}).get(kind)
                value: V | None = block.entry.value if block else None
                if block and value is not None:
                    block.entry.stamp = next(self._stamps)
                    return value
                flight = self._flights.get(place)
                if flight is None:
                    flight = self._flights[place] = _Flight()
                    break
                if flight.thread == get_ident():
                    raise RuntimeError(
                        f"the computation of a {kind.name} block asks for its own result"
                    )
                flight.waiting += 1
            with flight.done:
                pass
            if not flight.retry:
                return cast(V, _landed(flight))
        return self._fly(node, kind, flight)

    def _fly(self, node: H, kind: Kind[H, V], flight: _Flight) -> V:
        """Compute, keep, and let everyone know."""
        freed: list[object] = []  # Let go of without the lock: a value may be anybody's class.
        try:
            value = kind.compute(node)
            assert value is not None, f"a {kind.name} block can't be None"
            cost = kind.size_bytes(value) + BLOCK_BYTES
            flight.value = value
            with self._lock:
                self._computed += 1
                self._keep(node, kind, value, cost, freed)
        except BaseException as error:
            if isinstance(error, Exception):
                flight.error = error
            else:
                flight.retry = True  # An interrupt is meant for this thread alone.
            raise
        finally:
            with self._lock:
                del self._flights[id(node), kind]
            flight.done.release()
            del flight  # Else an error, its traceback, this frame and the flight form a cycle.
        return value

    def _keep(self, node: H, kind: Kind[H, V], value: V, cost: int, freed: list[object]) -> None:
        self._settle()
        if cost > self.budget_bytes:
            self._too_large += 1
            return
        self._make_room(cost, freed)
        entry = _Entry(value, cost, next(self._stamps))
        self._used += cost
        self._blocks += 1
        self._added += 1
        heappush(self._heap, (entry.stamp, self._added, entry))
        kept = node.kept or {}
        block = kept.get(kind)
        if block is None:
            # One assignment publishes it. A thread that keeps an aggregate with the node (see
            # `node.whole`, which knows no lock) and read `kept` before this may undo it: then the
            # Block dies, its bytes leave the account, and whoever asks next computes it again. In
            # turn this may undo an aggregate. Both are work done twice, never a wrong answer.
            node.kept = {**kept, kind: Block(entry, self._dead)}
        else:
            block.entry = entry

    def _make_room(self, wanted: int, freed: list[object]) -> None:
        """Empty the least recently used until `wanted` bytes fit. O(log n) for each, amortised."""
        heap = self._heap
        while heap and self._used + wanted > self.budget_bytes:
            stamp, serial, entry = heap[0]
            if entry.cost and entry.stamp != stamp:
                heapreplace(heap, (entry.stamp, serial, entry))
                continue
            heappop(heap)
            if entry.cost:
                freed.append(entry.value)
                entry.value = None
                self._leave(entry)
                self._evicted += 1

    def _settle(self) -> None:
        """Take what died with its node out of the account."""
        dead = self._dead
        while dead:
            self._leave(dead.popleft())
        if len(self._heap) > max(_HEAP_MIN, 2 * self._blocks):
            self._heap[:] = [(e.stamp, serial, e) for _, serial, e in self._heap if e.cost]
            heapify(self._heap)

    def _leave(self, entry: _Entry) -> None:
        if entry.cost:
            self._used -= entry.cost
            self._blocks -= 1
            entry.cost = 0


def _landed(flight: _Flight) -> Any:
    if flight.error is None:
        return flight.value
    try:
        raise flight.error
    finally:
        del flight  # As in Blocks._fly.
