"""Reader over a real etcd: what was written is read at once, chains hold, and no one is fooled."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from btreecache import Cache, Compacted, Follower, FutureRevision
from btreecache.codec import Kubernetes
from btreecache.options import GetOptions, ListOptions
from btreecache.reader import AsyncReader, Reader
from btreecache.reads import ListPage
from btreecache.resources import BUILT_IN
from btreecache.source import Source
from btreecache.sources.etcd import EtcdSource
from etcdsim import wire
from tests.interop.etcd_server import EtcdServer, Writer

pytestmark = pytest.mark.interop

PREFIX = b"/registry/pods/"
CODEC = Kubernetes()


def pod(name: str, **labels: str) -> tuple[bytes, bytes]:
    metadata = {"name": name, "namespace": "ns", "labels": labels}
    value = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}
    return PREFIX + f"ns/{name}".encode(), json.dumps(value).encode()


@pytest.fixture
def cache() -> Cache:
    return Cache(PREFIX, codec=CODEC)


@pytest.fixture
def reader(etcd: EtcdServer, writer: Writer, cache: Cache) -> Iterator[Reader]:
    source = EtcdSource(etcd.endpoint)
    with Follower(source, cache) as follower:
        cache.wait_for(1, 10)
        # Until its watch is open nobody can ask it for progress.
        deadline = time.monotonic() + 10
        while marks_are_safe(source) and not follower.request_progress():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pods = BUILT_IN.named("pods")
        yield Reader(cache, source, follower=follower, codec=CODEC, resource=pods)
    source.close()


def marks_are_safe(source: Source) -> bool:
    """By what it calls itself: `etcd 3.5.30 at ..`."""
    return wire.marks_are_safe(source.name.split()[1])


def names(page: ListPage) -> list[str]:
    return [one.key.rpartition(b"/")[2].decode() for one in page.elements]


def test_what_was_written_is_read(reader: Reader, cache: Cache, writer: Writer) -> None:
    for turn in range(30):
        key, value = pod(f"p{turn:02}")
        revision = writer.put(key, value)
        page = reader.list(ListOptions())
        assert len(page.elements) == turn + 1
        assert int(page.meta.resource_version) >= revision
        elsewhere = writer.put(b"/registry/nodes/n", b"")  # no event of ours tells of it
        began = time.monotonic()
        assert int(reader.get(key).resource_version) >= elsewhere
        assert time.monotonic() - began < 2.5, "answered by a mark, not after a timeout"
        source = reader.reads.source
        assert source is not None
        assert cache.revision >= elsewhere or not marks_are_safe(source), "by the cache"

    async def together() -> list[ListPage]:
        shared = AsyncReader(reader)
        return await asyncio.gather(*[shared.list(ListOptions(limit=7)) for _ in range(50)])

    newest = writer.put(*pod("last"))
    for page in asyncio.run(together()):
        assert int(page.meta.resource_version) >= newest
        assert page.meta.remaining_item_count == 24


def test_cache_and_source_answer_the_same(reader: Reader, cache: Cache, writer: Writer) -> None:
    revisions = [writer.put(*pod(f"p{i % 7}", app="xy"[i % 2])) for i in range(25)]
    cache.wait_for(revisions[-1], 10)
    source = Reader(cache, reader.reads.source, codec=CODEC, read="source")
    for revision in revisions:
        for selector in ("", "app=x"):
            for limit in (2, 100):
                options = ListOptions(
                    resource_version=str(revision), limit=limit, label_selector=selector
                )
                from_cache, from_source = reader.list(options), source.list(options)
                assert from_cache.elements == from_source.elements
                if not selector:
                    assert from_cache.meta == from_source.meta
    exact = GetOptions(resource_version=str(revisions[0]), resource_version_match="Exact")
    key = pod("p0")[0]
    assert reader.get(key, exact) == source.get(key, exact)


def test_a_chain_outlives_writes_and_not_compaction(
    reader: Reader, cache: Cache, writer: Writer
) -> None:
    for turn in range(9):
        writer.put(*pod(f"p{turn}"))
    first = reader.list(ListOptions(limit=3))
    newest = writer.put(*pod("p10"))
    second = reader.list(ListOptions(limit=3, continue_token=first.meta.continue_token))
    assert names(first) + names(second) == [f"p{turn}" for turn in range(6)]
    cache.wait_for(newest, 10)
    writer.compact(newest)
    cache.compact(newest)
    with pytest.raises(Compacted) as caught:
        reader.list(ListOptions(limit=3, continue_token=second.meta.continue_token))
    rest = reader.list(ListOptions(continue_token=caught.value.continue_token))
    assert names(rest) == ["p6", "p7", "p8"]
    with pytest.raises(FutureRevision):
        reader.list(ListOptions(resource_version=str(newest + 10**6), timeout_s=0.2))
