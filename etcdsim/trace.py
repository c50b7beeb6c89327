"""Trace: what several watches of several clients were answered, and the truth to judge them by.

As JSON lines, the second format of a trace; the first is in `etcdsim.history`. `revision` null:
the write was never answered. PREV is a [key,value,create,mod,version], or null.

    {"type":"header","format":2,"origin":"simulator" or "etcd","truth":"model" or "transactions",
     "version":..,"profile":..,"seed":..,"objects":..,"writes":..,"faults":[..],"clients":..,
     "prefix":..,"first_revision":R}           the prefix held nothing at R
    {"type":"truth","events":[..]}             of one revision, in its order; truth "model"
    {"type":"write","client":C,"ops":[["put",key,value],["delete",key,range_end],..],
     "deleted":[n,..],"revision":R}            one transaction; truth "transactions"
    {"type":"compact","client":C,"revision":R}
    {"type":"watch","watch":W,"client":C,"key":..,"range_end":..,"start_revision":R,
     "prev_kv":true,"progress_notify":false,"filters":["noput"]}
    {"type":"created","watch":W,"header_revision":R}
    {"type":"events","watch":W,"header_revision":R,"fragment":false,
     "events":[["put",key,value,create,mod,version,PREV],["delete",key,mod,PREV],..]}
    {"type":"progress","watch":W,"header_revision":R}
    {"type":"canceled","watch":W,"compact_revision":C}
    {"type":"final","kvs":[..]}                all of the prefix, read when all was over
    {"type":"end","revision":R}                that of the store, read when all was over
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO, Literal

from etcdsim.history import (
    End,
    Header,
    Line,
    Listing,
    decode_bytes,
    decode_event,
    decode_int,
    decode_kv,
    encode_bytes,
    encode_event,
    encode_kv,
    read_trace,
)
from etcdsim.model import ALL, Event, KeyValue
from etcdsim.txn import DeleteRange, Put
from etcdsim.watch import WatchResponse

FORMAT_WATCHES = 2


@dataclass(frozen=True, slots=True)
class Origin:
    """What a trace of several watches was recorded from.

    truth           "model": the `truth` lines; "transactions": what the `write` lines come to;
                    "none": the trace has no truth (format 1)
    version         of the etcd, "" for the simulator
    prefix          every key that was written or watched has it
    first_revision  at which there was no key with the prefix
    """

    origin: Literal["simulator", "etcd"]
    truth: Literal["model", "transactions", "none"]
    version: str = ""
    profile: str = ""
    seed: int = 0
    objects: int = 0
    writes: int = 0
    faults: tuple[str, ...] = ()
    clients: int = 1
    prefix: bytes = b""
    first_revision: int = 1


@dataclass(frozen=True, slots=True)
class Write:
    """One transaction. `deleted`: what the answer said of each operation, 0 for a put."""

    client: int
    ops: tuple[Put | DeleteRange, ...]
    deleted: tuple[int, ...]
    revision: int | None


@dataclass(frozen=True, slots=True)
class Compaction:
    """A compaction that was answered."""

    client: int
    revision: int


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What a client asked for. `filters`: "noput", "nodelete"."""

    key: bytes
    range_end: bytes
    start_revision: int
    prev_kv: bool = False
    progress_notify: bool = False
    filters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """One response to a watch, as it came. `fragment`: the next one is the rest of it."""

    kind: Literal["created", "events", "progress", "canceled"]
    header_revision: int = 0
    events: tuple[Event, ...] = ()
    fragment: bool = False
    compact_revision: int = 0


@dataclass(frozen=True, slots=True)
class WatchTrace:
    """One watch, from its request to the last response that the client got."""

    client: int
    request: WatchRequest
    responses: tuple[Response, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """Several watches of several clients, and the truth.

    truth  the events of each revision that wrote something, ascending; only if it is the model's
    final  all keys of the prefix at the end; None if nobody read them
    end    the revision of the store, read after the last response
    """

    header: Origin
    watches: tuple[WatchTrace, ...]
    end: int
    truth: tuple[tuple[Event, ...], ...] = ()
    writes: tuple[Write, ...] = ()
    compactions: tuple[Compaction, ...] = ()
    final: tuple[KeyValue, ...] | None = None


def write_trace(trace: Trace, file: BinaryIO) -> str:
    """Write a trace of several watches -> its SHA-256. Equal traces give equal bytes."""
    digest = sha256()
    for line in _trace_lines(trace):
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        digest.update(data)
        file.write(data)
    return digest.hexdigest()


def _trace_lines(trace: Trace) -> Iterator[Line]:
    header = trace.header
    yield {
        "type": "header", "format": FORMAT_WATCHES, "origin": header.origin, "truth": header.truth,
        "version": header.version, "profile": header.profile, "seed": header.seed,
        "objects": header.objects, "writes": header.writes, "faults": list(header.faults),
        "clients": header.clients, "prefix": encode_bytes(header.prefix),
        "first_revision": header.first_revision,
    }  # fmt: skip
    for events in trace.truth:
        yield {"type": "truth", "events": [encode_event(event) for event in events]}
    for write in trace.writes:
        ops = [
            ["put", encode_bytes(op.key), encode_bytes(op.value)]
            if isinstance(op, Put)
            else ["delete", encode_bytes(op.key), encode_bytes(op.range_end)]
            for op in write.ops
        ]
        yield {
            "type": "write", "client": write.client, "ops": ops, "deleted": list(write.deleted),
            "revision": write.revision,
        }  # fmt: skip
    for compaction in trace.compactions:
        yield {"type": "compact", "client": compaction.client, "revision": compaction.revision}
    for number, watch in enumerate(trace.watches):
        yield _watch_line(number, watch)
        for response in watch.responses:
            yield _response_line(number, response)
    if trace.final is not None:
        yield {"type": "final", "kvs": [encode_kv(kv) for kv in trace.final]}
    yield {"type": "end", "revision": trace.end}


def _watch_line(number: int, watch: WatchTrace) -> Line:
    request = watch.request
    return {
        "type": "watch", "watch": number, "client": watch.client, "key": encode_bytes(request.key),
        "range_end": encode_bytes(request.range_end), "start_revision": request.start_revision,
        "prev_kv": request.prev_kv, "progress_notify": request.progress_notify,
        "filters": list(request.filters),
    }  # fmt: skip


def _response_line(number: int, response: Response) -> Line:
    line: Line = {"type": response.kind, "watch": number}
    if response.kind == "canceled":
        return line | {"compact_revision": response.compact_revision}
    line["header_revision"] = response.header_revision
    if response.kind == "events":
        line["fragment"] = response.fragment
        line["events"] = [
            [*encode_event(event), encode_kv(event.prev_kv) if event.prev_kv else None]
            for event in response.events
        ]
    return line


def load_trace(lines: Iterable[bytes]) -> Trace:
    """A whole trace of either format; one of format 1 has no truth. Raises ValueError, in one line,
    for anything that `record` and `write_trace` wouldn't have written."""
    numbered = list(lines)
    if numbered and _format(numbered[0]) == FORMAT_WATCHES:
        return _load_watches(numbered)
    header, *entries = read_trace(numbered)
    end = entries[-1] if entries else header
    assert isinstance(header, Header)
    assert isinstance(end, End), "read_trace has seen to it"
    listed = 0
    responses: list[Response] = []
    for entry in entries:
        if isinstance(entry, Listing):
            listed = entry.revision
        elif isinstance(entry, WatchResponse):
            responses.append(from_watch(entry))
    created = Response("created", listed)
    watch = WatchTrace(0, WatchRequest(ALL, ALL, listed + 1), (created, *responses))
    origin = Origin(
        "simulator", "none", "", header.profile, header.seed, header.objects, header.writes,
        header.faults,
    )  # fmt: skip
    return Trace(origin, (watch,), end.revision)


def _format(line: bytes) -> object:
    try:
        first = json.loads(line)
    except ValueError:
        return None
    return first.get("format") if isinstance(first, dict) else None


def from_watch(response: WatchResponse) -> Response:
    """A response of the simulator as a trace holds it."""
    if response.canceled:
        return Response("canceled", compact_revision=response.compact_revision)
    if response.progress:
        return Response("progress", response.header_revision)
    return Response("events", response.header_revision, response.events)


class _Loading:
    """What of a trace has been read so far."""

    def __init__(self) -> None:
        self.header: Origin | None = None
        self.watches: dict[int, WatchTrace] = {}
        self.responses: dict[int, list[Response]] = {}
        self.truth: list[tuple[Event, ...]] = []
        self.writes: list[Write] = []
        self.compactions: list[Compaction] = []
        self.final: tuple[KeyValue, ...] | None = None
        self.end: int | None = None

    def take(self, line: Line) -> None:
        if (line["type"] == "header") != (self.header is None):
            raise ValueError("a trace begins with its one header")
        match line["type"]:
            case "header":
                self.header = _decode_origin(line)
            case "truth":
                self.truth.append(tuple(map(decode_event, line["events"])))
            case "write":
                self.writes.append(_decode_write(line))
            case "compact":
                self.compactions.append(
                    Compaction(decode_int(line["client"]), decode_int(line["revision"]))
                )
            case "watch":
                self._take_watch(line)
            case "final":
                self.final = tuple(map(decode_kv, line["kvs"]))
            case "end":
                self.end = decode_int(line["revision"])
            case "created" | "events" | "progress" | "canceled":
                if line["watch"] not in self.responses:
                    raise ValueError(f"there is no watch {line['watch']!r} yet")
                self.responses[line["watch"]].append(_decode_response(line))
            case other:
                raise ValueError(f"unknown type {other!r}")

    def _take_watch(self, line: Line) -> None:
        number = decode_int(line["watch"])
        if number != len(self.watches):
            raise ValueError(f"watch {number} is not the next one, {len(self.watches)}")
        filters = tuple(line["filters"])
        if not set(filters) <= {"noput", "nodelete"}:
            raise ValueError(f"unknown filter in {filters!r}")
        request = WatchRequest(
            decode_bytes(line["key"]),
            decode_bytes(line["range_end"]),
            decode_int(line["start_revision"]),
            bool(line["prev_kv"]),
            bool(line["progress_notify"]),
            filters,
        )
        self.watches[number] = WatchTrace(decode_int(line["client"]), request)
        self.responses[number] = []


def _load_watches(lines: Sequence[bytes]) -> Trace:
    loading = _Loading()
    for number, text in enumerate(lines, start=1):
        if loading.end is not None:
            raise ValueError(f"line {number}: the trace has ended before")
        try:
            loading.take(json.loads(text))
        except KeyError as error:
            raise ValueError(f"line {number}: not a line of a trace: no {error}") from error
        except (IndexError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"line {number}: not a line of a trace: {error}") from error
    if loading.header is None or loading.end is None:
        raise ValueError("the trace is cut off: it has no last line")
    watches = tuple(
        WatchTrace(watch.client, watch.request, tuple(loading.responses[number]))
        for number, watch in loading.watches.items()
    )
    return Trace(
        loading.header, watches, loading.end, tuple(loading.truth), tuple(loading.writes),
        tuple(loading.compactions), loading.final,
    )  # fmt: skip


def _decode_origin(line: Line) -> Origin:
    if line["origin"] not in ("simulator", "etcd"):
        raise ValueError(f"unknown origin {line['origin']!r}")
    if line["truth"] not in ("model", "transactions"):
        raise ValueError(f"unknown truth {line['truth']!r}")
    return Origin(
        line["origin"], line["truth"], str(line["version"]), str(line["profile"]),
        decode_int(line["seed"]), decode_int(line["objects"]), decode_int(line["writes"]),
        tuple(map(str, line["faults"])), decode_int(line["clients"]), decode_bytes(line["prefix"]),
        decode_int(line["first_revision"]),
    )  # fmt: skip


def _decode_write(line: Line) -> Write:
    ops: list[Put | DeleteRange] = []
    for kind, key, operand in line["ops"]:
        if kind not in ("put", "delete"):
            raise ValueError(f"unknown operation {kind!r}")
        make = Put if kind == "put" else DeleteRange
        ops.append(make(decode_bytes(key), decode_bytes(operand)))
    deleted = tuple(map(decode_int, line["deleted"]))
    revision = line["revision"]
    return Write(
        decode_int(line["client"]),
        tuple(ops),
        deleted,
        None if revision is None else decode_int(revision),
    )


def _decode_response(line: Line) -> Response:
    kind = line["type"]
    if kind == "canceled":
        return Response(kind, compact_revision=decode_int(line["compact_revision"]))
    header_revision = decode_int(line["header_revision"])
    if kind != "events":
        return Response(kind, header_revision)
    events: list[Event] = []
    for *fields, previous in line["events"]:
        event = decode_event(fields)
        prev_kv = None if previous is None else decode_kv(previous)
        events.append(Event(event.kind, event.kv, prev_kv))
    if not events:
        raise ValueError("an events response without events")
    return Response(kind, header_revision, tuple(events), bool(line["fragment"]))
