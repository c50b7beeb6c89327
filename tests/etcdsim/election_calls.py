"""Elections and locks, told to the simulator and to a real etcd alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from etcdsim import services, wire

TIMEOUT_S = 20.0
NAME = b"chair"
ONE, TWO, THREE = 0x71, 0x72, 0x73  # leases


class Election:
    """A client of one server."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def begin(self, method: wire.Method, **fields: Any) -> Any:
        call = self._channel.unary_unary(method.path)
        return call.future(method.request(**fields).SerializeToString(), timeout=TIMEOUT_S)

    def end(self, method: wire.Method, call: Any) -> Any:
        """The answer, without what is the server's own, or the code and the text."""
        try:
            return settled(method.response.FromString(call.result()))
        except grpc.RpcError as error:
            return error.code().name, error.details()

    def ask(self, method: wire.Method, **fields: Any) -> Any:
        return self.end(method, self.begin(method, **fields))

    def observe(self, name: bytes) -> Any:
        request = services.OBSERVE.request(name=name).SerializeToString()
        return self._channel.unary_stream(services.OBSERVE.path)(request, timeout=TIMEOUT_S)

    def until_waiting(self, count: int) -> None:
        """Until so many have a key below the name; each call is a round trip."""
        asked = wire.RangeRequest(key=NAME + b"/", range_end=NAME + b"0", count_only=True)
        call = self._channel.unary_unary(wire.RANGE.path)
        for _ in range(2000):
            if wire.RangeResponse.FromString(call(asked.SerializeToString())).count == count:
                return
        raise AssertionError(f"never {count} of them")


def settled(answer: Any) -> Any:
    for name in ("cluster_id", "member_id", "raft_term"):
        answer.header.ClearField(name)
    return answer


def seen(observers: list[Any]) -> list[Any]:
    """What each is told next. The header depends on when it is."""
    return [services.OBSERVE.response.FromString(next(call)).kv for call in observers]


def leader(lease: int, rev: int, name: bytes = NAME) -> dict[str, Any]:
    return {"name": name, "key": b"%s/%x" % (name, lease), "rev": rev, "lease": lease}


def story(channel: Any) -> Iterator[Any]:
    """What came of each call."""
    it = Election(channel)
    for lease in (ONE, TWO, THREE):
        yield it.ask(services.LEASE_GRANT, ID=lease, TTL=500)
    # Without anybody there.
    yield it.ask(services.LEADER, name=NAME)
    yield it.ask(services.LEADER)
    yield it.ask(services.PROCLAIM, value=b"x")
    yield it.ask(services.RESIGN)
    yield it.ask(services.PROCLAIM, leader=leader(ONE, 2), value=b"x")
    yield it.ask(services.RESIGN, leader=leader(ONE, 2))
    yield it.ask(services.PROCLAIM, leader={}, value=b"x")
    yield it.ask(services.RESIGN, leader={})
    yield it.ask(services.CAMPAIGN, name=NAME, lease=99, value=b"x")
    yield it.ask(services.LOCK, name=b"lock", lease=99)
    # One observes from before the first, one the first as he leads.
    observers = [it.observe(NAME)]
    yield it.ask(services.CAMPAIGN, name=NAME, lease=ONE, value=b"one")
    rev = wire.RangeResponse.FromString(
        channel.unary_unary(wire.RANGE.path)(wire.RangeRequest(key=b"x").SerializeToString())
    ).header.revision
    observers.append(it.observe(NAME))
    yield seen(observers)
    yield it.ask(services.LEADER, name=NAME)
    yield it.ask(services.CAMPAIGN, name=NAME, lease=ONE, value=b"one")
    yield it.ask(services.CAMPAIGN, name=NAME, lease=ONE, value=b"again")
    yield seen(observers)
    yield it.ask(services.PROCLAIM, leader=leader(ONE, rev), value=b"news")
    yield seen(observers)
    yield it.ask(services.PROCLAIM, leader=leader(ONE, rev + 1), value=b"wrong")
    yield it.ask(services.LEADER, name=NAME)
    # Two more wait; the second of them gives up, then the first leads.
    second = it.begin(services.CAMPAIGN, name=NAME, lease=TWO, value=b"two")
    it.until_waiting(2)
    third = it.begin(services.CAMPAIGN, name=NAME, lease=THREE, value=b"three")
    it.until_waiting(3)
    third.cancel()
    it.until_waiting(2)
    yield it.ask(services.PROCLAIM, leader=leader(TWO, rev + 3), value=b"not yet")
    yield it.ask(services.LEADER, name=NAME)
    yield it.ask(services.RESIGN, leader=leader(ONE, rev))
    yield seen(observers)
    yield it.end(services.CAMPAIGN, second)
    yield it.ask(services.LEADER, name=NAME)
    yield it.ask(services.RESIGN, leader=leader(ONE, rev))
    # The end of his lease is the end of a leader.
    yield it.ask(services.LEASE_REVOKE, ID=TWO)
    yield it.ask(services.LEADER, name=NAME)
    yield it.ask(services.CAMPAIGN, name=NAME, lease=THREE)
    yield seen(observers)
    for call in observers:
        call.cancel()
