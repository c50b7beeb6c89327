"""Fairness: whose turn it is, where only so many answers, of so many bytes, may be under way.

Start-time fair queueing between clients, counted in bytes: each client has a point in virtual
time, which what it was given moves on; next is the client whose point is the earliest. So two that
always ask have been given as many bytes each, but for the largest of what they ask for, however
many requests each has waiting; who comes anew begins at the point of the last that was started, so
nobody gathers credit. (Deficit round robin shares alike, with rounds to go through one by one.)

Pure: no clock, no tasks. Who waits is told of his turn by whoever gave up his.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum

#: Clients that are remembered though they ask for nothing now, with their points: else who asks for
#: one thing after the other would begin anew each time.
REMEMBERED = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may be under way at a time.

    turns   answers; one client has at most half of them
    bytes   of all of these together, half of them for one client; what is larger goes alone
    queued  answers of one client that may wait
    """

    turns: int = 16
    bytes: int = 512 << 20
    queued: int = 64


class State(Enum):
    """Where a ticket is."""

    WAITING = "waiting"
    RUNNING = "running"
    LEFT = "left"


@dataclass(eq=False, slots=True)
class Ticket:
    """One answer of a client, of so many bytes."""

    client: Hashable
    size: int
    number: int
    state: State = State.WAITING


@dataclass(eq=False, slots=True)
class _Client:
    point: int
    waiting: deque[Ticket] = field(default_factory=deque)
    running: int = 0
    bytes: int = 0


class Turns:
    """Who runs and who waits. One thread. Between calls, as many run as the bounds let."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._clients: dict[Hashable, _Client] = {}
        self._idle: dict[Hashable, int] = {}
        self._point = 0
        self._number = 0
        self.running = 0
        self.running_bytes = 0
        self.waiting = 0

    def ask(self, client: Hashable, size: int) -> Ticket | None:
        """A ticket that runs already or waits; None if too many of the client wait. O(clients)."""
        found = self._clients.get(client)
        if found is None:
            found = self._clients[client] = _Client(self._idle.pop(client, 0))
        if len(found.waiting) >= self.bounds.queued:
            return None
        if not found.waiting:
            found.point = max(found.point, self._point)
        self._number += 1
        ticket = Ticket(client, max(0, size), self._number)
        found.waiting.append(ticket)
        self.waiting += 1
        self._start()
        return ticket

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """It waits no more, or is done: those whose turn it is now. Only the first time counts.
        O(clients + the client's queue)."""
        if ticket.state is State.LEFT:
            return []
        client = self._clients[ticket.client]
        if ticket.state is State.WAITING:
            client.waiting.remove(ticket)
            self.waiting -= 1
        else:
            client.running -= 1
            client.bytes -= ticket.size
            self.running -= 1
            self.running_bytes -= ticket.size
        ticket.state = State.LEFT
        started = self._start()
        self._forget(ticket.client, client)
        return started

    def _start(self) -> list[Ticket]:
        started = []
        while (client := min(self._next(), key=_place, default=None)) is not None:
            ticket = client.waiting[0]
            # Who is next and doesn't fit is waited for: something small before it each time, and
            # its turn would never come.
            if not _fits(self.running, self.running_bytes, ticket, self.bounds):
                break
            client.waiting.popleft()
            self._point = max(self._point, client.point)
            client.point += max(1, ticket.size)
            client.running += 1
            client.bytes += ticket.size
            self.waiting -= 1
            self.running += 1
            self.running_bytes += ticket.size
            ticket.state = State.RUNNING
            started.append(ticket)
        return started

    def _next(self) -> Iterator[_Client]:
        """Those that wait and haven't got their share already."""
        share = Bounds(turns=max(1, self.bounds.turns // 2), bytes=self.bounds.bytes // 2)
        for one in self._clients.values():
            if one.waiting and _fits(one.running, one.bytes, one.waiting[0], share):
                yield one

    def _forget(self, name: Hashable, client: _Client) -> None:
        if not self.running and not self.waiting:
            self._clients.clear()
            self._idle.clear()
            self._point = 0
        elif not client.waiting and not client.running:
            del self._clients[name]
            if client.point > self._point:
                self._idle[name] = client.point
            if len(self._idle) > REMEMBERED:
                del self._idle[next(iter(self._idle))]


def _place(client: _Client) -> tuple[int, int]:
    return client.point, client.waiting[0].number


def _fits(running: int, running_bytes: int, ticket: Ticket, bounds: Bounds) -> bool:
    """Whether it may begin beside what runs. Something may always run."""
    return not running or (running < bounds.turns and running_bytes + ticket.size <= bounds.bytes)
