"""History: a recorded trace, everything that a run's feed answered, as JSON lines.

The first line says what the run was, the last what it came to; between them the listing, page by
page, and the watch responses in order. Keys and values are base64. The same run gives the same
bytes, so two runs can be compared by the SHA-256 of their traces, which is that of the whole file.

    {"type":"header","format":1,"profile":..,"seed":..,"objects":..,"writes":..,"faults":["drop=0.1"]}
    {"type":"page","revision":R,"more":true,"kvs":[[key,value,create,mod,version],..]}
    {"type":"events","header_revision":R,"events":[["put",key,value,create,mod,version],
                                                  ["delete",key,mod],..]}
    {"type":"progress","header_revision":R}
    {"type":"canceled","compact_revision":C}
    {"type":"end","revision":R,"responses":N,"injected":{"drop":2}}

This is format 1, of one client that lists and then watches; format 2 is in `etcdsim.trace`.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO

from etcdsim.model import Event, KeyValue, prefix_range
from etcdsim.simulator import Simulator, Stream
from etcdsim.watch import WatchResponse

FORMAT = 1
PAGE_KEYS = 500
_SIZES = ("seed", "objects", "writes")

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Header:
    """What a trace was recorded from."""

    profile: str
    seed: int
    objects: int
    writes: int
    faults: tuple[str, ...]  # NAME=RATE


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the state that the watch starts from."""

    revision: int
    kvs: tuple[KeyValue, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class End:
    """The last line: without it the trace is cut off."""

    revision: int
    responses: int
    injected: dict[str, int]


Entry = Header | Listing | WatchResponse | End


class TraceWriter:
    """Writes entries to a binary file and keeps the SHA-256 of what it wrote. One thread."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, entry: Entry) -> None:
        line = json.dumps(_encode(entry), separators=(",", ":")).encode() + b"\n"
        self._hash.update(line)
        self._file.write(line)


def record(
    simulator: Simulator, writes: int, file: BinaryIO, *, prefix: bytes = b""
) -> TraceWriter:
    """Run a fresh simulator for `writes` steps and write what a client of its feed got."""
    trace = TraceWriter(file)
    faults = tuple(str(fault) for fault in simulator.faults)
    trace.write(Header(simulator.profile, simulator.seed, simulator.objects, writes, faults))
    simulator.load()
    key, range_end = prefix_range(prefix)
    revision = _record_listing(simulator, trace, key, range_end)
    stream = simulator.feed.watch(key, range_end, revision + 1)
    responses = 0
    for _ in range(writes):
        simulator.step()
        responses += _drain(stream, trace)
    simulator.finish()
    responses += _drain(stream, trace)
    stream.close()
    trace.write(End(simulator.feed.current_revision(), responses, simulator.injected))
    return trace


def _record_listing(simulator: Simulator, trace: TraceWriter, key: bytes, range_end: bytes) -> int:
    listing = simulator.feed.range(key, range_end)
    kvs = listing.kvs
    for first in range(0, max(1, len(kvs)), PAGE_KEYS):
        last = first + PAGE_KEYS
        trace.write(Listing(listing.revision, tuple(kvs[first:last]), more=last < len(kvs)))
    return listing.revision


def _drain(stream: Stream, trace: TraceWriter) -> int:
    responses = 0
    while (response := stream.poll()) is not None:
        trace.write(response)
        responses += 1
    return responses


def read_trace(lines: Iterable[bytes]) -> Iterator[Entry]:
    """The entries of a trace, lazily. Raises ValueError, with the line's number, for a line that is
    none of a trace, an unknown format, or a trace without its first or last line."""
    entry: Entry | None = None
    for number, line in enumerate(lines, start=1):
        if isinstance(entry, End):
            raise ValueError(f"line {number}: the trace has ended before")
        try:
            entry = _decode(json.loads(line))
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"line {number}: not a line of a trace: {error}") from error
        if isinstance(entry, Header) != (number == 1):
            raise ValueError(f"line {number}: a trace begins with its one header")
        yield entry
    if not isinstance(entry, End):
        raise ValueError("the trace is cut off: it has no last line")


def encode_bytes(data: bytes) -> str:
    """Base64."""
    return b64encode(data).decode()


def _encode(entry: Entry) -> Line:
    match entry:
        case Header(profile, seed, objects, writes, faults):
            return {
                "type": "header", "format": FORMAT, "profile": profile, "seed": seed,
                "objects": objects, "writes": writes, "faults": list(faults),
            }  # fmt: skip
        case Listing(revision, kvs, more):
            pairs = [encode_kv(kv) for kv in kvs]
            return {"type": "page", "revision": revision, "more": more, "kvs": pairs}
        case End(revision, responses, injected):
            return {
                "type": "end", "revision": revision, "responses": responses,
                "injected": injected,
            }  # fmt: skip
        case WatchResponse():
            return _encode_response(entry)


def _encode_response(response: WatchResponse) -> Line:
    if response.canceled:
        return {"type": "canceled", "compact_revision": response.compact_revision}
    if response.progress:
        return {"type": "progress", "header_revision": response.header_revision}
    return {
        "type": "events",
        "header_revision": response.header_revision,
        "events": [encode_event(event) for event in response.events],
    }


def encode_kv(kv: KeyValue) -> list[object]:
    """[key, value, create, mod, version]."""
    return [
        encode_bytes(kv.key),
        encode_bytes(kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version,
    ]


def encode_event(event: Event) -> list[object]:
    """An event without its prev_kv."""
    if event.kind == "delete":
        return ["delete", encode_bytes(event.kv.key), event.kv.mod_revision]
    return ["put", *encode_kv(event.kv)]


def _decode(line: Line) -> Entry:
    match line["type"]:
        case "header":
            if line["format"] != FORMAT:
                raise ValueError(f"unknown format {line['format']!r}")
            faults = tuple(map(str, line["faults"]))
            seed, objects, writes = (decode_int(line[name]) for name in _SIZES)
            return Header(str(line["profile"]), seed, objects, writes, faults)
        case "page":
            kvs = tuple(map(decode_kv, line["kvs"]))
            return Listing(decode_int(line["revision"]), kvs, line["more"])
        case "events":
            events = tuple(map(decode_event, line["events"]))
            if not events:
                raise ValueError("an events response without events")
            return WatchResponse(decode_int(line["header_revision"]), events)
        case "progress":
            return WatchResponse(decode_int(line["header_revision"]), progress=True)
        case "canceled":
            compacted = decode_int(line["compact_revision"])
            return WatchResponse(0, compact_revision=compacted, canceled=True)
        case "end":
            return End(decode_int(line["revision"]), line["responses"], line["injected"])
        case other:
            raise ValueError(f"unknown type {other!r}")


def decode_kv(fields: Sequence[Any]) -> KeyValue:
    """What `encode_kv` made. Raises ValueError."""
    key, value, created, modified, version = fields
    return KeyValue(
        decode_bytes(key),
        decode_bytes(value),
        decode_int(created),
        decode_int(modified),
        decode_int(version),
    )


def decode_event(fields: Sequence[Any]) -> Event:
    """What `encode_event` made. Raises ValueError."""
    if fields[0] == "put":
        return Event("put", decode_kv(fields[1:]))
    kind, key, modified = fields
    if kind != "delete":
        raise ValueError(f"unknown event {kind!r}")
    return Event("delete", KeyValue(decode_bytes(key), b"", 0, decode_int(modified), 0))


def decode_int(value: object) -> int:
    """An integer as JSON has it. Raises ValueError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"not an integer: {value!r}")
    return value


def decode_bytes(value: str) -> bytes:
    """What `encode_bytes` made. Raises ValueError."""
    return b64decode(value, validate=True)
