"""Faults on the wire: for each one what a client sees, and that the store behind knows of none."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from etcdsim import services, wire
from etcdsim.faults import FAULTS
from etcdsim.model import KeyValue
from etcdsim.server.wire_faults import MIXES, SERVED_FAULTS, WIRE_FAULTS, WireFaults, parse_rates
from etcdsim.txn import DeleteRange, Put, Txn
from tests.etcdsim.served import Client, Conversation, FaultyServed, client

ETCDSIM = Path(__file__).parents[2] / "docs/etcdsim.md"
LAST = 8
WATCHES_MAX = 20


@contextlib.contextmanager
def faulty(rates: dict[str, float], seed: int = 0) -> Iterator[tuple[FaultyServed, Client]]:
    with FaultyServed(rates, seed) as served, client(served.endpoint) as etcd:
        yield served, etcd


class Watching:
    """A client that watches everything, again as often as its watch is ended, and writes down what
    it gets while eight revisions come to be.

    `2:a` an event, with `-` a delete, with `!` one that never was; `M2` a mark; `X` the end of the
    watch, `X7` with the revision that all was compacted to. One word a response.
    """

    def __init__(self, served: FaultyServed, stream: Conversation) -> None:
        self._served, self._stream = served, stream
        self._seen = 1
        self.words: list[str] = []

    def run(self) -> str:
        """What it got by the time that it has seen the last revision, or was told of it."""
        watch_id = self._create()
        self._served.do(lambda: write(self._served))
        for _ in range(WATCHES_MAX):
            if self._reaches_end():
                self._stream.cancel_watch(watch_id)
                while not (response := self._stream.next()).canceled:
                    self._note(response)
                break
            self._stream.cancel_watch(watch_id)
            assert self._stream.next().canceled
            if self._seen == LAST:  # nobody marks a watch that begins later
                break
            watch_id = self._create()
            self._stream.ask_progress()
        return " ".join(self.words)

    def _create(self) -> int:
        self._stream.create(b"\0", b"\0", start_revision=self._seen + 1)
        created = self._stream.next()
        assert (created.created, created.canceled) == (True, False)
        return int(created.watch_id)

    def _reaches_end(self) -> bool:
        while True:
            response = self._stream.next()
            self._note(response)
            if response.canceled:
                return False
            if not response.events and response.header.revision == LAST:
                return True

    def _note(self, response: Any) -> None:
        compacted = response.compact_revision
        if response.canceled:
            self._seen = max(self._seen, compacted - 1)
            self.words.append(f"X{compacted or ''}")
        elif not response.events:
            self.words.append(f"M{response.header.revision}")
        else:
            self.words.append("+".join(map(self._event, response.events)))

    def _event(self, event: Any) -> str:
        kv = event.kv
        self._seen = max(self._seen, kv.mod_revision)
        said = KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
        true = any(said in self._records(revision) for revision in range(2, 9))
        sign = "-" if event.type == wire.Event.DELETE else ""
        return f"{kv.mod_revision}:{sign}{kv.key.decode()}{'' if true else '!'}"

    def _records(self, revision: int) -> list[KeyValue]:
        model = self._served.member.model
        return [event.kv for event in model.events_at(revision, b"\0", b"\0", False)]


def mark(served: FaultyServed) -> None:
    """Answer a request for progress on every stream. On the loop."""
    for stream in served.hub.streams:
        stream._mark_all()


def write(served: FaultyServed) -> None:
    """Seven revisions, 2 to 8, with a mark behind 4 and one at the end. On the loop."""
    model = served.member.model
    steps: list[Callable[[], Any]] = [
        lambda: model.put(b"a", b"1"),
        lambda: model.put(b"b", b"1"),
        lambda: model.do_txn(Txn([], [Put(b"a", b"2"), Put(b"c", b"1")], [])),
        lambda: mark(served),
        lambda: model.delete_range(b"b", b""),
        lambda: model.put(b"b", b"2"),
        lambda: model.do_txn(Txn([], [DeleteRange(b"a"), Put(b"c", b"3")], [])),
        lambda: model.put(b"d", b"1"),
        lambda: mark(served),
    ]
    for step in steps:
        step()
        served.member.tell()
    assert model.revision == LAST


#: What the same seven revisions come to where each fault strikes whatever it can touch, and how
#: often it has.
TOLD = {
    "none": ("2:a+3:b+4:a+4:c M4 5:-b+6:b+7:-a+7:c+8:d M8", 0),
    "drop": ("M4 M8", 9),
    "reorder": ("3:b 2:a 4:a+4:c M4 6:b 5:-b 8:d 7:-a+7:c M8", 3),
    "split": ("2:a 3:b 4:a 4:c M4 5:-b 6:b 7:-a 7:c 8:d M8", 2),
    "duplicate": (
        "2:a 2:a 3:b 3:b 4:a+4:c 4:a+4:c M4 5:-b 5:-b 6:b 6:b 7:-a+7:c 7:-a+7:c 8:d 8:d M8",
        7,
    ),
    "corrupt_value": ("2:a! 3:b! 4:a!+4:c! M4 5:-b 6:b! 7:-a+7:c! 8:d! M8", 7),
    "corrupt_revision": ("2:a! 4:b! 4:a!+4:c! M4 11:-b! 2:b! 1:-a!+14:c! 16:d! M8", 9),
    "duplicate_revision": ("2:a 2:b! 2:a!+2:c! M4 2:-b! 2:b! 2:-a!+2:c! 2:d! M8", 6),
    "delay": ("2:a 3:b 4:a+4:c M4 5:-b 6:b 7:-a+7:c 8:d M8", 2),
    # The second mark comes because nothing that it waits for does; then it doesn't count.
    "late_progress": ("2:a 3:b 4:a+4:c M4 5:-b 6:b 7:-a+7:c 8:d M8", 1),
    "early_progress": ("M2 2:a M3 3:b M4 4:a+4:c M4 M5 5:-b M6 6:b M7 7:-a+7:c M8 8:d M8", 7),
    "cancel": ("2:a X 3:b X 4:a+4:c X 5:-b X 6:b X 7:-a+7:c X 8:d X", 7),
    "compact_race": ("X3 X4 X5 X6 X7 X8 8:d M8", 6),
    "restart_at_older_revision": ("2:a 3:b X 2:a!+2:c! 5:-b 6:b X 5:-a!+5:c! 8:d M8", 2),
    "lost_delete_at_compaction": ("2:a 3:b 4:a+4:c M4 X 6:b X 7:c 8:d M8", 2),
    "etcd_15220": ("M4 2:a 3:b 4:a+4:c M8 5:-b 6:b 7:-a+7:c 8:d", 2),
    "etcd_15271": ("2:a 3:b X 3:b 4:a+4:c 5:-b 6:b X 5:-b 6:b 7:-a+7:c 8:d M8", 3),
    "etcd_17529": ("M4 M8", 7),
    "etcd_20221": ("2:a 3:b X M2 4:a+4:c 5:-b 6:b X M5 7:-a+7:c 8:d M8", 2),
}
TOLD["etcd_17247"] = TOLD["duplicate"]
TOLD["etcd_18089"] = TOLD["lost_delete_at_compaction"]


@pytest.mark.parametrize("name", ["none", *(name for name in FAULTS if name != "stale")])
def test_what_a_watch_is_told(name: str) -> None:
    rates = {} if name == "none" else {name: 1.0}
    with faulty(rates) as (served, etcd), client(served.truth) as true:
        words = Watching(served, etcd.stream()).run()
        assert (words, served.injected().get(name, 0)) == TOLD[name]
        # Beside it the truth goes on.
        assert true.ask(wire.RANGE, key=b"a", revision=2).kvs[0].value == b"1"
        stream = true.stream()
        stream.create(b"a", start_revision=2)
        assert stream.next().created
        events = [event.kv.mod_revision for event in stream.next().events]
        assert events == [2, 4, 7]


def test_what_was_compacted_for_a_watch_is_so_for_every_read() -> None:
    with faulty({"compact_race": 1.0}) as (served, etcd):
        Watching(served, etcd.stream()).run()
        txn = {"success": [wire.RequestOp(request_range=wire.RangeRequest(key=b"a", revision=7))]}
        for method, fields in ((wire.RANGE, {"key": b"a", "revision": 7}), (wire.TXN, txn)):
            with pytest.raises(grpc.RpcError) as refused:
                etcd.ask(method, **fields)
            assert refused.value.code().name == "OUT_OF_RANGE"
            text = "etcdserver: mvcc: required revision has been compacted"
            assert refused.value.details() == text
        assert etcd.ask(wire.RANGE, key=b"c", revision=8).kvs[0].mod_revision == 7
        stream = etcd.stream()
        stream.create(b"a", start_revision=7)
        assert stream.next().created
        assert stream.next().compact_revision == 8


def test_stale_answers_as_of_before() -> None:
    with faulty({"stale": 1.0}) as (served, etcd), client(served.truth) as true:
        for number in range(1, 41):
            true.put(b"a", b"%d" % number)
        revisions = set()
        for _ in range(10):
            answer = etcd.ask(wire.RANGE, key=b"a")
            # The state of the revision that it names, 1 to 20 ago.
            assert answer.kvs[0].value == b"%d" % (answer.header.revision - 1)
            assert 21 <= answer.header.revision <= 40
            revisions.add(answer.header.revision)
        assert len(revisions) > 1
        assert served.injected() == {"stale": 10}
        assert etcd.ask(wire.RANGE, key=b"a", revision=41).header.revision == 41


def failure(etcd: Client, method: wire.Method, **fields: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as failed:
        etcd.ask(method, **fields)
    return failed.value.code().name, failed.value.details()


@pytest.mark.parametrize("name", ["unavailable", "reset"])
def test_a_call_that_fails_was_done_or_not(name: str) -> None:
    with faulty({name: 1.0}) as (served, _), client(served.truth) as true:
        said = set()
        for number in range(30):
            with client(served.endpoint) as etcd:  # a connection that is whole
                said.add(failure(etcd, wire.PUT, key=b"%d" % number))
        done = true.ask(wire.RANGE, key=b"\0", range_end=b"\0").count
        assert 5 < done < 25
        assert served.injected() == {name: 30}
    assert {code for code, _ in said} == {"UNAVAILABLE"}
    texts = {text for _, text in said}
    if name == "unavailable":
        assert texts == {
            "etcdserver: no leader",
            "etcdserver: leader changed",
            "etcdserver: request timed out",
            "etcdserver: request timed out, possibly due to previous leader failure",
            "etcdserver: request timed out, possibly due to connection lost",
        }
    else:
        # The kernel's word, and what gRPC says where it read the end first.
        assert all(re.search("(?i)reset|closed|broken pipe|recv", text) for text in texts), texts


@pytest.mark.parametrize("name", ["unavailable", "reset"])
def test_a_stream_that_fails_goes_on_behind(name: str) -> None:
    with faulty({name: 0.3}, seed=1) as (served, etcd), client(served.truth) as true:
        seen, ends = [1], set()
        stream = None
        for revision in range(2, 32):
            true.put(b"a", b"")
            while seen[-1] < revision:
                if stream is None:
                    stream = etcd.stream()
                    stream.create(b"a", start_revision=seen[-1] + 1)
                response = stream.next()
                if response is None:
                    ends.add((stream.call.code().name, stream.call.details()))
                    stream.close()
                    stream = None
                else:
                    seen += [event.kv.mod_revision for event in response.events]
        assert seen == list(range(1, 32))
    assert {code for code, _ in ends} == {"UNAVAILABLE"}
    if name == "unavailable":
        texts = {"etcdserver: no leader", "etcdserver: server stopped"}
        assert {text for _, text in ends} == texts


def test_slow_is_late_and_in_order() -> None:
    with faulty({"slow": 1.0}) as (served, etcd), client(served.truth) as true:
        stream = etcd.stream()
        stream.create(b"a")
        assert stream.next().created
        for number in range(3):
            true.put(b"a", b"%d" % number)
        answers, revisions = 1, list[int]()
        while len(revisions) < 3:
            revisions += [event.kv.mod_revision for event in stream.next().events]
            answers += 1
        assert revisions == [2, 3, 4]
        assert etcd.put(b"b", b"") == 5
        assert served.injected()["slow"] == answers + 1


LED = (("hasleader", "true"),)


def test_a_lost_leader_ends_the_streams_that_want_one() -> None:
    with faulty({}) as (served, etcd):
        led, free = etcd.stream(metadata=LED), etcd.stream()
        for stream in (led, free):
            stream.create(b"a")
            assert stream.next().created
        lease = etcd.ask(services.LEASE_GRANT, TTL=100).ID
        term = etcd.ask(wire.STATUS).raftTerm
        now = served.member.clock()
        served.member.clock = lambda: now  # the moment without a leader lasts until we say so
        served.do(served.faulty.change_leader)
        assert led.end() == ("UNAVAILABLE", "etcdserver: no leader")
        late = etcd.stream(metadata=LED)
        assert late.end() == ("UNAVAILABLE", "etcdserver: no leader")
        changed = ("UNAVAILABLE", "etcdserver: leader changed")
        assert failure(etcd, wire.RANGE, key=b"a") == changed
        timed_out = "etcdserver: request timed out, possibly due to previous leader failure"
        assert failure(etcd, wire.PUT, key=b"a") == ("UNAVAILABLE", timed_out)
        assert etcd.ask(wire.RANGE, key=b"a", serializable=True).header.revision == 1
        assert etcd.ask(wire.STATUS).raftTerm == term + 1
        served.member.clock = time.monotonic
        served.do(lambda: setattr(served.faulty, "_leaderless_until_s", now))
        assert etcd.put(b"a", b"1") == 2
        assert free.next().events[0].kv.key == b"a"
        assert etcd.ask(services.LEASE_TIME_TO_LIVE, ID=lease).TTL >= 98


def test_a_restart_keeps_everything_but_connections() -> None:
    with faulty({}) as (served, etcd):
        etcd.put(b"a", b"1")
        lease = etcd.ask(services.LEASE_GRANT, TTL=100).ID
        stream = etcd.stream()
        stream.create(b"a", start_revision=2)
        assert stream.next().created
        assert stream.next().events[0].kv.mod_revision == 2
        endpoint = served.endpoint
        served.do(served.faulty.restart)
        assert stream.end()[0] == "UNAVAILABLE"
        with socket.socket() as probe:
            host, _, port = endpoint.rpartition(":")
            assert probe.connect_ex((host, int(port))) != 0
        assert etcd.put(b"a", b"2") == 3  # waits until it is back
        assert etcd.ask(wire.STATUS).raftTerm == 3
        assert etcd.ask(services.LEASE_TIME_TO_LIVE, ID=lease).TTL >= 98
        stream = etcd.stream()
        stream.create(b"a", start_revision=3)
        assert stream.next().created
        assert stream.next().events[0].kv.mod_revision == 3


@pytest.mark.parametrize("name", WIRE_FAULTS)
def test_a_rate_above_0_strikes_once_at_least(name: str) -> None:
    with faulty({name: 1e-12}, seed=3) as (served, etcd):
        for _ in range(40):
            with contextlib.suppress(grpc.RpcError):
                etcd.put(b"a", b"")
        assert served.injected() == {name: 1}


def test_a_seed_strikes_the_same_calls() -> None:
    def struck(seed: int) -> list[tuple[bool, ...]]:
        found = []
        with faulty({"unavailable": 0.3, "drop": 0.3}, seed) as (_, etcd):
            stream = etcd.stream()
            for _ in range(20):
                try:
                    etcd.put(b"a", b"")
                    found.append((True,))
                except grpc.RpcError:
                    found.append((False,))
            stream.close()
        return found

    assert struck(1) == struck(1) != struck(2)


def test_watches_of_one_stream_are_struck_apart() -> None:
    """A mark for all that one of them must wait for goes to the others under their own ids."""
    with faulty({"late_progress": 1.0}) as (served, etcd):
        stream = etcd.stream()
        for key in (b"a", b"b"):
            stream.create(key, start_revision=2)
            assert stream.next().created
        etcd.put(b"a", b"")
        assert stream.next().watch_id == 0
        served.do(lambda: mark(served))  # held for both
        etcd.put(b"a", b"")
        got = [(one.watch_id, len(one.events)) for one in (stream.next() for _ in range(3))]
        assert got == [(0, 0), (0, 1), (1, 0)]


def test_what_a_fault_left_behind_is_for_who_goes_on_there() -> None:
    with faulty({"etcd_15271": 1.0}) as (served, etcd):
        stream = etcd.stream()
        stream.create(b"a", b"c", start_revision=2)
        assert stream.next().created
        served.do(lambda: write(served))
        while not (response := stream.next()).canceled:
            seen = response.events[-1].kv.mod_revision
        other = etcd.stream()
        other.create(b"d", start_revision=2)  # neither the range nor the place
        assert other.next().created
        assert [event.kv.key for event in other.next().events] == [b"d"]
        stream.create(b"a", b"c", start_revision=seen + 1)
        while not (response := stream.next()).events:
            pass
        assert response.events[0].kv.mod_revision <= seen


def test_rates_change_under_an_open_watch() -> None:
    with faulty({}) as (served, etcd), client(served.truth) as true:
        stream = etcd.stream()
        stream.create(b"a")
        assert stream.next().created
        true.put(b"a", b"1")
        assert stream.next().header.revision == 2
        served.do(lambda: served.faults.set_rates({"drop": 1.0}))
        true.put(b"a", b"2")
        served.do(lambda: served.faults.set_rates({"drop": 0.0}))
        true.put(b"a", b"3")
        assert stream.next().header.revision == 4
        assert served.injected() == {"drop": 1}


def test_fragments_are_made_behind_the_faults() -> None:
    with faulty({"duplicate": 1.0}) as (served, etcd), client(served.truth) as true:
        for number in range(2):
            puts = [
                wire.RequestOp(request_put=wire.PutRequest(key=b"%d" % n, value=b"v" * 1_000_000))
                for n in (3 * number, 3 * number + 1)
            ]
            for put in puts:
                true.ask(wire.TXN, success=[put])
        served.do(
            lambda: (
                served.member.model.do_txn(
                    Txn([], [Put(b"%d" % n, b"w" * 900_000) for n in range(4)], [])
                )
                and served.member.tell()
            )
        )
        stream = etcd.stream()
        stream.create(b"\0", b"\0", start_revision=6, fragment=True)
        assert stream.next().created
        parts = [stream.next() for _ in range(4)]
        assert [(len(part.events), part.fragment) for part in parts] == [(2, True), (2, False)] * 2


def test_bytes_that_are_none_and_methods_that_are_not() -> None:
    with faulty({"stale": 1.0, "drop": 1.0}) as (_, etcd):
        stream = etcd.stream()
        stream.send(b"\xff\xff")
        assert stream.end()[0] == "INTERNAL"
        method = wire.RANGE._replace(request=_Raw)
        assert failure(etcd, method, data=b"\xff\xff")[0] == "INTERNAL"
        unknown = wire.RANGE._replace(path="/etcdserverpb.KV/Nothing")
        text = "unknown method Nothing for service etcdserverpb.KV"
        assert failure(etcd, unknown) == ("UNIMPLEMENTED", text)


class _Raw:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        return self._data


@pytest.mark.parametrize(
    ("mix", "faults", "message"),
    [
        ("nothing", [], "unknown faults 'nothing': known are flaky, lossy, hostile"),
        (None, ["nothing=1"], "unknown fault 'nothing': known faults are drop,"),
        (None, ["drop"], "fault drop: expected drop=RATE"),
        (None, ["slow=2"], "fault slow: the rate must be from 0 to 1, not 2.0"),
        ("flaky", ["slow=1", "slow=0"], "fault slow is given twice"),
    ],
)
def test_rates_that_are_none(mix: str | None, faults: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_rates(mix, faults)


def test_mixes() -> None:
    assert parse_rates("flaky", ["slow=0", "drop=1"])["slow"] == 0
    for name, rates in MIXES.items():
        faults = WireFaults(rates, 0)
        assert faults.is_on, name
        assert {name for name, rate in faults.rates.items() if rate} == set(rates)
    with pytest.raises(ValueError, match="rate"):
        faults.set_rates({"drop": 0.0, "slow": float("nan")})
    assert faults.rates["drop"] > 0  # all or none


def test_the_simulator_page_names_every_fault_of_the_wire() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| [^|]+ \| [^|]+ \|$", ETCDSIM.read_text(), re.M)
    assert [name for name in rows if name in WIRE_FAULTS] == list(WIRE_FAULTS)
    assert set(rows) >= set(SERVED_FAULTS)
    for mix in MIXES:
        assert re.search(rf"`{mix}`", ETCDSIM.read_text())
