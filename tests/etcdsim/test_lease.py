"""Leases: the lessor against a naive one, and the Lease service over gRPC on loopback."""

from __future__ import annotations

import itertools
import queue
from typing import Any

import grpc
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from etcdsim import services, wire
from etcdsim.errors import ErrLeaseExist, ErrLeaseNotFound, ErrLeaseTTLTooLarge
from etcdsim.lease import TTL_MAX_S, Lessor
from etcdsim.model import Model
from etcdsim.txn import DeleteRange, Put
from tests.etcdsim.served import Client, Served, client

IDS = st.integers(1, 4)
KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])


class LessorMachine(RuleBasedStateMachine):
    """A model with a lessor beside two plain dictionaries: key -> lease, lease -> (TTL, end)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.lessor = Lessor(lambda: self.now, itertools.count(1).__next__)
        self.model = Model(self.lessor)
        self.leases: dict[int, tuple[int, float]] = {}
        self.held: dict[bytes, int] = {}

    @rule(ttl=st.integers(-1, 9), lease=st.integers(0, 4))
    def grant(self, ttl: int, lease: int) -> None:
        if lease in self.leases:
            with pytest.raises(ErrLeaseExist):
                self.lessor.grant(ttl, lease)
            return
        granted = self.lessor.grant(ttl, lease)
        assert granted.lease_id not in self.leases
        assert lease in (0, granted.lease_id)
        assert granted.ttl_s == max(2, ttl)
        self.leases[granted.lease_id] = (granted.ttl_s, self.now + granted.ttl_s)

    @rule(key=KEYS, lease=st.integers(0, 4))
    def put(self, key: bytes, lease: int) -> None:
        if lease and lease not in self.leases:
            with pytest.raises(ErrLeaseNotFound):
                self.model.put(key, b"", lease)
            return
        self.model.put(key, b"", lease)
        self.held[key] = lease

    @precondition(lambda self: self.held)
    @rule(data=st.data(), lease=st.integers(0, 4))
    def put_with_the_same(self, data: st.DataObject, lease: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.model.do_put(Put(key, b"1", ignore_lease=True))

    @rule(key=KEYS, end=KEYS)
    def delete(self, key: bytes, end: bytes) -> None:
        self.model.delete_range(key, end)
        self.held = {held: lease for held, lease in self.held.items() if not key <= held < end}

    @rule(keys=st.lists(KEYS, unique=True, min_size=1), lease=st.integers(0, 4), gone=KEYS)
    def txn(self, keys: list[bytes], lease: int, gone: bytes) -> None:
        keys = [key for key in keys if key != gone]
        ops = [*(Put(key, b"", lease) for key in keys), DeleteRange(gone)]
        if keys and lease and lease not in self.leases:
            with pytest.raises(ErrLeaseNotFound):
                self.model.txn((), ops)
            return
        self.model.txn((), ops)
        self.held.update(dict.fromkeys(keys, lease))
        self.held.pop(gone, None)

    @rule(lease=IDS)
    def revoke(self, lease: int) -> None:
        if lease not in self.leases:
            with pytest.raises(ErrLeaseNotFound):
                self.lessor.revoke(lease)
            return
        self._revoke(lease)

    def _revoke(self, lease: int) -> None:
        keys = sorted(key for key, holder in self.held.items() if holder == lease)
        assert self.lessor.revoke(lease) == keys
        before = self.model.revision
        self.model.delete_keys(keys)
        assert self.model.revision == before + bool(keys)
        assert [kv.key for kv in self.model.records_at(before + 1)] == keys if keys else True
        del self.leases[lease]
        self.held = {key: holder for key, holder in self.held.items() if holder != lease}

    @rule(lease=IDS)
    def keep_alive(self, lease: int) -> None:
        ttl, end = self.leases.get(lease, (0, 0.0))
        alive = end > self.now
        assert self.lessor.keep_alive(lease) == (ttl if alive else 0)
        if alive:
            self.leases[lease] = (ttl, self.now + ttl)

    @rule(seconds=st.integers(1, 12).map(lambda quarters: quarters / 4))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(limit=st.integers(1, 3))
    def expire(self, limit: int) -> None:
        over = [lease for lease, (_, end) in self.leases.items() if end <= self.now]
        expired = self.lessor.expired(limit)
        assert len(expired) == min(limit, len(over))
        assert set(expired) <= set(over)
        for lease in expired:
            self._revoke(lease)

    @invariant()
    def agree(self) -> None:
        assert {lease.lease_id for lease in self.lessor.leases()} == self.leases.keys()
        ends = [self.leases[lease.lease_id][1] for lease in self.lessor.leases()]
        assert ends == sorted(ends)
        for lease in range(1, 9):
            assert (lease in self.lessor) == (lease in self.leases)
            found = self.lessor.time_to_live(lease)
            ttl, end = self.leases.get(lease, (0, 0.0))
            assert (found is None) == (end <= self.now)
            if found is not None:
                assert found[0] == int(end - self.now)
                assert found[1].ttl_s == ttl
                assert found[1].keys == {k for k, holder in self.held.items() if holder == lease}
        assert {kv.key: kv.lease for kv in self.model.range(b"\0", b"\0").kvs} == self.held


TestLessor = LessorMachine.TestCase
TestLessor.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_longest_ttl() -> None:
    lessor = Lessor(lambda: 0.0, lambda: 5)
    with pytest.raises(ErrLeaseTTLTooLarge):
        lessor.grant(TTL_MAX_S + 1)
    assert lessor.grant(TTL_MAX_S).ttl_s == TTL_MAX_S


def refusal(etcd: Client, method: wire.Method, **fields: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        etcd.ask(method, **fields)
    return error.value.code().name, error.value.details()


def test_the_recorded_conversation() -> None:
    """What `probe-3.5.30.txt` has of leases."""
    with Served() as served, client(served.endpoint) as etcd:
        first = etcd.ask(services.LEASE_GRANT, TTL=1)
        assert (first.TTL, first.ID > 0, first.header.revision) == (2, True, 1)
        assert etcd.ask(services.LEASE_GRANT, TTL=100, ID=77).TTL == 100
        assert refusal(etcd, services.LEASE_GRANT, TTL=100, ID=77) == (
            "FAILED_PRECONDITION",
            "etcdserver: lease already exists",
        )
        for ttl, lease in ((0, 78), (-1, 79)):
            assert etcd.ask(services.LEASE_GRANT, TTL=ttl, ID=lease).TTL == 2
        assert refusal(etcd, services.LEASE_GRANT, TTL=9_000_000_001) == (
            "OUT_OF_RANGE",
            "etcdserver: too large lease TTL",
        )
        assert refusal(etcd, wire.PUT, key=b"L", lease=4711) == (
            "NOT_FOUND",
            "etcdserver: requested lease not found",
        )
        etcd.put(b"L2", b"", lease=77)
        etcd.put(b"L1", b"", lease=77)
        found = etcd.ask(services.LEASE_TIME_TO_LIVE, ID=77, keys=True)
        assert (found.ID, found.TTL, found.grantedTTL) == (77, 99, 100)
        assert sorted(found.keys) == [b"L1", b"L2"]
        assert not etcd.ask(services.LEASE_TIME_TO_LIVE, ID=77).keys
        missing = etcd.ask(services.LEASE_TIME_TO_LIVE, ID=9999)
        assert (missing.ID, missing.TTL, missing.grantedTTL) == (9999, -1, 0)
        leases = [status.ID for status in etcd.ask(services.LEASE_LEASES).leases]
        assert leases == [first.ID, 78, 79, 77]
        stream = etcd.stream(services.LEASE_KEEP_ALIVE)
        for lease in (77, 9999):
            stream.send(services.LEASE_KEEP_ALIVE.request(ID=lease))
        answers = [stream.next() for _ in range(2)]
        assert [(a.ID, a.TTL, a.header.revision) for a in answers] == [(77, 100, 3), (9999, 0, 3)]
        stream.half_close()
        assert stream.end() == ("OK", "")
        etcd.put(b"L2", b"")
        assert etcd.ask(services.LEASE_TIME_TO_LIVE, ID=77, keys=True).keys == [b"L1"]
        assert etcd.ask(services.LEASE_REVOKE, ID=77).header.revision == 5
        assert refusal(etcd, services.LEASE_REVOKE, ID=77)[0] == "NOT_FOUND"
        assert etcd.ask(wire.RANGE, key=b"L", range_end=b"M").kvs[0].key == b"L2"


def test_a_lease_that_ends_deletes_its_keys_in_one_revision() -> None:
    with Served() as served, client(served.endpoint) as etcd:
        etcd.ask(services.LEASE_GRANT, TTL=2, ID=5)
        etcd.ask(services.LEASE_GRANT, TTL=60, ID=6)
        etcd.put(b"b", b"", lease=5)
        etcd.put(b"a", b"", lease=5)
        etcd.put(b"c", b"", lease=6)
        stream = etcd.stream()
        stream.create(b"a", b"z")
        stream.next()
        with pytest.raises(queue.Empty):
            stream.next(1.5)
        response = stream.next(3)
        assert [(e.type, e.kv.key, e.kv.mod_revision) for e in response.events] == [
            (wire.Event.DELETE, b"a", 5),
            (wire.Event.DELETE, b"b", 5),
        ]
        assert [status.ID for status in etcd.ask(services.LEASE_LEASES).leases] == [6]
        stream.close()
