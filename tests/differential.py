"""The same seeded requests to a real etcd and to `etcdsim serve`: the answers have to be equal.

Field by field, with codes and texts of errors; except ids, terms and the order of what sorts equal
(etcd sorts in no stable order). By hand:

    python -m tests.differential --seeds 0:20 --operations 50000 --out differential.jsonl

writes a line for each seed when it is done, and passes over those that the file has already.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import grpc

from etcdsim import services, wire
from tests.interop.etcd_server import EtcdServer
from tests.interop.etcdsim_server import EtcdsimServer
from tests.seeds import remaining

TIMEOUT_S = 20.0
#: etcd sorts up to so many by insertion, which keeps the order of equals.
STABLE_MAX = 12
#: How far the time left of a lease may differ.
LEFT_S = 10

KEYS = (
    *(b"k/%02d" % number for number in range(24)),
    *(b"a", b"a\0", b"a\xff", b"b", b"\x01", b"z", b"\xff", b"\xff\xff", b"\0"),
)
PREFIXES = (b"k/", b"k/0", b"k/1", b"a")
VALUES = (b"", b"0", b"1", b"x" * 40, b"\0\xff")
LEASES = (1, 2, 77, 78, 1 << 40)


class Request(NamedTuple):
    method: wire.Method
    message: Any


class Difference(AssertionError):
    """The first request that the two answer differently."""


class Requests:
    """What is asked, drawn from a seed; follows the revision of the store from the answers."""

    def __init__(self, seed: int, leases: bool = True) -> None:
        self.rng = Random(seed)
        self.revision = 1
        self.compacted = 0
        self._leases = leases

    def __iter__(self) -> Iterator[Request]:
        kinds = [
            (30, self._put_request),
            (25, self._range_request),
            (8, self._delete_request),
            (24, self._txn_request),
            (1, self._compaction),
            (4, self._hash_kv),
            (1, self._other),
            (2, self._auth),
        ]
        if self._leases:
            kinds.append((5, self._lease_request))
        weights = [weight for weight, _ in kinds]
        while True:
            yield self.rng.choices(kinds, weights)[0][1]()

    def _chance(self, odds: float) -> bool:
        return self.rng.random() < odds

    def _key(self) -> bytes:
        return b"" if self._chance(0.005) else self.rng.choice(KEYS)

    def _interval(self) -> tuple[bytes, bytes]:
        shape = self.rng.random()
        if shape < 0.4:
            return self._key(), b""
        if shape < 0.6:
            prefix = self.rng.choice(PREFIXES)
            return prefix, prefix[:-1] + bytes([prefix[-1] + 1])
        if shape < 0.7:
            return b"\0", b"\0"
        if shape < 0.8:
            return self._key(), b"\0"
        return self._key(), self.rng.choice(KEYS)  # often the wrong way round

    def _some_revision(self) -> int:
        newest = self.revision
        return self.rng.choice(
            [
                newest,
                newest - self.rng.randrange(1, 6),
                newest - self.rng.randrange(1, 60),
                newest + 1,
                self.compacted,
                self.compacted - 1,
                self.compacted + 1,
                -1,
                -7,
            ]
        )

    def _lease(self) -> int:
        if not self._leases or self._chance(0.8):
            return 0
        return self.rng.choice(LEASES)

    def _range(self) -> Any:
        key, range_end = self._interval()
        message = wire.RangeRequest(key=key, range_end=range_end)
        if self._chance(0.4):
            message.revision = self._some_revision()
        if self._chance(0.4):
            message.limit = self.rng.choice([1, 2, 3, 5, 10, 100, -1])
        if self._chance(0.3):
            message.sort_order = self.rng.choice([0, 1, 2, 2, 7])
            message.sort_target = self.rng.randrange(5)
        for field in ("serializable", "keys_only", "count_only"):
            if self._chance(0.1):
                setattr(message, field, True)
        for field in ("mod", "create"):
            for bound in ("min", "max"):
                if self._chance(0.06):
                    setattr(message, f"{bound}_{field}_revision", self._some_revision())
        return message

    def _put(self) -> Any:
        message = wire.PutRequest(key=self._key(), value=self.rng.choice(VALUES))
        message.lease = self._lease()
        message.prev_kv = self._chance(0.3)
        if self._chance(0.1):
            message.ignore_value = True
            if self._chance(0.8):
                message.value = b""
        if self._chance(0.1):
            message.ignore_lease = True
            if self._chance(0.8):
                message.lease = 0
        return message

    def _delete(self) -> Any:
        key, range_end = self._interval() if self._chance(0.5) else (self._key(), b"")
        return wire.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=self._chance(0.3))

    def _compare(self) -> Any:
        key, range_end = self._interval() if self._chance(0.3) else (self._key(), b"")
        compare = wire.Compare(
            key=key,
            range_end=range_end,
            result=self.rng.choice([0, 0, 0, 1, 2, 3, 9]),
            target=self.rng.choice([0, 1, 2, 3, 4, 4, 9]),
        )
        numbers = [0, 1, 2, self.revision, self.revision - self.rng.randrange(20)]
        match self.rng.randrange(6):
            case 0:
                compare.version = self.rng.choice([0, 1, 2, 3])
            case 1:
                compare.create_revision = self.rng.choice(numbers)
            case 2:
                compare.mod_revision = self.rng.choice(numbers)
            case 3:
                compare.value = self.rng.choice(VALUES)
            case 4:
                compare.lease = self.rng.choice([0, *LEASES])
        return compare

    def _op(self, depth: int) -> Any:
        kind = self.rng.random()
        if kind < 0.4:
            return wire.RequestOp(request_put=self._put())
        if kind < 0.6:
            return wire.RequestOp(request_range=self._range())
        if kind < 0.8:
            return wire.RequestOp(request_delete_range=self._delete())
        if kind < 0.985 and depth < 3:
            return wire.RequestOp(request_txn=self._txn(depth + 1))
        return wire.RequestOp(request_range=self._range()) if kind < 0.99 else wire.RequestOp()

    def _txn(self, depth: int = 0) -> Any:
        most = 4 if depth == 0 else 2
        sizes = [self.rng.randrange(most) for _ in range(3)]
        return wire.TxnRequest(
            compare=[self._compare() for _ in range(sizes[0])],
            success=[self._op(depth) for _ in range(sizes[1])],
            failure=[self._op(depth) for _ in range(sizes[2])],
        )

    def _range_request(self) -> Request:
        return Request(wire.RANGE, self._range())

    def _put_request(self) -> Request:
        return Request(wire.PUT, self._put())

    def _delete_request(self) -> Request:
        return Request(wire.DELETE_RANGE, self._delete())

    def _txn_request(self) -> Request:
        message = self._txn()
        if self._chance(0.01):
            filler = wire.RequestOp(request_range=wire.RangeRequest(key=b"k/00"))
            message.success.extend([filler] * self.rng.choice([125, 126, 127, 128, 129]))
        while _loses_keys(message):
            message = self._txn()
        return Request(wire.TXN, message)

    def _compaction(self) -> Request:
        # Physical, so that what HashKV sees doesn't depend on when the backend is scrubbed.
        revision = self._some_revision() if self._chance(0.5) else self.revision - 3
        return Request(wire.COMPACT, wire.CompactionRequest(revision=revision, physical=True))

    def _hash_kv(self) -> Request:
        revision = 0 if self._chance(0.5) else self._some_revision()
        message = services.HASH_KV.request(revision=revision)
        return Request(services.HASH_KV, message)

    def _lease_request(self) -> Request:
        lease = self.rng.choice(LEASES)
        match self.rng.randrange(4):
            case 0 | 1:
                ttl = self.rng.choice([5_000, 50_000, 9_000_000_000, 9_000_000_001])
                message = services.LEASE_GRANT.request(ID=lease, TTL=ttl)
                return Request(services.LEASE_GRANT, message)
            case 2:
                return Request(services.LEASE_REVOKE, services.LEASE_REVOKE.request(ID=lease))
            case _:
                method = services.LEASE_TIME_TO_LIVE
                return Request(method, method.request(ID=lease, keys=self._chance(0.7)))

    def _other(self) -> Request:
        method = self.rng.choice(
            [
                wire.STATUS,
                services.DEFRAGMENT,
                services.ALARM,
                services.MEMBER_LIST,
                services.MOVE_LEADER,
                services.AUTH_STATUS,
                services.AUTH_ENABLE,
                wire.AUTHENTICATE,
                services.USER_LIST,
                services.ROLE_LIST,
                services.HEALTH_CHECK,
                services.RANGE_STREAM._replace(answers=False),
            ]
        )
        return Request(method, method.request())

    def _auth(self) -> Request:
        """Users and roles, without a root: nobody is to enable authentication."""
        user, role = self.rng.choice(["", "u", "v"]), self.rng.choice(["", "r", "s"])
        key, range_end = self._interval()
        permission = {"key": key, "range_end": range_end, "permType": self.rng.randrange(3)}
        method, fields = self.rng.choice(
            [
                # A password takes a real server a tenth of a second.
                (services.USER_ADD, {"name": user, "options": {"no_password": True}}),
                (services.USER_GET, {"name": user}),
                (services.USER_LIST, {}),
                (services.USER_DELETE, {"name": user}),
                (services.USER_GRANT_ROLE, {"user": user, "role": role}),
                (services.USER_REVOKE_ROLE, {"name": user, "role": role}),
                (services.ROLE_ADD, {"name": role}),
                (services.ROLE_GET, {"role": role}),
                (services.ROLE_LIST, {}),
                (services.ROLE_DELETE, {"role": role}),
                (services.ROLE_GRANT_PERMISSION, {"name": role, "perm": permission}),
                (services.ROLE_REVOKE_PERMISSION, {"role": role, "key": key}),
                (services.AUTH_STATUS, {}),
            ]
        )
        return Request(method, method.request(**fields))

    def follow(self, request: Request, answer: Any) -> None:
        """Note what a good answer says about the store."""
        if isinstance(answer, tuple):
            return
        header = getattr(answer, "header", None)
        self.revision = max(self.revision, getattr(header, "revision", 0))
        if request.method is wire.COMPACT:
            self.compacted = request.message.revision


def _loses_keys(txn: Any) -> bool:
    """Whether it may delete a key and put it again, which etcd only allows where the range deleted
    has no end: compacted exactly there, etcd loses the key and dies."""
    text = str(txn)
    return 'range_end: "\\000"' in text and "request_delete_range" in text and "request_put" in text


class Server:
    """A client of one of the two."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(
            endpoint,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", -1),
            ],
        )
        self._calls: dict[str, Any] = {}

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def start(self, request: Request) -> Any:
        """The request on its way."""
        method = request.method
        if method.path not in self._calls:
            self._calls[method.path] = self._channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return self._calls[method.path].future(request.message, timeout=TIMEOUT_S)


def answer_of(call: Any) -> Any:
    """The response, or (code, text)."""
    try:
        return call.result()
    except grpc.RpcError as error:
        return error.code().name, error.details()


class Left(int):
    """Seconds that a lease has left: equal within LEFT_S, as the two began it one after the other.
    Whether it lasts at all must be the same."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, int)
        mine, theirs = int(self), int(other)
        return abs(mine - theirs) <= LEFT_S and (mine > 0) == (theirs > 0)


def comparable(request: Request, answer: Any) -> Any:
    """The answer without what may differ; changes it."""
    if isinstance(answer, tuple):
        return answer
    if request.method.path.startswith("/etcdserverpb."):
        header = answer.header if hasattr(answer, "header") else None
        if header is not None:
            header.ClearField("cluster_id")
            header.ClearField("member_id")
            header.ClearField("raft_term")
    if request.method is wire.STATUS:
        # Sizes, and how many entries a log has.
        return answer.header.revision, answer.version, list(answer.errors), answer.isLearner
    if request.method is services.MEMBER_LIST:
        return answer.header, [(member.name, member.isLearner) for member in answer.members]
    if request.method is services.LEASE_TIME_TO_LIVE:
        keys, left = sorted(answer.keys), Left(answer.TTL)
        answer.ClearField("keys")
        answer.ClearField("TTL")
        return answer, keys, left
    if request.method is wire.RANGE:
        _settle_range(request.message, answer)
    elif request.method is wire.TXN:
        _settle_txn(request.message, answer)
    return answer


def _settle_range(request: Any, answer: Any) -> None:
    if request.sort_target == 0 or answer.count <= STABLE_MAX:
        return
    field = ("key", "version", "create_revision", "mod_revision", "value")[request.sort_target]
    for kv in answer.kvs:
        kept = wire.KeyValue(**{field: getattr(kv, field)})
        kv.CopyFrom(kept)


def _settle_txn(request: Any, answer: Any) -> None:
    ops = request.success if answer.succeeded else request.failure
    for op, response in zip(ops, answer.responses, strict=True):
        if response.WhichOneof("response") == "response_range":
            _settle_range(op.request_range, response.response_range)
        elif response.WhichOneof("response") == "response_txn":
            _settle_txn(op.request_txn, response.response_txn)


def compare(real: Server, simulated: Server, requests: Requests, operations: int) -> Counter[str]:
    """Ask both -> how many of each method, and how many errors. Raises Difference."""
    counts: Counter[str] = Counter()
    for number, request in zip(range(operations), requests, strict=False):
        calls = real.start(request), simulated.start(request)
        theirs, ours = map(answer_of, calls)
        requests.follow(request, theirs)
        theirs, ours = comparable(request, theirs), comparable(request, ours)
        if theirs != ours:
            raise Difference(
                f"request {number}: {request.method.path} at revision {requests.revision}, "
                f"compacted {requests.compacted}\n{request.message}\n"
                f"--- etcd\n{theirs}\n--- etcdsim\n{ours}"
            )
        counts[request.method.path.rpartition("/")[2]] += 1
        counts["errors"] += isinstance(theirs, tuple) and isinstance(theirs[0], str)
    return counts


def version_of(server: Server) -> str:
    """What its Status says."""
    return str(answer_of(server.start(Request(wire.STATUS, wire.StatusRequest()))).version)


def run_seed(binary: Path, data_dir: Path, seed: int, operations: int) -> Counter[str]:
    """A fresh pair of servers, and a run of one seed. Raises Difference."""
    with EtcdServer(binary, data_dir) as etcd, Server(etcd.endpoint) as real:
        flag = f"--emulated-version={version_of(real)}"
        with EtcdsimServer(flag) as etcdsim, Server(etcdsim.endpoint) as simulated:
            return compare(real, simulated, Requests(seed), operations)


def main() -> int:
    """The seeds of the arguments, one after the other -> 1 if any differed."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("--seeds", default="0:20", metavar="FROM:TO")
    parser.add_argument("--operations", type=int, default=50_000, help="of each seed")
    parser.add_argument("--etcd", type=Path, default=Path(".cache/etcd/3.5/etcd"))
    parser.add_argument("--out", type=Path, default=Path("differential.jsonl"))
    arguments = parser.parse_args()
    failed = 0
    for seed in remaining(arguments.seeds, arguments.out):
        with tempfile.TemporaryDirectory(prefix="btreecache-etcd-") as directory:
            try:
                counts = run_seed(arguments.etcd, Path(directory), seed, arguments.operations)
            except Difference as difference:
                sys.stderr.write(f"seed {seed}: {difference}\n")
                failed = 1
                continue
        line = json.dumps({"seed": seed, "operations": arguments.operations, **counts})
        with arguments.out.open("a") as out:
            out.write(line + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
