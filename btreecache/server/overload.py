"""Overload: what is expensive takes turns, and beyond that is refused: 429, with Retry-After.

Expensive is a list of more than a page (PAGE_OBJECTS, PAGE_BYTES); before it is read it waits for
its turn (fairness), which it keeps until the client has taken it all. Everything else waits for
nobody. Watches last, and cost little: they are only counted.
Who one client is: a user, else an address; on loopback all have the same one, and their User-Agents
tell them apart. That can be forged there, by who may read everything anyhow.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from operator import add
from typing import NamedTuple

from starlette.requests import Request

from btreecache.element import Element
from btreecache.options import ListOptions
from btreecache.server.access import ANONYMOUS, is_loopback
from btreecache.server.fairness import Bounds, State, Ticket, Turns
from btreecache.server.refusals import TooManyRequests
from btreecache.snapshot import prefix_end
from btreecache.tree import Aggregate, Tree

#: A list of no more than that is cheap.
PAGE_OBJECTS, PAGE_BYTES = 500, 8 << 20

#: What a list counts whose size nobody knows: its cache has no state, so the source answers.
UNKNOWN_BYTES = 1 << 20

VALUE_BYTES: Aggregate[bytes, Element, int] = Aggregate(
    "value_bytes", 0, lambda _, element: len(element.value), add
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a server does at a time.

    lists           expensive lists, and their bytes
    queue_s         how long one waits for its turn
    watches         in all
    client_watches  of one client
    """

    lists: Bounds = field(default_factory=Bounds)
    queue_s: float = 15.0
    watches: int = 10_000
    client_watches: int = 5_000


class Weight(NamedTuple):
    """What a list will come to, before it is read."""

    objects: int
    bytes: int

    @property
    def is_cheap(self) -> bool:
        return self.objects <= PAGE_OBJECTS and self.bytes <= PAGE_BYTES


def weight_of(options: ListOptions, prefix: bytes, newest: Tree[bytes, Element] | None) -> Weight:
    """What a list is expected to come to, by the newest state. One with selectors counts all that
    they may have to look at. O(log n), once O(what changed)."""
    if newest is None:
        return Weight(PAGE_OBJECTS + 1, UNKNOWN_BYTES)
    end = prefix_end(prefix)
    objects, total = newest.count(prefix, end), newest.aggregate(VALUE_BYTES, prefix, end)
    if options.filtered or options.limit <= 0:
        return Weight(objects, total)
    asked = min(options.limit, objects)
    return Weight(asked, total * asked // objects if objects else 0)


def client_of(request: Request) -> Hashable:
    """Who counts as one client."""
    user = request.scope.get("user", ANONYMOUS)
    if user is not ANONYMOUS:
        return "user", user.name
    host = request.client.host if request.client else ""
    if host and not is_loopback(host):
        return "address", host
    return "agent", request.headers.get("user-agent", "")[:200]


class Turn:
    """The turn of one answer. `leave` it in any case, once or more often."""

    def __init__(self, overload: Overload, ticket: Ticket) -> None:
        self._overload, self.ticket = overload, ticket
        self._come = asyncio.Event()

    def has_come(self) -> None:
        """It is its turn now."""
        self._come.set()

    async def come(self) -> None:
        """Wait for it. Raises TooManyRequests if that takes too long."""
        if self.ticket.state is State.RUNNING:
            return
        try:
            async with asyncio.timeout(self._overload.limits.queue_s):
                await self._come.wait()
        except TimeoutError:
            self.leave()
            raise self._overload.refused() from None

    def leave(self) -> None:
        """It is over, or nobody waits for it any more."""
        self._overload.leave(self)


class Overload:
    """What is under way in one server. On one event loop.

    watches    that are under way
    rejected   requests that were refused
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.turns = Turns(self.limits.lists)
        self.rejected = 0
        self._waiting: dict[Ticket, Turn] = {}
        self.watches = 0
        self._watches: Counter[Hashable] = Counter()

    def turn(self, client: Hashable, size: int) -> Turn:
        """A turn for an expensive answer of so many bytes, which may have to be waited for. Raises
        TooManyRequests if too many of the client wait."""
        ticket = self.turns.ask(client, size)
        if ticket is None:
            raise self.refused()
        turn = Turn(self, ticket)
        if ticket.state is State.WAITING:
            self._waiting[ticket] = turn
        return turn

    def leave(self, turn: Turn) -> None:
        """As Turn.leave."""
        self._waiting.pop(turn.ticket, None)
        for ticket in self.turns.leave(turn.ticket):
            self._waiting.pop(ticket).has_come()

    def watch(self, client: Hashable) -> Callable[[], None]:
        """Begin a watch; what is returned ends it, once. Raises TooManyRequests."""
        limits = self.limits
        if self.watches >= limits.watches or self._watches[client] >= limits.client_watches:
            raise self.refused()
        self.watches += 1
        self._watches[client] += 1

        def end() -> None:
            self.watches -= 1
            self._watches[client] -= 1
            if not self._watches[client]:
                del self._watches[client]

        return end

    def refused(self) -> TooManyRequests:
        """One more was refused."""
        self.rejected += 1
        return TooManyRequests()
