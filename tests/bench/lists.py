"""`python -m tests.bench.lists`: what lists and watch frames cost, beside other ways to send them.

Every row has its rivals in the same process, asked in turn and in a new order each round. A figure
is the median of the rounds; a ratio the median of those of paired rounds: how many times as fast
as the rival ours is. CPU time, where nothing else is said: other work on the machine shows less.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple

import msgspec
from google.protobuf.json_format import MessageToJson

from btreecache.block import Blocks
from btreecache.cache import Cache
from btreecache.codec import Kubernetes
from btreecache.codec.schema import schema
from btreecache.codec.transcode import json_of, protobuf_of
from btreecache.element import Element
from btreecache.encoding import deflate
from btreecache.encoding.answer import Answers, form_of
from btreecache.encoding.media import MediaType
from btreecache.encoding.parts import Parts
from btreecache.encoding.values import Values
from btreecache.event import Batch, Event
from btreecache.plan import PageMeta, StartWatch
from btreecache.server.caches import is_typed
from btreecache.tree import Tree
from btreecache.watch_stream import WatchEvent, WatchStream
from tests.bench import encoding_gzip
from tests.bench.serving import PATHS, Served, download, objects, resource_of, started
from tests.bench.table import duration, ratio, ratio_text
from tests.schema import measure
from tests.schema.oracle import Oracle, raw_of

OBJECTS, OBJECT_BYTES = 10_000, 2_600
LARGE_OBJECTS, LARGE_BYTES = 10_000, 100_000
SMALL_OBJECTS, SMALL_BYTES = 1_000_000, 200
WATCHERS = 1_000
ROUNDS = 7
META = PageMeta("4711")
PROTOBUF = "application/vnd.kubernetes.protobuf"

Work = Callable[[], object]


class Rival(NamedTuple):
    """`speed`: how many times as fast as this ours was; `target`: should be at least, or 0."""

    name: str
    seconds: float
    speed: float
    target: float = 0.0


class Row(NamedTuple):
    """One line. `limit_s`: what ours should stay below, or 0."""

    name: str
    ours_s: float
    rivals: tuple[Rival, ...] = ()
    limit_s: float = 0.0
    note: str = ""

    @property
    def missed(self) -> list[str]:
        """The targets that it misses."""
        found = [one.name for one in self.rivals if one.speed < one.target]
        return [*found, "limit"] if self.limit_s and self.ours_s > self.limit_s else found

    def __str__(self) -> str:
        parts = [duration(self.ours_s)]
        if self.limit_s:
            parts.append(f"target < {duration(self.limit_s)}")
        for rival in self.rivals:
            target = f", target {rival.target:g}x" if rival.target else ""
            parts.append(
                f"{ratio_text(rival.speed)}x as fast as {rival.name}"
                f" ({duration(rival.seconds)}{target})"
            )
        if self.note:
            parts.append(self.note)
        verdict = f"  MISSED: {', '.join(self.missed)}" if self.missed else ""
        return f"{self.name}: {'; '.join(parts)}{verdict}"


OURS = "ours"


def turns(
    ways: dict[str, Work], rounds: int, rng: Random, clock: Callable[[], float] = process_time
) -> dict[str, list[float]]:
    """Seconds of each way in each round. A first round, in which everything is touched, aside."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in rng.sample([*ways], len(ways)):
            began = clock()
            ways[name]()
            took = clock() - began
            if turn:
                found[name].append(took)
    return found


def row(
    name: str, times: dict[str, list[float]], targets: dict[str, float] | None = None,
    note: str = "",
) -> Row:  # fmt: skip
    """A row of the times of `turns`; the way OURS is ours."""
    ours = times[OURS]
    rivals = [
        Rival(rival, median(theirs), ratio(theirs, ours), (targets or {}).get(rival, 0.0))
        for rival, theirs in times.items()
        if rival != OURS
    ]
    return Row(name, median(ours), tuple(rivals), note=note)


def drained(chunks: object) -> None:
    """Take every chunk and let go of it, as a sender does."""
    assert hasattr(chunks, "__iter__")
    deque(chunks, maxlen=0)


def elements_of(kind: str, count: int, size: int, stored: str = "json") -> list[Element]:
    """Objects as a cache holds them."""
    decode = Kubernetes().decode
    return [*map(decode, objects(kind, count, size, stored=stored))]


def answers_of(
    kind: str, *, media: MediaType | None = None, values: Values | None = None
) -> Answers:
    """The encoders as the server puts them together for one request."""
    resource, media = resource_of(kind), media or MediaType()
    typed = is_typed(resource)
    form = form_of(resource, "v1", media, values or Values(), typed=typed)
    return Answers(form, media, lambda: 0.0)


# Lists in one process.


def json_rows(count: int, rounds: int, rng: Random) -> Iterator[Row]:
    """Stored as JSON, answered as JSON: joined, not encoded."""
    import orjson

    for kind, what in (("pods", "built-in type"), ("widgets", "custom resource")):
        elements, answers = elements_of(kind, count, OBJECT_BYTES), answers_of(kind)
        head, foot = answers.form.around(META)
        items = [answers.form.item(one) for one in elements]
        # As a server knows it: kept with the nodes of the tree (encoding/kept.py).
        length = sum(map(len, items)) + len(items) - 1
        body = b"".join(answers.page(elements, META, length))
        decoded = orjson.loads(body)
        plain = partial(json.dumps, separators=(",", ":"), ensure_ascii=False)
        assert body == head + b",".join(items) + foot
        assert orjson.loads(orjson.dumps(decoded)) == decoded == json.loads(plain(decoded))
        ways: dict[str, Work] = {
            OURS: lambda: drained(answers.page(elements, META, length)),
            "join": lambda: b",".join(items),
            "orjson": lambda: orjson.dumps(decoded),
            "json": lambda: plain(decoded).encode(),
        }
        yield row(
            f"LIST, JSON stored as JSON, {what}", turns(ways, rounds, rng),
            {"join": 0.5, "orjson": 4.0, "json": 20.0}, _size(body, count),
        )  # fmt: skip


def _size(body: bytes, count: int) -> str:
    return f"{count:,} objects, {len(body) / 1e6:.1f} MB"


def protobuf_rows(count: int, rounds: int, rng: Random) -> Iterator[Row]:
    """Stored as protobuf, as a real cluster stores built-in types."""
    import orjson

    elements = elements_of("pods", count, OBJECT_BYTES, "protobuf")
    roomy = Values(1 << 30)
    answers = answers_of("pods", values=roomy)
    body = b"".join(answers.page(elements, META))
    decoded = orjson.loads(body)
    items = [answers.form.item(one) for one in elements]
    kept = f"{_size(body, count)}, {roomy.memo.size_bytes / 1e6:.0f} MB kept"

    def listed(values: Values) -> None:
        drained(answers_of("pods", values=values).page(elements, META))

    half = Values(roomy.memo.size_bytes // 2)
    ways: dict[str, Work] = {
        OURS: lambda: listed(Values(0)),
        "again, within the budget": lambda: listed(roomy),
        "again, twice the budget": lambda: listed(half),
        "join": lambda: b",".join(items),
        "orjson, dumps alone": lambda: orjson.dumps(decoded),
    }
    times = turns(ways, min(rounds, 3), rng)
    yield row("LIST, JSON stored as protobuf, first", times, note=kept)
    again = {
        OURS: times["again, within the budget"], "join": times["join"],
        "orjson, dumps alone": times["orjson, dumps alone"],
    }  # fmt: skip
    yield row("LIST, JSON stored as protobuf, again", again, note=kept)
    note = f"{len(half.memo):,} kept of {count:,}"
    over = {OURS: times["again, twice the budget"], "join": times["join"]}
    yield row("LIST, JSON stored as protobuf, again, twice the budget", over, note=note)

    wire = answers_of("pods", media=MediaType("protobuf"))
    entries = [wire.form.entry(one) for one in elements]
    body = b"".join(wire.page(elements, META))
    assert body.endswith(b"".join(entries) + b"\x1a\0\x22\0")
    times = turns(
        {OURS: lambda: drained(wire.page(elements, META)), "join": lambda: b"".join(entries)},
        rounds, rng,
    )  # fmt: skip
    yield row("LIST, Protobuf stored as protobuf", times, note=_size(body, count))


def first_byte_rows(large: int, large_bytes: int, small: int, rounds: int) -> Iterator[Row]:
    """Seconds until the first chunk is there, from the page of elements on. Wall time."""
    for kind, count, size, stored in (
        ("configmaps", large, large_bytes, "json"), ("configmaps", small, SMALL_BYTES, "json"),
        ("configmaps", large, large_bytes, "protobuf"),
        ("configmaps", small, SMALL_BYTES, "protobuf"),
    ):  # fmt: skip
        elements = elements_of(kind, count, size, stored)
        what = f"first byte of {count * size / 1e9:.1f} GB, {count:,} objects stored as {stored}"
        media = (MediaType(), MediaType("protobuf"))
        for one in media if stored == "protobuf" else media[:1]:
            took = []
            for _ in range(rounds):
                answers = answers_of(kind, media=one)
                began = perf_counter()
                body = answers.page(elements, META)
                assert next(iter(body))
                took.append(perf_counter() - began)
                body.close()
            yield Row(f"{what}, {one.format}", median(took), limit_s=0.01)
        if stored == "json":
            yield _first_gzip(elements, rounds, what)
        del elements


def _first_gzip(elements: list[Element], rounds: int, what: str) -> Row:
    answers = answers_of("configmaps")
    head, foot = answers.form.around(META)
    took = []
    for _ in range(rounds):
        # Nothing known of any node: a new tree, and a new account.
        tree = Tree.from_sorted((one.key, one) for one in elements)
        parts, form = Parts(Blocks(256 << 20)), deflate.RunKind("json", answers.form.item, b",")
        began = perf_counter()
        assert next(deflate.gzip_list(parts, form, tree, head, foot))
        took.append(perf_counter() - began)
    return Row(f"{what}, gzip, nothing kept", median(took), limit_s=0.01)


def transcoding_rows(count: int, rounds: int) -> Iterator[Row]:
    """An object between protobuf and JSON, and what comes nearest. The best of several rounds."""
    import orjson

    oracle = Oracle(schema())
    parsed = type(oracle.new("v1.Pod"))
    other = measure.recorded()["/registry/pods/shop/bare"][1]
    values = measure.pods(max(1, count // 10), 10)
    texts, raws = [*map(json_of, values)], [*map(raw_of, values)]
    size = sum(map(len, texts))
    ready = partial(measure.fresh, other)
    ways: dict[str, measure.Way] = {
        "json_of": (ready, values),
        "protobuf_of": (lambda: protobuf_of, texts),
        "orjson": (lambda: lambda text: orjson.dumps(orjson.loads(text)), texts),
        "msgspec": (lambda: lambda text: msgspec.json.encode(msgspec.json.decode(text)), texts),
        "json": (lambda: lambda t: json.dumps(json.loads(t), separators=(",", ":")), texts),
        "protobuf runtime, parse": (lambda: parsed.FromString, raws),
        "protobuf runtime, parse and JSON": (
            lambda: lambda raw: MessageToJson(parsed.FromString(raw), indent=None), raws,
        ),
    }  # fmt: skip
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(-(-rounds // measure.ROUNDS)):
        for name, took in measure.best(ways).items():
            found[name] = min(found[name], took)
    for name in ("json_of", "protobuf_of"):
        ours = found[name]
        rivals = [
            Rival(rival, found[rival] / len(values), found[rival] / ours) for rival in [*ways][2:]
        ]
        rate = f"{size / ours / 1e6:.0f} MB of JSON a second"
        yield Row(f"transcoding a pod, {name}", ours / len(values), tuple(rivals), note=rate)


def gzip_rows(rounds: int) -> Iterator[Row]:
    """The rows of encoding_gzip.py."""
    for one, (_, target) in zip(encoding_gzip.rows(rounds), encoding_gzip.TARGETS, strict=True):
        rival = Rival("zlib of the body", one.zlib_s, one.ratio, target)
        yield Row(
            f"LIST, gzip, {one.changed:.1%} changed", one.ours_s, (rival,),
            note=f"size {one.size_ratio - 1:+.1%}",
        )  # fmt: skip


# Over HTTP.


def http_rows(server: Served, what: str, kind: str, rounds: int, rng: Random) -> Iterator[Row]:
    """Whole answers over loopback, from the request to the last byte: wall time and CPU time of
    the server, ours in turn with one buffer sent by the same server.

    The limits of CPU are a tenth of what an API server takes for the list of a custom resource and
    a third of that for a built-in type, both measured on a machine like this.
    """
    path, exact = PATHS[kind], "?resourceVersion=1&resourceVersionMatch=Exact"
    json_type = MediaType().content_type()
    asked = [(json_type, "", ""), (json_type, exact, ""), (json_type, "", "gzip")]
    if "stored as protobuf" in what:
        asked[1] = (PROTOBUF, "", "")
    for accept, query, encoding in asked:
        form = "Protobuf" if accept == PROTOBUF else "JSON"
        title = ", ".join(filter(None, (f"LIST over HTTP, {form}", encoding, what, query)))
        paths = {OURS: path + query, "one buffer": f"/bench/one-buffer{path}{query}"}
        wall: dict[str, list[float]] = {name: [] for name in paths}
        cpu: dict[str, list[float]] = {name: [] for name in paths}
        connection, sizes = server.connection(), set()
        for turn in range(rounds + 1):
            for name in rng.sample([*paths], len(paths)):
                before = server.cpu_s()
                answer = download(connection, paths[name], accept=accept, encoding=encoding)
                spent = server.cpu_s() - before
                assert answer.whole, (paths[name], answer)
                sizes.add(answer.size)
                if turn:
                    wall[name].append(answer.seconds)
                    cpu[name].append(spent)
        connection.close()
        assert encoding or len(sizes) == 1, "the rival sends other bytes"
        note = f"{max(sizes) / 1e6:.1f} MB"
        yield row(f"{title}, wall", wall, {} if encoding else {"one buffer": 0.8}, note)
        limit_s = 0.078 if kind == "widgets" else 0.055
        yield row(f"{title}, CPU", cpu, note=note)._replace(limit_s=limit_s)


# Watches.


def fan_out_rows(watchers: int, rounds: int, rng: Random) -> Iterator[Row]:
    """One event to many watchers: each its own frame, beside the same bytes prebuilt.

    `send`: to a socket each, whose other end is emptied between rounds. `encoding alone`: without
    the sockets, and prebuilt bytes are copied.
    """
    for kind, stored, media in (
        ("pods", "json", MediaType()), ("pods", "protobuf", MediaType()),
        ("pods", "protobuf", MediaType("protobuf")), ("pods", "json", MediaType(as_="Table")),
    ):  # fmt: skip
        element = elements_of(kind, 1, OBJECT_BYTES, stored)[0]
        what = f"{media.as_ or media.format} stored as {stored}, {watchers:,} watchers"
        yield from _fan_out(element, media, watchers, rounds, rng, what)


def _fan_out(
    element: Element, media: MediaType, watchers: int, rounds: int, rng: Random, what: str
) -> Iterator[Row]:
    values = Values()
    # Each watch has Answers of its own, all of them the server's Values.
    each = [answers_of("pods", media=media, values=values) for _ in range(watchers)]
    event = WatchEvent("MODIFIED", element.mod_revision, element)
    built = each[0].frame(event, is_first=False)
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(watchers)]
        for one in pairs:
            stack.enter_context(one[0])
            stack.enter_context(one[1])
        ends = [near for near, _ in pairs]
        caches = _streams(element, watchers)

        def sent(encode: bool, poll: bool) -> float:
            streams = next(caches) if poll else [None] * watchers
            began = process_time()
            for answers, stream, end in zip(each, streams, ends, strict=True):
                found = stream.poll() if stream is not None else event
                assert found is not None
                end.send(answers.frame(found, is_first=False) if encode else built)
            took = process_time() - began
            for _, far in pairs:
                assert len(far.recv(len(built) + 1)) == len(built)
            return took

        times: dict[str, list[float]] = {}
        ways = {OURS: (True, True), "prebuilt, same loop": (False, True),
                "prebuilt, nothing polled": (False, False)}  # fmt: skip
        for turn in range(rounds + 1):
            for name in rng.sample([*ways], len(ways)):
                took = sent(*ways[name])
                if turn:
                    times.setdefault(name, []).append(took)
    ordered = {name: times[name] for name in ways}
    yield row(f"fan-out, poll, frame, send, {what}", ordered, {"prebuilt, same loop": 0.5})
    alone = turns(
        {
            OURS: lambda: [one.frame(event, is_first=False) for one in each],
            "prebuilt, copied": lambda: [bytearray(built) for _ in each],
        },
        rounds, rng,
    )  # fmt: skip
    yield row(f"fan-out, encoding alone, {what}", alone)


def _streams(element: Element, watchers: int) -> Iterator[list[WatchStream]]:
    """Watches of one cache, each time with one event to come, that of `element`."""
    before = Element(element.key, element.value, 1, 1, 1)
    while True:
        cache = Cache(b"/registry/pods/")
        cache.replace(1, [before])
        start = StartWatch(1, initial=False, end_bookmark=False, bookmarks=False, deadline_s=None)
        streams = [WatchStream(cache, start, b"/registry/pods/") for _ in range(watchers)]
        after = Element(element.key, element.value, 2, 1, 2)
        cache.apply(Batch(2, (Event(element.key, after, before),)))
        yield streams


def main() -> None:
    groups = ("json", "protobuf", "first-byte", "transcoding", "gzip", "http", "fan-out")
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lists", description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=groups, default=groups)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the figures there as JSON")
    asked = parser.parse_args()
    rng, found = Random(1), []
    for group in asked.rows:
        for one in _group(group, asked.objects, asked.rounds, rng):
            print(one, flush=True)
            found.append(one)
    if asked.keep:
        figures: list[Any] = [one._asdict() for one in found]
        asked.keep.write_text(json.dumps(figures, indent=1) + "\n")
    missed = sum(bool(one.missed) for one in found)
    print(f"{len(found)} rows, {missed} with a target missed", file=sys.stderr)


def _group(group: str, count: int, rounds: int, rng: Random) -> Iterator[Row]:
    match group:
        case "json":
            yield from json_rows(count, rounds, rng)
        case "protobuf":
            yield from protobuf_rows(count, rounds, rng)
        case "first-byte":
            yield from first_byte_rows(LARGE_OBJECTS, LARGE_BYTES, SMALL_OBJECTS, rounds)
        case "transcoding":
            yield from transcoding_rows(500, rounds)
        case "gzip":
            yield from gzip_rows(rounds)
        case "http":
            for kind, stored, what in (
                ("pods", "json", "built-in type"), ("widgets", "json", "custom resource"),
                ("pods", "protobuf", "built-in type stored as protobuf"),
            ):  # fmt: skip
                with started(
                    kind, count, OBJECT_BYTES, stored=stored, updates=100, keeps_freed=True
                ) as server:
                    yield from http_rows(server, what, kind, 2 * rounds, rng)
        case "fan-out":
            yield from fan_out_rows(WATCHERS, rounds, rng)


if __name__ == "__main__":
    main()
