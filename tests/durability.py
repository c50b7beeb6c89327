"""`etcdsim serve --data-dir` killed while clients write: what was acknowledged or seen is there.

Clients write at full speed, a watcher sees everything, and at a random instant the server gets
SIGKILL; several times over one directory. Each time it must tell one history again: every
acknowledged write at its revision, everything that the watcher saw, nothing that was never asked
for, nothing twice; and its state must be what that history comes to. By hand:

    python -m tests.durability --seeds 0:500 --out durability.jsonl

writes a line for each seed when it is done, and passes over those that the file has already.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import grpc

from etcdsim import services, wire
from tests.interop.etcdsim_server import EtcdsimServer
from tests.seeds import remaining

TIMEOUT_S = 30.0
STREAM_TIMEOUT_S = 120.0
WRITERS = 4
KEYS = 20  # of each writer, and as many that all share
LASTING_TTL_S = 3600
EVERYTHING = {"key": b"\0", "range_end": b"\0"}

Change = tuple[bytes, bytes | None]  # a key, and its value; None: deleted
History = dict[int, tuple[Change, ...]]  # by revision


class Lost(AssertionError):
    """Something is not as it was acknowledged, or as somebody saw it."""


class Write(NamedTuple):
    method: wire.Method
    message: Any


class Known:
    """What clients may rely on. Writers only ever add."""

    def __init__(self) -> None:
        self.sent: set[bytes] = set()  # values, each of one request
        self.acknowledged: History = {}
        self.seen: History = {}
        self.told: History = {}  # by a server that was started anew
        self.hashes: dict[tuple[int, int], int] = {}  # by revision and compact revision
        self.compacted = 0
        self.granted: set[int] = set()
        self.given_up: set[int] = set()  # leases that somebody asked to revoke
        self.revoked: set[int] = set()

    @property
    def newest(self) -> int:
        return max((0, *self.acknowledged, *self.seen, *self.told))


def ask(channel: Any, method: wire.Method, message: Any = None, **fields: Any) -> Any:
    """A unary call that doesn't wait for a server that is gone. Raises grpc.RpcError."""
    call = channel.unary_unary(
        method.path, method.request.SerializeToString, method.response.FromString
    )
    return call(message or method.request(**fields), timeout=TIMEOUT_S)


def changes_of(events: Any) -> Iterator[tuple[int, Change]]:
    for event in events:
        value = None if event.type == wire.Event.DELETE else event.kv.value
        yield event.kv.mod_revision, (event.kv.key, value)


def events(channel: Any, revision: int) -> Iterator[Any]:
    """The responses of a watch of everything from `revision` on, until the stream ends."""
    request = wire.WatchRequest(create_request={**EVERYTHING, "start_revision": revision})
    forever = threading.Event()

    def requests() -> Iterator[Any]:
        yield request
        forever.wait()

    call = channel.stream_stream(
        wire.WATCH.path, wire.WatchRequest.SerializeToString, wire.WatchResponse.FromString
    )(requests(), timeout=STREAM_TIMEOUT_S)
    try:
        yield from call
    finally:
        forever.set()
        call.cancel()


class Writer:
    """One connection that writes until it breaks."""

    def __init__(self, endpoint: str, known: Known, name: str, rng: Random, size: int) -> None:
        self._endpoint, self._known, self._rng, self._size = endpoint, known, rng, size
        self._name = name
        self._oldest = max(1, max(known.told, default=1))  # up to here may be compacted
        self._number = 0
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        with grpc.insecure_channel(
            self._endpoint, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            try:
                while True:
                    self._write(channel)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self.counts[f"error {error.code().name}: {error.details()}"] += 1

    def _value(self) -> bytes:
        self._number += 1
        value = f"{self._name}/{self._number}/".encode()
        value += b"x" * self._rng.randrange(self._size)
        self._known.sent.add(value)
        return value

    def _key(self) -> bytes:
        owner = self._rng.choice(["shared", self._name.rpartition("/")[2]])
        return f"{owner}/{self._rng.randrange(KEYS)}".encode()

    def _write(self, channel: Any) -> None:
        kind = self._rng.random()
        if kind < 0.01:
            self._compact(channel)
        elif kind < 0.04:
            self._lease(channel)
        elif kind < 0.15:
            self._delete(channel)
        elif kind < 0.3:
            self._txn(channel)
        else:
            self._put(channel)

    def _put(self, channel: Any) -> None:
        key, value = self._key(), self._value()
        lease = self._rng.choice([0, 0, *self._lasting()])
        answer = ask(channel, wire.PUT, key=key, value=value, lease=lease)
        self._acknowledge("put", answer, [(key, value)])

    def _lasting(self) -> list[int]:
        mine = (self._name.encode()[-1] << 32, (self._name.encode()[-1] + 1) << 32)
        standing = self._known.granted - self._known.given_up
        return [lease for lease in tuple(standing) if mine[0] <= lease < mine[1]][:3]

    def _txn(self, channel: Any) -> None:
        pairs = [(self._key(), self._value()) for _ in range(2)]
        pairs = list(dict(pairs).items())
        ops = [{"request_put": {"key": key, "value": value}} for key, value in pairs]
        self._acknowledge("txn", ask(channel, wire.TXN, success=ops), list(pairs))

    def _delete(self, channel: Any) -> None:
        key = self._key()
        answer = ask(channel, wire.DELETE_RANGE, key=key)
        if answer.deleted:
            self._acknowledge("delete", answer, [(key, None)])

    def _compact(self, channel: Any) -> None:
        revision = self._rng.randrange(self._oldest) + 1
        try:
            ask(channel, wire.COMPACT, revision=revision)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.OUT_OF_RANGE:
                raise
        self._known.compacted = max(self._known.compacted, revision)
        self.counts["compaction"] += 1

    def _lease(self, channel: Any) -> None:
        lasting = self._lasting()
        if lasting and self._rng.random() < 0.3:
            self._known.given_up.add(lasting[0])
            ask(channel, services.LEASE_REVOKE, ID=lasting[0])
            self._known.revoked.add(lasting[0])
            self.counts["revoke"] += 1
            return
        lease = (self._name.encode()[-1] << 32) + self._rng.randrange(1 << 32)
        ttl_s = self._rng.choice([2, LASTING_TTL_S])
        ask(channel, services.LEASE_GRANT, ID=lease, TTL=ttl_s)
        if ttl_s == LASTING_TTL_S:
            self._known.granted.add(lease)
        self.counts["grant"] += 1

    def _acknowledge(self, kind: str, answer: Any, changes: list[Change]) -> None:
        self._known.acknowledged[answer.header.revision] = tuple(changes)
        self.counts[kind] += 1


def watch(endpoint: str, known: Known) -> None:
    """Note what a watcher sees, from where it was cut off on, until it is again."""
    start = max(known.newest + 1, known.compacted + 1)
    with grpc.insecure_channel(
        endpoint, options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        try:
            for response in events(channel, start):
                for revision, change in changes_of(response.events):
                    known.seen[revision] = (*known.seen.get(revision, ()), change)
        except grpc.RpcError:
            pass


def live(endpoint: str, server: EtcdsimServer, known: Known, name: str, rng: Random) -> Any:
    """Let clients write for a while, and kill the server -> what they did."""
    size = rng.choice([1, 100, 20_000])
    writers = [
        Writer(endpoint, known, f"{name}/{number}", Random(rng.random()), size)
        for number in range(WRITERS)
    ]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    threads.append(threading.Thread(target=watch, args=(endpoint, known)))
    for thread in threads:
        thread.start()
    # From the first acknowledgement on, so that a slow machine kills no idle server.
    patience = time.monotonic() + TIMEOUT_S
    while not any(writer.counts for writer in writers) and time.monotonic() < patience:
        time.sleep(0.001)
    time.sleep(rng.random() * rng.choice([0.05, 0.5, 1.0]))
    server.kill()
    for thread in threads:
        thread.join(TIMEOUT_S)
        if thread.is_alive():
            raise Lost("a client hangs")
    counts: Counter[str] = Counter()
    for writer in writers:
        counts.update(writer.counts)
    wrong = [kind for kind in counts if kind.startswith("error")]
    if wrong:
        raise Lost(f"{wrong}")
    return counts


def told_history(channel: Any) -> tuple[int, int, History]:
    """(revision, compact revision, history above that) of a server that nobody writes to."""
    now = ask(channel, services.HASH_KV)
    revision, compacted = now.header.revision, max(0, now.compact_revision)
    history: History = {}
    if revision > max(compacted, 1):
        for response in events(channel, compacted + 1):
            for at, change in changes_of(response.events):
                history[at] = (*history.get(at, ()), change)
            if max(history, default=0) >= revision:
                break
    return revision, compacted, history


def check(endpoint: str, known: Known) -> None:
    """Compare what a server that was started anew tells with what is known. Raises Lost."""
    with grpc.insecure_channel(
        endpoint,
        options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)],
    ) as channel:
        revision, compacted, history = told_history(channel)
        if revision < known.newest:
            raise Lost(f"revision {revision} is below {known.newest}, which somebody knows")
        if compacted < known.compacted:
            raise Lost(f"compact revision {compacted} is below {known.compacted}")
        first = max(compacted, 1) + 1  # of the empty store there is nothing to tell
        if sorted(history) != list(range(first, revision + 1)):
            raise Lost(f"the revisions from {first} to {revision} are not all there")
        for name in ("acknowledged", "seen", "told"):
            for at, changes in getattr(known, name).items():
                if at > compacted and sorted(history[at], key=_key) != sorted(changes, key=_key):
                    raise Lost(f"revision {at}: {name} {changes}, now {history[at]}")
        known.told.update(history)
        check_values(known)
        check_state(channel, known, revision)
        check_leases(channel, known)
        check_hash(channel, known, revision, compacted)


def _key(change: Change) -> bytes:
    return change[0]


def check_values(known: Known) -> None:
    """Everything that is there was asked for, and happened once."""
    values = [value for at in known.told for _, value in known.told[at] if value is not None]
    if not known.sent.issuperset(values) or len(set(values)) < len(values):
        raise Lost("a value that nobody sent, or one that was put twice")


def check_state(channel: Any, known: Known, revision: int) -> None:
    """The keys are what the history comes to."""
    state: dict[bytes, tuple[bytes, int, int, int]] = {}
    for at in range(2, revision + 1):
        for key, value in known.told[at]:
            if value is None:
                del state[key]
                continue
            _, created, _, version = state.get(key, (b"", at, 0, 0))
            state[key] = value, created, at, version + 1
    answer = ask(channel, wire.RANGE, **EVERYTHING)
    found = {
        kv.key: (kv.value, kv.create_revision, kv.mod_revision, kv.version) for kv in answer.kvs
    }
    if found != state:
        raise Lost(f"keys are not what the history comes to: {found.items() ^ state.items()}")


def check_leases(channel: Any, known: Known) -> None:
    """Granted ones are there, unless somebody asked for their end."""
    leases = {lease.ID for lease in ask(channel, services.LEASE_LEASES).leases}
    gone, back = known.granted - known.given_up - leases, known.revoked & leases
    if gone or back:
        raise Lost(f"leases: {gone} are gone, {back} are back")


def check_hash(channel: Any, known: Known, revision: int, compacted: int) -> None:
    """The hash of a revision is the one it had, as long as nothing more is compacted."""
    for at, since in [*known.hashes, (revision, compacted)]:
        if since == compacted:
            number = ask(channel, services.HASH_KV, revision=at).hash
            if known.hashes.setdefault((at, since), number) != number:
                raise Lost(f"HashKV at {at} was {known.hashes[at, since]}, is {number}")


def run_seed(data_dir: Path, seed: int, kills: int = 3) -> Counter[str]:
    """Start, write and kill again and again on one directory. Raises Lost."""
    rng, known = Random(seed), Known()
    counts: Counter[str] = Counter()
    flag = f"--data-dir={data_dir}"
    for life in range(kills):
        with EtcdsimServer(flag) as server:
            check(server.endpoint, known)
            counts.update(live(server.endpoint, server, known, f"{seed}/{life}", rng))
    with EtcdsimServer(flag) as server:
        check(server.endpoint, known)
        if server.stop() != 0:
            raise Lost("it did not end well")
    counts["revisions"] = max(known.told)
    counts["seen"] = len(known.seen)
    counts["acknowledged"] = len(known.acknowledged)
    return counts


def main() -> int:
    """The seeds of the arguments, one after the other -> 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.durability")
    parser.add_argument("--seeds", default="0:20", metavar="FROM:TO")
    parser.add_argument("--out", type=Path, default=Path("durability.jsonl"))
    arguments = parser.parse_args()
    failed = 0
    for seed in remaining(arguments.seeds, arguments.out):
        with tempfile.TemporaryDirectory(prefix="btreecache-durability-") as directory:
            try:
                counts = run_seed(Path(directory), seed)
            except Lost as lost:
                sys.stderr.write(f"seed {seed}: {lost}\n")
                failed = 1
                continue
        with arguments.out.open("a") as out:
            out.write(json.dumps({"seed": seed, **counts}) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
