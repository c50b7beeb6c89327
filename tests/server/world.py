"""A world to serve: a store that the test writes to, caches over it, a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import httpx
import uvicorn

from btreecache.cache import Cache
from btreecache.errors import Unavailable
from btreecache.features import Features
from btreecache.history import History
from btreecache.resources import Resource
from btreecache.server import listening
from btreecache.server.access import Entrance
from btreecache.server.application import application
from btreecache.server.caches import Caches, served
from btreecache.source import Listing, RangePage, Source, Stream
from btreecache.sources.simulated import SimulatedSource
from btreecache.window import Bounds
from etcdsim import Simulator

TIMEOUT_S = 10.0

#: What a test may alter to see what then happens.
Item = Any


class SharedModel:
    """etcdsim's model as a Source for many threads, without traffic: only the test writes.

    is_down   everything is Unavailable
    progress  False: as an old etcd, whose progress marks can't be trusted
    """

    def __init__(self) -> None:
        self._simulator = Simulator("churn", seed=1, objects=1)
        self._model = self._simulator.model
        self._source = SimulatedSource(self._simulator.truth, "model")
        self.changed = threading.Condition(threading.RLock())
        self.is_down = False
        self.progress = True
        self.name = "model"

    def put(self, key: bytes, value: bytes) -> int:
        with self.changed:
            revision = self._model.put(key, value).revision
            self.changed.notify_all()
            return revision

    def delete(self, key: bytes) -> int:
        with self.changed:
            revision = self._model.delete_range(key).revision
            self.changed.notify_all()
            return revision

    def compact(self, revision: int) -> None:
        with self.changed:
            self._simulator.compact(revision)

    @contextmanager
    def _open(self) -> Iterator[SimulatedSource]:
        with self.changed:
            if self.is_down:
                raise Unavailable("the model is down")
            yield self._source

    def list(self, prefix: bytes) -> Listing:
        with self._open() as source:
            listing = source.list(prefix)
            return Listing(listing.revision, list(listing.elements))

    def watch(self, prefix: bytes, after: int) -> Stream:
        with self._open() as source:
            return ModelStream(self, source.watch(prefix, after))

    def current_revision(self) -> int:
        with self._open() as source:
            return source.current_revision()

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        with self._open() as source:
            return source.range_at(revision, prefix, start, limit, keys_only)

    def close(self) -> None:
        self._source.close()


class ModelStream:
    """A stream of it."""

    def __init__(self, model: SharedModel, stream: Stream) -> None:
        self._model, self._stream = model, stream

    def receive(self, timeout_s: float) -> Item:
        with self._model.changed:
            item = self._stream.receive(0)
            if item is None and timeout_s > 0:
                self._model.changed.wait(timeout_s)
                item = self._stream.receive(0)
            return item

    def request_progress(self) -> bool:
        with self._model.changed:
            if not self._model.progress:
                return False
            asked = self._stream.request_progress()
            self._model.changed.notify_all()
            return asked

    def close(self) -> None:
        self._stream.close()


def pod(namespace: str, name: str, **labels: str) -> bytes:
    """A pod as an API server that stores JSON does."""
    metadata: dict[str, object] = {"name": name, "namespace": namespace}
    if labels:
        metadata["labels"] = labels
    spec = {"nodeName": labels.get("node", "n1")}
    document = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec}
    return json.dumps(document, separators=(",", ":")).encode()


def pod_key(namespace: str, name: str) -> bytes:
    return f"/registry/pods/{namespace}/{name}".encode()


class World:
    """`with` runs the server. `client` speaks to it over a real connection."""

    def __init__(
        self,
        *,
        resources: Sequence[Resource] = (),
        at_start: Sequence[str] = ("pods",),
        features: Features | None = None,
        bounds: Bounds | None = None,
        source: Source | None = None,
        model: SharedModel | None = None,
        archive: Callable[[bytes], History] | None = None,
        follows_definitions: bool = False,
    ) -> None:
        self.model = model or SharedModel()
        known = served(resources, allow_secrets=True)
        named = [one for one in map(known.named, at_start) if one is not None]
        self.caches = Caches(
            source or self.model, known, at_start=named, features=features, bounds=bounds,
            archive=archive, allow_secrets=True, follows_definitions=follows_definitions,
        )  # fmt: skip
        self._sock = listening.bind("127.0.0.1", 0)
        app = application(self.caches, Entrance(allow_secrets=True))
        config = uvicorn.Config(app, http="h11", ws="none", lifespan="on", log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve(sockets=[self._sock]))
        )
        self.url = listening.address(self._sock)
        self.client = httpx.Client(base_url=self.url, timeout=TIMEOUT_S)

    def __enter__(self) -> World:
        self._thread.start()
        self.wait_for(lambda: self._server.started)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()
        self.caches.stop()
        self._server.should_exit = True
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the server doesn't end"

    def discard(self) -> None:
        """Let go of a world that never ran."""
        self._sock.close()
        self.client.close()

    def wait_for(self, reached: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not reached():
            assert time.monotonic() < deadline, "it never happens"
            time.sleep(0.01)

    @property
    def cache(self) -> Cache:
        """The cache of pods."""
        pods = self.caches.resources.named("pods")
        assert pods is not None
        return self.caches.of(pods).cache

    def put_pod(self, namespace: str, name: str, **labels: str) -> int:
        return self.model.put(pod_key(namespace, name), pod(namespace, name, **labels))

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def names(self, path: str) -> list[str]:
        """The names of the objects in a list."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return [item["metadata"]["name"] for item in answer.json()["items"]]

    def frames(self, path: str) -> list[dict[str, Any]]:
        """All frames of a watch that ends by itself."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    @contextmanager
    def watch(self, path: str) -> Iterator[Iterator[dict[str, Any]]]:
        """The frames of a watch, as they come."""
        with self.client.stream("GET", path) as answer:
            assert answer.status_code == 200
            yield map(json.loads, answer.iter_lines())
