"""Messages that are broken at random, for `etcdsim serve`, and for a real etcd beside it.

    python -m tests.etcdsim_fuzz --seeds 0:200 --requests 1000 --out fuzz.jsonl

takes valid requests of `tests.differential`, breaks most of them, and sends them. The simulator
has to answer each with a status that etcd has, to go on, and to stay small; with `--etcd BINARY`
both get the same bytes, and codes, texts and answers have to be equal. One line for each seed;
seeds that the file holds already without a violation are passed over.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import grpc

from etcdsim import services, wire
from etcdsim.server.malformed import Malformed, parse, skip, varint
from tests.differential import (
    Request,
    Requests,
    _loses_keys,
    comparable,
    version_of,
)
from tests.differential import Server as Asked
from tests.etcdsim import hostile
from tests.interop.etcd_server import EtcdServer
from tests.interop.etcdsim_server import EtcdsimServer

TIMEOUT_S = 20.0
MEMORY_MIB_MAX = 400.0
#: What etcd answers; UNKNOWN is what gRPC makes of an exception that nobody expected.
CODES = {
    "OK", "INVALID_ARGUMENT", "OUT_OF_RANGE", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL",
    "UNIMPLEMENTED", "RESOURCE_EXHAUSTED",
}  # fmt: skip
#: Of what Python's parser refuses and etcd's takes.
#: Whose requests have fields that 3.4 doesn't know, and so takes whatever they are.
GREW = (services.MEMBER_LIST, services.USER_ADD, services.USER_CHANGE_PASSWORD)
ONLY_PYTHON = "cannot parse invalid wire-format data"


class Broken(NamedTuple):
    """Bytes for a method."""

    method: wire.Method
    data: bytes


def broken(rng: Random, data: bytes, other: bytes) -> bytes:
    """Some of `data`, changed once or oftener."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randrange(1, 9))
        match rng.randrange(10):
            case 0:
                data = data[:at]
            case 1 if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
            case 2:
                data = data[:at] + rng.randbytes(end - at) + data[end:]
            case 3:
                data = data[:at] + data[end:]
            case 4:
                data = data[:at] + rng.randbytes(rng.randrange(1, 5)) + data[at:]
            case 5:
                data = data[:end] + data[at:]
            case 6:
                data = data[:at] + other[rng.randrange(len(other) + 1) :]
            case 7:
                data = hostile.field(rng.choice([1, 2, 2, 3, 4]), data)
            case 8:
                data += b"\x12\0"  # an empty range end, in most requests that have one
            case _:
                data += rng.choice([b"\x80", b"\xff" * 10, b"\x7e", b"\x7c", b"\xf8\x07\x01"])
    return data


class Messages:
    """What one seed sends."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(f"etcdsim fuzz {seed}")
        self.requests = Requests(seed)
        self._drawn = iter(self.requests)

    def next(self) -> Broken:
        request, other = next(self._drawn), next(self._drawn)
        data, more = request.message.SerializeToString(), other.message.SerializeToString()
        draw = self.rng.random()
        if draw < 0.2:
            return Broken(request.method, data)
        if draw < 0.25:
            return Broken(request.method, self.rng.randbytes(self.rng.randrange(60)))
        if draw < 0.3:
            return Broken(other.method, data)
        if draw < 0.4:
            method = self.rng.choice([wire.WATCH, services.LEASE_KEEP_ALIVE, services.SNAPSHOT])
            return Broken(method, broken(self.rng, hostile.WATCH, data))
        return Broken(request.method, broken(self.rng, data, more))


def taken(sent: Broken) -> Any:
    """The message that both take it for; None where it is none."""
    with suppress(Malformed):
        return parse(sent.method.request, sent.data)
    return None


def may_differ(sent: Broken) -> bool:
    """Whether the two are known to answer differently, or a real server crashes on it."""
    method = sent.method
    try:
        message = parse(method.request, sent.data)
    except Malformed as malformed:
        return ONLY_PYTHON in str(malformed)
    match method:
        case services.SNAPSHOT | services.HASH:
            return True  # another file
        case services.LEASE_GRANT:  # an id at random; one that expires meanwhile
            return not message.ID or message.TTL < 1000
        case wire.COMPACT:  # when the backend is scrubbed shows in its hashes
            return not message.physical
        case services.ALARM:  # an unknown action crashes a real server, an alarm stays
            return bool(message.action)
        case services.USER_ADD:  # a password takes it a tenth of a second
            return not message.options.no_password
        case services.ROLE_GRANT_PERMISSION:
            return not message.HasField("perm")
        case wire.RANGE:
            return not 0 <= message.sort_target < 5
        case wire.TXN:
            return (
                _loses_keys(message)
                or _says_twice(wire.TxnRequest.DESCRIPTOR, sent.data)
                or any(not 0 <= asked.sort_target < 5 for asked in _ranges(message))
            )
        case wire.WATCH:
            return _says_twice(wire.WatchRequest.DESCRIPTOR, sent.data)
    return method is wire.STATUS and bool(sent.data)


def _ranges(txn: Any) -> list[Any]:
    found = []
    for op in (*txn.success, *txn.failure):
        match op.WhichOneof("request"):
            case "request_range":
                found.append(op.request_range)
            case "request_txn":
                found += _ranges(op.request_txn)
    return found


def _says_twice(descriptor: Any, data: bytes) -> bool:
    """Whether a choice of messages, somewhere in one that is well-formed, is made twice: Python's
    parser merges the two, etcd's takes the last."""
    at, chosen = 0, set()
    while at < len(data):
        start = at
        tag, at = varint(data, at, len(data))
        field = descriptor.fields_by_number.get(tag >> 3)
        if field is None or tag & 7 != 2:
            at = skip(data, start, len(data))
            continue
        size, at = varint(data, at, len(data))
        if field.message_type is not None:
            if field.containing_oneof is not None and field.number in chosen:
                return True
            chosen.add(field.number)
            if _says_twice(field.message_type, data[at : at + size]):
                return True
        at += size
    return False


class Side:
    """One of the servers."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def start(self, sent: Broken) -> Any:
        method = sent.method
        if method.stream or method.answers:
            call = self._channel.stream_stream(method.path)(iter([sent.data]))
            # A deadline would be told the server too, which then ends the call itself.
            goes_on = method is wire.WATCH and taken(sent) is not None
            giving_up = threading.Timer(0.05 if goes_on else TIMEOUT_S, call.cancel)
            giving_up.start()
            call.add_done_callback(lambda _: giving_up.cancel())
            return call
        return self._channel.unary_unary(method.path).future(sent.data, timeout=TIMEOUT_S)

    def answer(self, sent: Broken, call: Any) -> Any:
        """The response, or (code, text); of a stream the number of responses and its end."""
        if not (sent.method.stream or sent.method.answers):
            try:
                return sent.method.response.FromString(call.result())
            except grpc.RpcError as error:
                return error.code().name, error.details()
        got = 0
        try:
            for _ in call:
                got += 1
        except grpc.RpcError as error:
            code = error.code().name
            if (code, error.details()) == hostile.GOES_ON and sent.method is wire.WATCH:
                return "OK", "goes on"
            # 3.4 says it without the colon.
            return code, error.details().replace("received message: ", "received message ")
        return "OK", got


class Violation(AssertionError):
    """What must not be; the text says which request."""


def _judge(sent: Broken, ours: Any, theirs: Any | None) -> str:
    """The code. Raises Violation."""
    code = ours[0] if isinstance(ours, tuple) else "OK"
    told = f"{sent.method.path} {sent.data.hex()}"
    if code not in CODES and (code, ours[1]) != ("UNKNOWN", "EOF"):
        raise Violation(f"{told}: {ours}")
    if theirs is None or sent.method is services.AUTH_STATUS:
        return code
    message = taken(sent)
    if message is not None and isinstance(ours, tuple) == isinstance(theirs, tuple):
        asked = Request(sent.method, message)
        ours, theirs = comparable(asked, ours), comparable(asked, theirs)
    if ours != theirs:
        raise Violation(f"{told}\n--- etcd\n{theirs}\n--- etcdsim\n{ours}")
    return code


def run_seed(seed: int, requests: int, binary: Path | None) -> dict[str, Any]:
    """Fresh servers and one seed -> the line about it. A violation ends it."""
    counts: Counter[str] = Counter()
    violation = ""
    with ExitStack() as stack:
        sides = []
        version = "3.5.30"
        if binary is not None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="btreecache-")))
            etcd = stack.enter_context(EtcdServer(binary, directory))
            version = version_of(stack.enter_context(Asked(etcd.endpoint)))
            sides.append(Side(stack.enter_context(hostile.connect(etcd.endpoint))))
        etcdsim = stack.enter_context(EtcdsimServer(f"--emulated-version={version}"))
        sides.insert(0, Side(stack.enter_context(hostile.connect(etcdsim.endpoint))))
        messages = Messages(seed)
        for _ in range(requests):
            sent = messages.next()
            grew = version < "3.5" and sent.method in GREW and taken(sent) is None
            if binary is not None and (grew or may_differ(sent)):
                counts["passed over"] += 1
                continue
            calls = [side.start(sent) for side in sides]
            answers = [side.answer(sent, call) for side, call in zip(sides, calls, strict=True)]
            try:
                counts[_judge(sent, answers[0], answers[1] if binary else None)] += 1
            except Violation as found:
                violation = str(found)
                break
            messages.requests.follow(Request(sent.method, taken(sent)), answers[0])
        memory = etcdsim.memory_mib
        if not violation and memory > MEMORY_MIB_MAX:
            violation = f"{memory} MiB in the end"
        put = Broken(wire.PUT, hostile.PUT)
        alive = sides[0].answer(put, sides[0].start(put))
        if not violation and isinstance(alive, tuple):
            violation = f"a put in the end: {alive}"
    return {
        "seed": seed, "requests": requests, "version": version, "memory_mib": round(memory),
        "violation": violation, **counts,
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """-> 1 if there was any violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.etcdsim_fuzz")
    parser.add_argument("--seeds", default="0:20", metavar="FROM:TO")
    parser.add_argument("--requests", type=int, default=1000, help="of each seed")
    parser.add_argument("--etcd", type=Path, help="a real one, to compare with")
    parser.add_argument("--out", type=Path, default=Path(".cache/etcdsim-fuzz.jsonl"))
    arguments = parser.parse_args(argv)
    text = arguments.out.read_text() if arguments.out.exists() else ""
    done = {line["seed"]: line for line in map(json.loads, text.splitlines())}
    first, last = map(int, arguments.seeds.split(":"))
    total: Counter[str] = Counter()
    for seed in range(first, last):
        line = done.get(seed)
        if line is None or line["violation"] or line["requests"] != arguments.requests:
            line = run_seed(seed, arguments.requests, arguments.etcd)
            with arguments.out.open("a") as out:
                out.write(json.dumps(line) + "\n")
        if line["violation"]:
            print(f"seed {seed}: {line['violation']}", file=sys.stderr)
        total["violations"] += bool(line["violation"])
        total.update({key: line[key] for key in (*CODES, "UNKNOWN", "passed over") if key in line})
    print(f"seeds {arguments.seeds} x {arguments.requests} requests: {dict(sorted(total.items()))}")
    return 1 if total["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
