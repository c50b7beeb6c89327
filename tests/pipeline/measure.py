"""The measurements. Each returns numbers for a row; times are CPU time unless they say wall.

`parse` is protobuf alone: `FromString` of the same bytes. `decode` is what a client that keeps
nothing would do: parse, and make an element and an event of each. They run in turn with the whole
in the same process and minute, because on a shared machine only ratios of neighbours mean much.
"""

from __future__ import annotations

import gc
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Literal

import grpc
import msgspec

from btreecache.cache import Cache
from btreecache.codec import Kubernetes
from btreecache.codec.transcode import json_of
from btreecache.element import Element
from btreecache.event import Batch, Event
from btreecache.follow import Follower
from btreecache.snapshot import prefix_end
from btreecache.sources.etcd import EtcdSource, EtcdStream, _element, _event
from btreecache.sources.simulated import SimulatedSource
from btreecache.window import Bounds
from etcdsim import wire
from etcdsim.simulator import Simulator
from tests.interop.etcd_server import EtcdServer, Writer
from tests.pipeline.traffic import LOADED, PREFIX, Played, Traffic

Row = dict[str, Any]


class Pauses:
    """How long collections of the garbage collector take, by its own callbacks. A context.

    By the wall, which on a shared machine counts what others ran meanwhile, and in CPU time of the
    collecting thread, which doesn't.
    """

    def __init__(self) -> None:
        self.longest_s = self.longest_cpu_s = 0.0
        self.count = 0
        self._began = self._began_cpu = 0.0

    def __enter__(self) -> Pauses:
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, _: object) -> None:
        if phase == "start":
            self._began, self._began_cpu = time.perf_counter(), time.thread_time()
        else:
            self.count += 1
            self.longest_cpu_s = max(self.longest_cpu_s, time.thread_time() - self._began_cpu)
            self.longest_s = max(self.longest_s, time.perf_counter() - self._began)


def cpu_s(work: Callable[[], object]) -> float:
    """CPU time of the process, all threads, that `work` takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def parse(responses: list[bytes]) -> None:
    for raw in responses:
        wire.WatchResponse.FromString(raw)


def decode(responses: list[bytes]) -> None:
    for raw in responses:
        for event in wire.WatchResponse.FromString(raw).events:
            _event(event)


def loaded(traffic: Traffic) -> Cache:
    """A cache with the objects of the list."""
    cache = Cache(PREFIX)
    cache.replace(LOADED, elements(traffic.pages()))
    return cache


def elements(pages: Iterator[bytes]) -> Iterator[Element]:
    for raw in pages:
        for kv in wire.RangeResponse.FromString(raw).kvs:
            yield _element(kv)


def drained(stream: EtcdStream, cache: Cache, revision: int) -> None:
    """Everything up to `revision` from the stream into the cache."""
    while cache.revision < revision:
        item = stream.receive(5.0)
        if isinstance(item, Batch):
            cache.apply(item)


def wire_to_window(objects: int, events: int, per_response: int, rounds: int) -> Row:
    """Bytes of responses through an EtcdStream, its thread and queue, into a cache; per event."""
    traffic = Traffic(objects)
    cache, figures = loaded(traffic), list[tuple[float, float, float]]()
    for _ in range(rounds):
        after = traffic.revision
        responses = traffic.responses(events, per_response)
        connection: Any = Played(responses)
        create = wire.WatchCreateRequest()
        stream = EtcdStream(connection, create, after=after, marks=True, buffer_bytes=8 << 20)
        whole = cpu_s(lambda stream=stream: drained(stream, cache, traffic.revision))
        stream.close()
        parsed = cpu_s(lambda responses=responses: parse(responses))
        decoded = cpu_s(lambda responses=responses: decode(responses))
        figures.append((whole, whole / parsed, whole / decoded))
    whole, to_parse, to_decode = (median(column) for column in zip(*figures, strict=True))
    return {
        "row": f"wire to window, {objects:,} objects, {per_response} events a response",
        "us_per_event": whole / events * 1e6,
        "events_per_s": events / whole,
        "times_parse": to_parse,
        "times_decode": to_decode,
    }


def kubernetes_to_window(
    objects: int, events: int, rounds: int, form: Literal["JSON", "protobuf"]
) -> Row:
    """Batches of pods into a cache with the Kubernetes codec, against its decoding alone."""
    profile = Simulator("kubernetes", seed=0, objects=objects)
    profile.load()
    listed = SimulatedSource(profile.truth).list(b"/registry/pods/")
    kept = [*listed.elements]
    if form == "JSON":
        kept = [msgspec.structs.replace(element, value=json_of(element.value)) for element in kept]
    codec, revision = Kubernetes(), listed.revision
    cache = Cache(b"/registry/pods/", codec=codec)
    cache.replace(revision, kept)
    figures = list[tuple[float, float]]()
    versions = {element.key: element for element in kept}
    for _ in range(rounds):
        batches = []
        for number in range(events):
            old = versions[kept[number * 7919 % len(kept)].key]
            revision += 1
            value = bytes(bytearray(old.value))  # a new object
            new = Element(old.key, value, revision, old.create_revision, old.version + 1)
            versions[old.key] = new
            batches.append(Batch(revision, (Event(old.key, new),)))
        whole = cpu_s(lambda batches=batches: [*map(cache.apply, batches)])
        alone = cpu_s(lambda batches=batches: [codec.decode(b.events[0].element) for b in batches])
        figures.append((whole, whole / alone))
    assert not cache.unreadable
    whole, ratio = (median(column) for column in zip(*figures, strict=True))
    return {
        "row": f"Kubernetes codec, {len(kept):,} pods as {form}: decoded, applied, published",
        "us_per_event": whole / events * 1e6,
        "events_per_s": events / whole,
        "times_decode": ratio,
    }


def page_at_a_past_revision(binary: Path, objects: int, writes: int, pages: int) -> Row:
    """A page of 500 at a past revision: from a snapshot, and from etcd's Range over loopback.

    Twenty pages each in turn, at the same revisions and starts. etcd's answer is taken as bytes
    (`times_range`), and made into elements (`times_range_read`), as a reader would need it. Wall
    time.
    """
    memory = Path("/dev/shm")
    data_dir = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    traffic, figures = Traffic(objects), list[tuple[float, float, float]]()
    with EtcdServer(binary, data_dir) as server, Writer(server.endpoint) as writer:
        for raw in traffic.pages():
            for kv in wire.RangeResponse.FromString(raw).kvs:
                writer.put(kv.key, kv.value)
        source, cache = EtcdSource(server.endpoint), Cache(PREFIX, bounds=Bounds(age_s=None))
        with Follower(source, cache):
            for raw in traffic.responses(writes, 1):
                kv = wire.WatchResponse.FromString(raw).events[0].kv
                revision = writer.put(kv.key, kv.value)
            cache.wait_for(revision, 60.0)
        keys = [element.key for element in cache.snapshot()]
        channel = grpc.insecure_channel(server.endpoint)
        call = channel.unary_unary(
            wire.RANGE.path, request_serializer=wire.RangeRequest.SerializeToString
        )
        window = cache.state.readable()
        span = window.current - window.oldest
        asked = [
            (window.oldest + n * 7919 % span, keys[n * 104_729 % (len(keys) - 500)])
            for n in range(pages)
        ]
        for first in range(0, pages, 20):
            some = asked[first : first + 20]
            requests = [
                wire.RangeRequest(
                    key=start, range_end=prefix_end(PREFIX), limit=500, revision=revision
                )
                for revision, start in some
            ]
            began = time.perf_counter()
            mine = [cache.list(start=s, limit=500, revision=r).elements for r, s in some]
            took = time.perf_counter() - began
            began = time.perf_counter()
            raws = [call(request) for request in requests]
            ranged = time.perf_counter() - began
            theirs = [[*map(_element, wire.RangeResponse.FromString(raw).kvs)] for raw in raws]
            read = time.perf_counter() - began
            assert mine == theirs
            figures.append((took / len(some), ranged / took, read / took))
        channel.close()
        name = source.name.split(" at ")[0]
        source.close()
    shutil.rmtree(data_dir)
    took, ranged, read = (median(column) for column in zip(*figures, strict=True))
    return {
        "row": f"page of 500 of {objects:,} at a past revision, {name} over loopback",
        "us_per_page": took * 1e6,
        "times_range": ranged,
        "times_range_read": read,
    }


def from_simulator(objects: int, writes: int) -> Row:
    """The simulator's own responses, which are no bytes; what its writes cost is left out."""
    simulator = Simulator("kubernetes", seed=0, objects=objects)
    simulator.load()
    source, cache = SimulatedSource(simulator.feed), Cache(b"/registry/")
    follower = Follower(source, cache)
    follower.step()
    follower.step()
    for _ in range(writes):
        simulator.step()
    simulator.finish()

    def follow() -> None:
        while follower.step():
            pass

    took = cpu_s(follow)
    stats = cache.stats()
    assert stats.feed_faults == 0
    return {
        "row": f"from the simulator, {objects:,} objects",
        "us_per_event": took / stats.applied_events * 1e6,
        "events_per_s": stats.applied_events / took,
    }


def from_etcd(binary: Path, events: int, keys: int = 1000) -> Row:
    """A watch that catches up with a real etcd over loopback; a bare reader of the same in turn."""
    memory = Path("/dev/shm")
    data_dir = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    traffic = Traffic(keys)
    with EtcdServer(binary, data_dir) as server, Writer(server.endpoint) as writer:
        for raw in traffic.responses(events, 1):
            kv = wire.WatchResponse.FromString(raw).events[0].kv
            revision = writer.put(kv.key, kv.value)
        source = EtcdSource(server.endpoint)
        cache, figures = Cache(PREFIX), list[tuple[float, float, float]]()
        for _ in range(3):
            began = time.perf_counter()
            bare = cpu_s(lambda: _bare(source, revision))
            bare_wall = time.perf_counter() - began
            cache.replace(1, [])
            began = time.perf_counter()
            whole = cpu_s(lambda: _caught_up(source, cache, revision))
            figures.append((whole, whole / bare, (time.perf_counter() - began) / bare_wall))
        name = source.name.split(" at ")[0]
        source.close()
    shutil.rmtree(data_dir)
    whole, ratio, wall_ratio = (median(column) for column in zip(*figures, strict=True))
    return {
        "row": f"from {name} over loopback, catching up",
        "us_per_event": whole / events * 1e6,
        "events_per_s": events / whole,
        "times_parse": ratio,
        "times_parse_wall": wall_ratio,
    }


def _bare(source: EtcdSource, revision: int) -> None:
    """gRPC and protobuf alone: the same stream, its responses parsed and dropped."""
    stream = source.watch(PREFIX, 1)
    seen = 1
    while seen < revision:
        raw = stream._reader.take(5.0)
        assert isinstance(raw, bytes)
        events = wire.WatchResponse.FromString(raw).events
        seen = events[-1].kv.mod_revision if events else seen
    stream.close()


def _caught_up(source: EtcdSource, cache: Cache, revision: int) -> None:
    stream = source.watch(PREFIX, 1)
    drained(stream, cache, revision)
    stream.close()


def load_and_update(objects: int, events: int) -> Row:
    """An initial load of pages as bytes, then updates: time, memory, pauses. In a fresh process.

    Every object has a value of its own. The time to make the pages is taken out again.
    """
    traffic, making, parsing = Traffic(objects), 0.0, 0.0

    def pages() -> Iterator[bytes]:
        nonlocal making, parsing
        source = traffic.pages()
        while True:
            began = time.process_time()
            page = next(source, None)
            made = time.process_time()
            if page is None:
                return
            wire.RangeResponse.FromString(page)
            making, parsing = making + made - began, parsing + time.process_time() - made
            yield page

    cache = Cache(PREFIX)
    with Pauses() as loading:
        took = cpu_s(lambda: cache.replace(LOADED, elements(pages()))) - making - parsing
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    latencies = list[float]()
    with Pauses() as updating:
        for _ in range(events // 1000):
            for raw in traffic.responses(1000, 50):
                for wired in wire.WatchResponse.FromString(raw).events:
                    event, revision = _event(wired)
                    batch = Batch(revision, (event,))
                    began = time.perf_counter()
                    cache.apply(batch)
                    latencies.append(time.perf_counter() - began)
    assert len(cache.state.readable()) == events // 1000 * 1000 + 1
    began = time.perf_counter()
    gc.collect()
    full = time.perf_counter() - began
    latencies.sort()
    return {
        "row": f"initial load of {objects:,} objects of 2 KB, then {events:,} updates",
        "load_s": took,
        "times_parse": took / parsing,
        "peak_bytes_per_object": peak / objects,
        "peak_gb": peak / 1e9,
        "longest_pause_loading_ms": loading.longest_s * 1e3,
        "longest_pause_updating_ms": updating.longest_s * 1e3,
        "longest_pause_loading_cpu_ms": loading.longest_cpu_s * 1e3,
        "longest_pause_updating_cpu_ms": updating.longest_cpu_s * 1e3,
        "full_collection_ms": full * 1e3,
        "tracked_objects": len(gc.get_objects()),
        "apply_p50_us": latencies[len(latencies) // 2] * 1e6,
        "apply_p999_us": latencies[len(latencies) * 999 // 1000] * 1e6,
        "apply_max_ms": latencies[-1] * 1e3,
    }
