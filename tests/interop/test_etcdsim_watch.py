"""etcdsim's Watch and Lease beside those of a real etcd of the same version.

Random traffic and random watches go to both; each watch must see the same events, in the same
order, no revision split. How events are cut into responses is timing, and isn't compared.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from btreecache.sources.etcd import EtcdSource
from etcdsim import services, wire
from tests.etcdsim.served import Client, Conversation, Served, client
from tests.interop.conftest import etcd_binary
from tests.interop.etcd_server import EtcdServer, Writer
from tests.source.contract import PAGE_KEYS, SourceContract

pytestmark = pytest.mark.interop

EMULATED = {"3.4": "3.4.23", "3.5": "3.5.30"}
STEPS = int(os.environ.get("ETCDSIM_WATCH_STEPS", "400"))
LEASES = (1, 2, 3)
WATCHES_MAX = 60


class Side:
    """One of the two servers: a client, a stream of watches, and what each watch got.

    A watch is called by the number of its creation: the ids of etcd are compared, not relied on.
    """

    def __init__(self, etcd: Client) -> None:
        self.etcd = etcd
        self.stream: Conversation = etcd.stream()
        self.answers: list[str] = []
        self.events: dict[int, list[str]] = {}
        self.ends: dict[int, str] = {}
        self._last: dict[int, int] = {}
        self._parts: set[int] = set()

    def create(self, request: Any) -> int | None:
        """The id of the new watch, None if it can't be; waits for the answer."""
        self.stream.send(wire.WatchRequest(create_request=request))
        return self._answer(lambda response: response.created)

    def cancel(self, watch_id: int) -> None:
        self.stream.cancel_watch(watch_id)
        self._answer(lambda response: response.canceled and not response.compact_revision)
        self.events[-len(self.answers) - 1] = self.events.pop(watch_id, [])
        self._last.pop(watch_id, None)

    def _answer(self, is_it: Callable[[Any], bool]) -> int | None:
        while True:
            response = self.stream.next()
            if is_it(response):
                break
            self.take(response)
        text = f"{response.watch_id} {response.canceled} {response.cancel_reason!r}"
        self.answers.append(f"{text} at {response.header.revision}")
        if response.canceled:
            return None
        self.events[response.watch_id] = []
        self._last[response.watch_id] = 0
        return int(response.watch_id)

    def take(self, response: Any) -> None:
        watch_id = response.watch_id
        if response.canceled:
            self.ends[watch_id] = f"{response.compact_revision} {response.header.revision}"
            return
        revisions = [event.kv.mod_revision for event in response.events]
        assert revisions == sorted(revisions)
        last = self._last[watch_id]
        # A revision that comes in two responses is split, unless the first was a fragment.
        assert last < revisions[0] or (watch_id in self._parts and last == revisions[0])
        self._last[watch_id] = revisions[-1]
        (self._parts.add if response.fragment else self._parts.discard)(watch_id)
        self.events[watch_id] += [" ".join(str(event).split()) for event in response.events]

    def drain(self, seconds: float) -> None:
        while (response := self.stream.poll(seconds)) is not None:
            self.take(response)

    def state(self) -> tuple[Any, ...]:
        return self.answers, self.events, self.ends


def settle(sides: tuple[Side, Side]) -> None:
    """Until both have the same and nothing more comes."""
    deadline = time.monotonic() + 10
    while True:
        for side in sides:
            side.drain(0.15)
        if sides[0].state() == sides[1].state() or time.monotonic() > deadline:
            break
    assert sides[0].answers == sides[1].answers
    assert sides[0].events == sides[1].events
    assert sides[0].ends == sides[1].ends


class Traffic:
    """The same seeded requests to both sides."""

    def __init__(self, random: Random, sides: tuple[Side, Side]) -> None:
        self.random, self.sides = random, sides
        self.revision, self.compacted = 1, 0
        self.watches: list[int] = []

    def both(self, method: wire.Method, **fields: Any) -> Any:
        first, second = (side.etcd.ask(method, **fields) for side in self.sides)
        assert first.header.revision == second.header.revision
        self.revision = first.header.revision
        return first

    def key(self) -> bytes:
        return b"k/%x" % self.random.randrange(24)

    def put(self) -> None:
        lease = self.random.choice((0, 0, *LEASES))
        value = b"%d" % self.random.randrange(1000)
        self.both(wire.PUT, key=self.key(), value=value, lease=lease)

    def delete(self) -> None:
        end = self.random.choice((b"", self.key()))
        self.both(wire.DELETE_RANGE, key=self.key(), range_end=end)

    def txn(self) -> None:
        keys = {self.key() for _ in range(self.random.randrange(1, 6))}
        ops = [
            wire.RequestOp(request_delete_range=wire.DeleteRangeRequest(key=key))
            if self.random.random() < 0.3
            else wire.RequestOp(request_put=wire.PutRequest(key=key, value=b"t"))
            for key in sorted(keys)
        ]
        self.both(wire.TXN, success=ops)

    def lease(self) -> None:
        lease = self.random.choice(LEASES)
        self.both(services.LEASE_REVOKE, ID=lease)
        self.both(services.LEASE_GRANT, TTL=100_000, ID=lease)

    def compact(self) -> None:
        settle(self.sides)  # who is behind or not when it comes is timing
        self.compacted = self.random.randint(self.compacted + 1, self.revision)
        self.both(wire.COMPACT, revision=self.compacted, physical=True)
        if self.compacted == self.revision:
            self.put()

    def watch(self) -> None:
        key = self.random.choice((b"", b"k/", self.key()))
        # A negative start before the first compaction makes 3.4 lose the history that any other
        # watch is to get at that time: it searches its backend from a key behind all others.
        negative = -1 if self.compacted else 1
        start = self.random.choice((0, 0, negative, 1, self.revision, self.revision + 3))
        if self.random.random() < 0.5:
            start = self.random.randint(max(1, self.compacted - 3), self.revision + 1)
        request = wire.WatchCreateRequest(
            key=key,
            range_end=self.random.choice((b"", b"\0", b"k0", self.key())),
            start_revision=start,
            filters=[kind for kind in (0, 1) if self.random.random() < 0.2],
            prev_kv=self.random.random() < 0.5,
            fragment=self.random.random() < 0.5,
            watch_id=self.random.choice((0, 0, 0, 3, 40, -7)),
        )
        # One that etcd takes for compacted is cancelled when etcd comes round to it.
        ids = [side.create(request) for side in self.sides]
        assert ids[0] == ids[1], request
        if ids[0] is not None:
            self.watches.append(ids[0])
        if len(self.watches) > WATCHES_MAX:
            self.cancel()

    def cancel(self) -> None:
        if self.watches:
            settle(self.sides)
            watch_id = self.watches.pop(self.random.randrange(len(self.watches)))
            for side in self.sides:
                side.cancel(watch_id)
                side.ends.pop(watch_id, None)

    def run(self, steps: int) -> None:
        for lease in LEASES:
            self.both(services.LEASE_GRANT, TTL=100_000, ID=lease)
        actions = [self.put, self.delete, self.txn, self.lease, self.watch]
        weights = [50, 15, 15, 3, 15]
        for step in range(steps):
            if step % 60 == 59:
                self.random.choice((self.compact, self.cancel))()
            else:
                self.random.choices(actions, weights)[0]()
        settle(self.sides)


@pytest.fixture
def emulated(etcd: EtcdServer, request: pytest.FixtureRequest) -> Iterator[Served]:
    version = EMULATED[request.node.callspec.params["etcd"]]
    with Served(version) as served:
        yield served


@pytest.mark.parametrize("seed", [int(s) for s in os.environ.get("SEEDS", "1 2").split()])
def test_the_same_watches(etcd: EtcdServer, emulated: Served, seed: int) -> None:
    with client(etcd.endpoint) as real, client(emulated.endpoint) as simulated:
        sides = Side(real), Side(simulated)
        traffic = Traffic(Random(seed), sides)
        traffic.run(STEPS)
        for side in sides:
            side.stream.close()
        assert sum(map(len, sides[0].events.values())) > STEPS


def conversation(etcd: Client) -> Iterator[Callable[[Conversation], Any]]:
    """Steps on one stream, in turn: what is asked, or written meanwhile."""
    for fields in (
        {"key": b"a", "watch_id": -1},
        {"key": b"a", "watch_id": -5},
        {"key": b"a", "watch_id": -5},
        {"key": b"a", "watch_id": 1},
        {"key": b"a"},
        {"key": b"a"},
        {"key": b"b", "range_end": b"a"},
        {"key": b"b", "range_end": b"b"},
        {"key": b"b", "range_end": b"a", "watch_id": 1},
        {"key": b""},
        {"key": b"", "range_end": b"\0", "watch_id": 50, "filters": [0, 1]},
        {"key": b"", "range_end": b"\0", "watch_id": 51, "filters": [7]},
    ):
        yield lambda stream, fields=fields: stream.create(**fields)  # type: ignore[misc]
    for write in (
        lambda: etcd.put(b"\0", b"1"),
        lambda: etcd.put(b"a", b"1"),
        lambda: etcd.delete(b"a", b"z"),
        lambda: etcd.put(b"a", b"2"),
    ):
        yield lambda _, write=write: write()  # type: ignore[misc]
    yield lambda stream: stream.ask_progress()
    yield lambda stream: stream.cancel_watch(-1)
    yield lambda stream: stream.cancel_watch(99)
    yield lambda stream: stream.send(wire.WatchRequest())
    yield lambda stream: stream.create(b"a", start_revision=100, watch_id=60)
    yield lambda stream: stream.ask_progress()
    yield lambda stream: stream.cancel_watch(60)
    yield lambda _: etcd.compact(4)
    yield lambda stream: stream.create(b"a", start_revision=2, watch_id=70)
    yield lambda stream: stream.create(b"a", start_revision=-2, watch_id=71)
    yield lambda stream: stream.create(b"b", range_end=b"a", start_revision=-2, watch_id=1)
    yield lambda stream: stream.create(b"", b"\0", start_revision=4, prev_kv=True, watch_id=72)
    yield lambda stream: stream.ask_progress()
    yield lambda stream: stream.create(b"a", watch_id=70)
    yield lambda stream: stream.cancel_watch(70)
    yield lambda stream: stream.cancel_watch(71)
    yield lambda stream: stream.ask_progress()
    yield lambda stream: stream.half_close()
    yield lambda _: etcd.put(b"a", b"3")


def test_the_same_answers(etcd: EtcdServer, emulated: Served) -> None:
    """To every odd request, response by response."""
    heard: list[list[list[str]]] = []
    for endpoint in (etcd.endpoint, emulated.endpoint):
        with client(endpoint) as one:
            stream, steps = one.stream(), []
            for step in conversation(one):
                step(stream)
                responses: list[str] = []
                # What etcd has answered is waited for; of etcd nobody knows how much will come.
                wanted = len(heard[0][len(steps)]) if heard else 0
                while response := stream.poll(10 if len(responses) < wanted else 0.25):
                    revision = response.header.revision
                    response.ClearField("header")
                    responses.append(f"{revision} " + " ".join(str(response).split()))
                steps.append(sorted(responses))  # between watches there is no order
            stream.close()
            heard.append(steps)
    for number, (real, simulated) in enumerate(zip(*heard, strict=True)):
        assert simulated == real, number


class EtcdsimBench(Writer):
    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.source = EtcdSource(endpoint, page_keys=PAGE_KEYS)


@pytest.fixture(params=sorted(EMULATED.values()))
def bench(request: pytest.FixtureRequest) -> Iterator[EtcdsimBench]:
    with Served(request.param) as served, EtcdsimBench(served.endpoint) as bench:
        yield bench
        bench.source.close()


class TestEtcdSource(SourceContract):
    """Our own client on etcdsim, as test_etcd_source.py has it on etcd."""


def etcdctl(endpoint: str, *arguments: str) -> str:
    run = subprocess.run(
        [str(binary()), f"--endpoints={endpoint}", *arguments],
        env={**os.environ, "ETCDCTL_API": "3"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return run.stdout + "".join(
        line for line in run.stderr.splitlines(True) if not line.startswith("{")
    )


def binary() -> Path:
    return etcd_binary("3.5").with_name("etcdctl")


def watched(endpoint: str, arguments: list[str], write: Callable[[], None], lines: int) -> str:
    """What `etcdctl watch` prints of what `write` does."""
    process = subprocess.Popen(
        [str(binary()), f"--endpoints={endpoint}", "watch", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        time.sleep(0.5)
        write()
        return "".join(process.stdout.readline() for _ in range(lines))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()


def test_etcdctl(data_dir: Path) -> None:
    """The watch and lease commands print the same on both."""
    if not binary().exists():
        pytest.skip("no etcdctl beside etcd 3.5")
    printed: list[list[str]] = []
    with EtcdServer(etcd_binary("3.5"), data_dir) as etcd, Served("3.5.30") as served:
        for endpoint in (etcd.endpoint, served.endpoint):
            with client(endpoint) as writer:
                ask = writer.ask
                ask(services.LEASE_GRANT, TTL=500, ID=0x4D2)
                ask(services.LEASE_GRANT, TTL=900, ID=0x929)
                lines = [
                    etcdctl(endpoint, "put", "a", "1", "--lease=4d2"),
                    etcdctl(endpoint, "put", "b", "1", "--lease=4d2"),
                    etcdctl(endpoint, "lease", "list"),
                    etcdctl(endpoint, "lease", "keep-alive", "--once", "4d2"),
                    etcdctl(endpoint, "lease", "timetolive", "4d2", "--keys")
                    .replace("[b a]", "[a b]")
                    .replace("500s", "499s"),
                    etcdctl(endpoint, "lease", "timetolive", "77"),
                    etcdctl(endpoint, "lease", "keep-alive", "--once", "77"),
                    etcdctl(endpoint, "put", "c", "1", "--lease=77"),
                    watched(
                        endpoint,
                        ["--prefix", "", "--prev-kv"],
                        lambda ask=ask: (  # type: ignore[misc]
                            ask(wire.PUT, key=b"w", value=b"1"),
                            ask(wire.PUT, key=b"w", value=b"2"),
                            ask(wire.DELETE_RANGE, key=b"w"),
                        ),
                        13,
                    ),
                    watched(endpoint, ["w", "--rev=4"], lambda: None, 9),
                    etcdctl(endpoint, "lease", "revoke", "4d2"),
                    etcdctl(endpoint, "lease", "revoke", "4d2"),
                    etcdctl(endpoint, "get", "--prefix", ""),
                    etcdctl(endpoint, "compaction", "6"),
                    etcdctl(endpoint, "watch", "w", "--rev=2"),
                ]
                printed.append(lines)
    assert printed[1] == printed[0]
