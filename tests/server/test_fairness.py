"""Whose turn it is: the bounds hold, nobody starves, what was taken is given back once."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from btreecache.server.fairness import REMEMBERED, Bounds, State, Ticket, Turns


def running(turns: Turns, *tickets: Ticket | None) -> list[bool]:
    return [ticket is not None and ticket.state is State.RUNNING for ticket in tickets]


def test_in_number() -> None:
    turns = Turns(Bounds(turns=2, bytes=100, queued=2))
    first, second = turns.ask("a", 1), turns.ask("a", 1)
    other = turns.ask("b", 1)
    assert running(turns, first, second, other) == [True, False, True]  # a has its half
    third, refused = turns.ask("a", 1), turns.ask("a", 1)
    assert third is not None
    assert refused is None
    assert first is not None
    assert turns.leave(first) == [second]
    assert turns.leave(first) == []
    assert running(turns, second, third) == [True, False]


def test_in_bytes() -> None:
    turns = Turns(Bounds(turns=9, bytes=100))
    huge, small = turns.ask("a", 1000), turns.ask("b", 1)
    assert huge is not None
    assert small is not None
    assert running(turns, huge, small) == [True, False]  # what is larger goes alone
    assert turns.leave(huge) == [small]
    again = turns.ask("a", 100)
    tiny = turns.ask("c", 1)
    # Who is next is waited for, or all that is small would always be before it.
    assert running(turns, again, tiny) == [False, True]
    assert turns.leave(small) == []
    assert tiny is not None
    assert turns.leave(tiny) == [again]


def test_who_waits_may_go() -> None:
    turns = Turns(Bounds(turns=1))
    first, second, third = turns.ask("a", 1), turns.ask("b", 9), turns.ask("c", 9)
    assert first is not None
    assert second is not None
    assert turns.leave(second) == []
    assert turns.leave(first) == [third]
    assert (turns.running, turns.running_bytes, turns.waiting) == (1, 9, 0)


@pytest.mark.parametrize(("one", "other"), [(1, 1), (10, 1), (100, 7)])
def test_bytes_are_shared_whatever_the_sizes(one: int, other: int) -> None:
    """Both always have some waiting, a nine times as many."""
    turns = Turns(Bounds(turns=1, queued=1000))
    sizes, given = {"a": one, "b": other}, {"a": 0, "b": 0}
    current = turns.ask("a", 0)
    for name in "a" * 900 + "b" * 100:
        turns.ask(name, sizes[name])
    assert current is not None
    while all(turns._clients[name].waiting for name in sizes):
        (current,) = turns.leave(current)
        given[str(current.client)] += current.size
        assert abs(given["a"] - given["b"]) <= one + other
    assert min(given.values()) > 90 * min(one, other)


def test_who_comes_anew_is_not_behind_a_queue() -> None:
    turns = Turns(Bounds(turns=1, queued=1000))
    first = turns.ask("a", 10)
    for _ in range(500):
        turns.ask("a", 10)
    late = turns.ask("b", 10)
    assert first is not None
    assert turns.leave(first) == [late]


def test_clients_are_forgotten() -> None:
    turns = Turns(Bounds(turns=4))
    held = turns.ask("held", 1)
    for number in range(2 * REMEMBERED):
        ticket = turns.ask(number, 100)
        assert ticket is not None
        turns.leave(ticket)
        assert len(turns._clients) == 1
        assert len(turns._idle) <= REMEMBERED
    assert held is not None
    turns.leave(held)
    assert not turns._clients
    assert not turns._idle


class TurnsMachine(RuleBasedStateMachine):
    """Anything in any order, beside what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = Bounds(turns=3, bytes=20, queued=3)
        self.turns = Turns(self.bounds)
        self.tickets: list[Ticket] = []
        self.passed: dict[Ticket, int] = {}

    def of(self, state: State) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket.state is state]

    @rule(client=st.sampled_from("abc"), size=st.integers(0, 30))
    def ask(self, client: str, size: int) -> None:
        waiting = sum(ticket.client == client for ticket in self.of(State.WAITING))
        ticket = self.turns.ask(client, size)
        assert (ticket is None) == (waiting == self.bounds.queued)
        if ticket is not None:
            self.tickets.append(ticket)

    @rule(data=st.data())
    @precondition(lambda self: self.tickets)
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        before = {*self.of(State.WAITING)}
        started = self.turns.leave(ticket)
        assert {*started} == before - {*self.of(State.WAITING)} - {ticket}
        assert ticket.state is State.LEFT
        assert self.turns.leave(ticket) == []
        for one in self.of(State.WAITING):
            others = [other for other in started if other.client != one.client]
            self.passed[one] = self.passed.get(one, 0) + sum(other.size for other in others)

    @invariant()
    def the_bounds_hold(self) -> None:
        running = self.of(State.RUNNING)
        assert self.turns.running == len(running) <= self.bounds.turns
        assert self.turns.running_bytes == sum(ticket.size for ticket in running)
        assert self.turns.waiting == len(self.of(State.WAITING))
        assert self.turns.running_bytes <= self.bounds.bytes or len(running) == 1
        for client in "abc":
            own = [ticket for ticket in running if ticket.client == client]
            assert len(own) <= 1

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        assert self.of(State.RUNNING) or not self.of(State.WAITING)

    @invariant()
    def nobody_is_passed_over_and_over(self) -> None:
        """While one waits, each of the two others gets no further than what is before it, and one
        of the largest more."""
        for ticket in self.of(State.WAITING):
            queued = self.bounds.queued + 1
            assert self.passed.get(ticket, 0) <= 2 * 30 * (queued + 2)

    def teardown(self) -> None:
        while self.of(State.RUNNING):
            self.turns.leave(self.of(State.RUNNING)[0])
        assert not self.of(State.WAITING)
        assert (self.turns.running, self.turns.running_bytes, self.turns.waiting) == (0, 0, 0)


TestTurns = TurnsMachine.TestCase
TestTurns.settings = settings(max_examples=25, stateful_step_count=40)
