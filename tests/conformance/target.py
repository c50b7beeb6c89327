"""What the conformance tests ask: {simulated, etcd} x {library, HTTP} x {snapshots on, off}.

A Target is written to as etcd is and read as the Kubernetes API is, with the query parameters of
the API by their names, and answers the same values whichever way it was asked. Nothing of etcd is
imported here: `make test` has none.

    with open_target(Kind("simulated", "http", True)) as target:
        revision = target.put("first/bar")
        page = target.list(resourceVersion="0", limit=1)
        page.names, page.revision, page.token, page.remaining      # or a Status
        with target.watch(namespace="first") as events:
            events.next()                                          # {"type": .., "object": ..}
"""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

import httpx
import pytest
import uvicorn

from btreecache import Cache, Follower
from btreecache.codec import Kubernetes
from btreecache.element import Element
from btreecache.errors import BtreecacheError, Unavailable
from btreecache.errors import status as status_of
from btreecache.features import Features
from btreecache.fields import fields_of
from btreecache.index import Index
from btreecache.options import GetOptions, ListOptions, WatchOptions
from btreecache.reader import Reader
from btreecache.resources import BUILT_IN, Resource
from btreecache.server import listening
from btreecache.server.application import application
from btreecache.server.caches import Caches, served
from btreecache.source import Listing, RangePage, Source, Stream
from btreecache.watch_stream import WatchEvent, WatchStream
from btreecache.window import Bounds
from etcdsim.txn import DeleteRange, Put
from tests.server.world import SharedModel

TIMEOUT_S = 10.0

#: Of what is written in one transaction: the path of an object and the object, None: delete it.
Change = tuple[str, "dict[str, Any] | bytes | None"]

Frame = dict[str, Any]


class Kind(NamedTuple):
    """Which of the eight targets."""

    source: str
    access: str
    snapshots: bool

    def __str__(self) -> str:
        return f"{self.source}-{self.access}-{'snapshots' if self.snapshots else 'no-snapshots'}"


def kinds(sources: Sequence[str] = ("simulated", "etcd")) -> list[Any]:
    """All of them as parameters of a test or fixture; those with etcd marked as interop."""
    found = []
    for source in sources:
        for access in ("library", "http"):
            for snapshots in (True, False):
                kind = Kind(source, access, snapshots)
                marks = [pytest.mark.interop] if source == "etcd" else []
                found.append(pytest.param(kind, id=str(kind), marks=marks))
    return found


# What is answered.


@dataclass(frozen=True)
class Page:
    """A list. `items` without kind and apiVersion, which items of built-in types don't have."""

    items: list[dict[str, Any]]
    metadata: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """namespace/name of each item, as it was put."""
        return [path_of(item) for item in self.items]

    @property
    def revision(self) -> int:
        return int(self.metadata["resourceVersion"])

    @property
    def token(self) -> str:
        """To continue with; "" on the last page."""
        return str(self.metadata.get("continue", ""))

    @property
    def remaining(self) -> int | None:
        return self.metadata.get("remainingItemCount")


@dataclass(frozen=True)
class Object:
    """The answer to a GET."""

    object: dict[str, Any]

    @property
    def revision(self) -> int:
        """The object's own."""
        return int(self.object["metadata"]["resourceVersion"])


@dataclass(frozen=True)
class Status:
    """A refusal."""

    code: int
    reason: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    token: str = ""

    @property
    def causes(self) -> list[str]:
        return [cause.get("reason", "") for cause in self.details.get("causes", ())]


def read_status(body: Mapping[str, Any]) -> Status:
    """A Status object as a value."""
    assert body["kind"] == "Status", body
    return Status(
        body["code"], body["reason"], body["message"], dict(body.get("details", {})),
        body.get("metadata", {}).get("continue", ""),
    )  # fmt: skip


def path_of(item: Mapping[str, Any]) -> str:
    """namespace/name, or the name alone of what has no namespace."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


# What is written.


def object_at(
    path: str, resource: Resource, labels: Mapping[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """An object for that path, as an API server that stores JSON would lay it out."""
    namespace, _, name = path.rpartition("/")
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = dict(labels)
    made = {"kind": resource.kind, "apiVersion": resource.group_version(resource.versions[0])}
    return {**made, "metadata": metadata, "spec": spec}


class Backend(Protocol):
    """What holds the truth: written to by the test, followed and read by the caches."""

    @property
    def source(self) -> Source: ...

    def put(self, key: bytes, value: bytes) -> int: ...

    def delete(self, key: bytes) -> int | None: ...

    def txn(self, changes: Sequence[tuple[bytes, bytes | None]]) -> int: ...

    def compact(self, revision: int) -> None: ...

    def close(self) -> None: ...


class SimulatedBackend(SharedModel):
    """etcdsim's model."""

    @property
    def source(self) -> Source:
        return self

    def txn(self, changes: Sequence[tuple[bytes, bytes | None]]) -> int:
        operations = [
            DeleteRange(key) if value is None else Put(key, value) for key, value in changes
        ]
        with self.changed:
            revision = self._model.txn([], operations).revision
            self.changed.notify_all()
            return revision


class Counting:
    """A Source that counts the calls that reach another.

    is_silent    progress marks fail, as on a server whose marks are not safe
    is_stalled   streams bring nothing until it ends, as if the network kept everything back
    is_down      every call is Unavailable; streams that are open go on
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.calls: Counter[str] = Counter()
        self.is_silent = False
        self.is_stalled = False
        self.is_down = False

    def _called(self, name: str) -> Source:
        self.calls[name] += 1
        if self.is_down:
            raise Unavailable("the source is down")
        return self._source

    @property
    def name(self) -> str:
        return self._source.name

    def list(self, prefix: bytes) -> Listing:
        return self._called("list").list(prefix)

    def watch(self, prefix: bytes, after: int) -> Stream:
        return _CountedStream(self, self._called("watch").watch(prefix, after))

    def current_revision(self) -> int:
        return self._called("current_revision").current_revision()

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        source = self._called("range_at")
        return source.range_at(revision, prefix, start, limit, keys_only)

    def close(self) -> None:
        self._source.close()


class _CountedStream:
    def __init__(self, source: Counting, stream: Stream) -> None:
        self._source, self._stream = source, stream
        self._held: Any = None

    def receive(self, timeout_s: float) -> Any:
        if self._held is None and not self._source.is_stalled:
            self._held = self._stream.receive(timeout_s)
        # Looked at again: what came on the way is kept back too.
        if self._source.is_stalled:
            time.sleep(min(timeout_s, 0.02))
            return None
        item, self._held = self._held, None
        return item

    def request_progress(self) -> bool:
        return not self._source.is_silent and self._stream.request_progress()

    def close(self) -> None:
        self._stream.close()


# How it is read.


class Access(Protocol):
    """The library or a server."""

    @property
    def cache(self) -> Cache: ...

    @property
    def follower(self) -> Follower: ...

    def get(self, namespace: str, name: str, query: dict[str, str]) -> Object | Status: ...

    def list(self, namespace: str, one: str, query: dict[str, str]) -> Page | Status: ...

    def watch(self, namespace: str, name: str, query: dict[str, str]) -> Events | Status: ...

    def close(self) -> None: ...


class Library:
    """Cache, Follower and Reader, as a program that embeds them has them."""

    def __init__(
        self, source: Source, root: bytes, resource: Resource, features: Features, bounds: Bounds
    ) -> None:
        fields = fields_of(resource.group, resource.plural)
        codec = Kubernetes(fields.fields)
        self._resource, self._root, self._features = resource, root, features
        indexed = [] if resource.plural != "pods" else [_index(codec, "spec.nodeName")]
        self.cache = Cache(resource.prefix(root), codec=codec, bounds=bounds, indexes=indexed)
        self.follower = Follower(source, self.cache)
        self.reader = Reader(
            self.cache, source, follower=self.follower, features=features, codec=codec,
            fields=fields, resource=resource,
        )  # fmt: skip
        self.follower.start()

    def get(self, namespace: str, name: str, query: dict[str, str]) -> Object | Status:
        try:
            options = GetOptions.from_query(query)
            answer = self.reader.get(self._resource.key(namespace, name, self._root), options)
        except BtreecacheError as error:
            return read_status(status_of(error))
        return Object(json.loads(answer.element.value))

    def list(self, namespace: str, one: str, query: dict[str, str]) -> Page | Status:
        try:
            options = ListOptions.from_query(query)
            if one:
                key = self._prefix(namespace) + one.encode()
                page = self.reader.list(options, key, recursive=False)
            else:
                page = self.reader.list(options, self._prefix(namespace))
        except BtreecacheError as error:
            return read_status(status_of(error))
        return Page([_item(element.value) for element in page.elements], page.meta.members())

    def watch(self, namespace: str, name: str, query: dict[str, str]) -> Events | Status:
        try:
            options = WatchOptions.from_query(query).defaulted(self._features)
            if name:
                key = self._resource.key(namespace, name, self._root)
                stream = self.reader.watch(options, key, exact=True)
            else:
                stream = self.reader.watch(options, self._prefix(namespace))
        except BtreecacheError as error:
            return read_status(status_of(error))
        return _StreamEvents(stream, self._resource)

    def _prefix(self, namespace: str) -> bytes:
        prefix = self._resource.prefix(self._root)
        return prefix + namespace.encode() + b"/" if namespace else prefix

    def close(self) -> None:
        self.follower.close()
        self.cache.close()


class Http:
    """A server on loopback and a client, with a real connection between them."""

    def __init__(
        self, source: Source, root: bytes, resource: Resource, features: Features, bounds: Bounds
    ) -> None:
        self._resource = resource
        # history="window": whoever follows the source's compactions asks it, and calls are counted.
        self.caches = Caches(
            source, served(), root=root, at_start=[resource], features=features, bounds=bounds,
            history="window",
        )  # fmt: skip
        self._sock = listening.bind("127.0.0.1", 0)
        config = uvicorn.Config(
            application(self.caches), http="h11", ws="none", lifespan="on", log_config=None
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve(sockets=[self._sock]))
        )
        self.client = httpx.Client(base_url=listening.address(self._sock), timeout=TIMEOUT_S)
        self._thread.start()
        wait_for(lambda: self._server.started)

    @property
    def cache(self) -> Cache:
        return self.caches.of(self._resource).cache

    @property
    def follower(self) -> Follower:
        return self.caches.of(self._resource).follower

    def get(self, namespace: str, name: str, query: dict[str, str]) -> Object | Status:
        body = self._ask(f"{self._path(namespace)}/{name}", query)
        return body if isinstance(body, Status) else Object(body)

    def list(self, namespace: str, one: str, query: dict[str, str]) -> Page | Status:
        body = self._ask(self._path(namespace), _named(query, one))
        if isinstance(body, Status):
            return body
        assert body["kind"] == self._resource.list_kind
        return Page(body["items"], body["metadata"])

    def watch(self, namespace: str, name: str, query: dict[str, str]) -> Events | Status:
        stack = ExitStack()
        params = {"watch": "true", **_named(query, name)}
        answer = stack.enter_context(
            self.client.stream("GET", self._path(namespace), params=params, timeout=None)
        )
        if answer.status_code != 200:
            with stack:
                answer.read()
                return read_status(answer.json())
        return _HttpEvents(answer, stack)

    def _path(self, namespace: str) -> str:
        resource = self._resource
        version = resource.versions[0]
        path = f"/apis/{resource.group}/{version}" if resource.group else f"/api/{version}"
        path += f"/namespaces/{namespace}" if namespace else ""
        return f"{path}/{resource.plural}"

    def _ask(self, path: str, query: dict[str, str]) -> Any:
        answer = self.client.get(path, params=query)
        body = answer.json()
        if answer.status_code == 200:
            return body
        status = read_status(body)
        assert status.code == answer.status_code
        retry = status.details.get("retryAfterSeconds")
        assert answer.headers.get("retry-after") == (str(retry) if retry else None)
        return status

    def close(self) -> None:
        self.client.close()
        self.caches.stop()
        self._server.should_exit = True
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the server doesn't end"


def _index(codec: Kubernetes, name: str) -> Index:
    place = codec.fields.index(name)

    def value_of(element: Element) -> str | None:
        return element.fields[place] if element.fields else None

    return Index(f"f:{name}", value_of)


def _item(value: bytes) -> dict[str, Any]:
    """An element as an item of a list."""
    item: dict[str, Any] = json.loads(value)
    return {name: member for name, member in item.items() if name not in ("kind", "apiVersion")}


def _named(query: dict[str, str], name: str) -> dict[str, str]:
    """The API has no list or watch of one object but by a field selector."""
    if not name:
        return query
    asked = query.get("fieldSelector")
    selector = f"metadata.name={name}"
    return query | {"fieldSelector": f"{asked},{selector}" if asked else selector}


# Watches.


class Ended(Exception):
    """There is nothing more to come."""


class Events(ABC):
    """The frames of a watch as they come. `with` closes it."""

    @abstractmethod
    def next(self, timeout_s: float = TIMEOUT_S) -> Frame:
        """The next one. Raises TimeoutError, and Ended at the end of the watch."""

    @abstractmethod
    def close(self) -> None:
        """End it. Idempotent."""

    def take(self, count: int) -> list[Frame]:
        """The next `count`."""
        return [self.next() for _ in range(count)]

    def rest(self) -> list[Frame]:
        """All until it ends by itself."""
        found = []
        with suppress(Ended):
            while True:
                found.append(self.next())
        return found

    def is_quiet(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes within that time."""
        try:
            self.next(seconds)
        except TimeoutError:
            return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _StreamEvents(Events):
    """Those of a WatchStream, as the server would write them."""

    def __init__(self, stream: WatchStream, resource: Resource) -> None:
        self._stream, self._resource = stream, resource

    def next(self, timeout_s: float = TIMEOUT_S) -> Frame:
        event = self._stream.receive(timeout_s)
        if event is not None:
            return self._frame(event)
        if self._stream.ended:
            raise Ended
        raise TimeoutError

    def _frame(self, event: WatchEvent) -> Frame:
        if event.error is not None:
            shown: dict[str, Any] = status_of(event.error)
        elif event.element is not None:
            shown = json.loads(event.element.value)
        else:
            metadata: dict[str, Any] = {"resourceVersion": str(event.revision)}
            if event.ends_initial_events:
                metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
            version = self._resource.group_version(self._resource.versions[0])
            shown = {"kind": self._resource.kind, "apiVersion": version, "metadata": metadata}
        return {"type": event.type, "object": shown}

    def close(self) -> None:
        self._stream.close()


class _HttpEvents(Events):
    """Those that come over a connection, read by a thread: a read that timed out could not be taken
    up again."""

    def __init__(self, answer: httpx.Response, stack: ExitStack) -> None:
        self._answer, self._stack = answer, stack
        self._frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self._ended = False

    def _read(self) -> None:
        with suppress(httpx.HTTPError):
            for line in self._answer.iter_lines():
                self._frames.put(json.loads(line))
        self._frames.put(None)

    def next(self, timeout_s: float = TIMEOUT_S) -> Frame:
        if self._ended:
            raise Ended
        try:
            frame = self._frames.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if frame is None:
            self._ended = True
            raise Ended
        return frame

    def close(self) -> None:
        if self._thread.is_alive():
            connection = self._answer.extensions["network_stream"].get_extra_info("socket")
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            self._thread.join(TIMEOUT_S)
            assert not self._thread.is_alive(), "the watch doesn't end"
        self._stack.close()


# All of it together.


class Target:
    """One of the eight. Paths are namespace/name, or a name alone where there is no namespace.

    A query's parameters are those of the API: `resourceVersion`, `limit`, ..; `continue_` for the
    one that Python has other plans with. Parameters that are None are not sent.
    """

    def __init__(
        self,
        kind: Kind,
        backend: Backend,
        root: bytes,
        *,
        resource: str = "pods",
        features: Features | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        found = BUILT_IN.named(resource)
        assert found is not None
        features = features or Features(list_from_cache_snapshot=kind.snapshots)
        self.kind, self.resource, self.root = kind, found, root
        self.backend = backend
        self.source = Counting(backend.source)
        access = Library if kind.access == "library" else Http
        self.access: Access = access(self.source, root, found, features, bounds or Bounds())
        wait_for(lambda: self.cache.ready and self.access.follower.request_progress())

    @property
    def cache(self) -> Cache:
        """What is behind it, for looking and for `caught_up`; read through the target."""
        return self.access.cache

    # Writing.

    def object_at(
        self, path: str, labels: Mapping[str, str] | None = None, **spec: Any
    ) -> dict[str, Any]:
        """What `put` writes if it isn't told otherwise."""
        return object_at(path, self.resource, labels, **spec)

    def key(self, path: str) -> bytes:
        namespace, _, name = path.rpartition("/")
        return self.resource.key(namespace, name, self.root)

    def put(self, path: str, made: dict[str, Any] | bytes | None = None) -> int:
        """Write an object, or bytes as they are; the revision that it made."""
        return self.backend.put(self.key(path), self._value(path, made))

    def delete(self, path: str) -> int:
        revision = self.backend.delete(self.key(path))
        assert revision is not None, "nothing to delete"
        return revision

    def txn(self, *changes: Change) -> int:
        """All in one revision; an object that is None is deleted."""
        return self.backend.txn(
            [
                (self.key(path), None if made is None else self._value(path, made))
                for path, made in changes
            ]
        )

    def put_elsewhere(self) -> int:
        """A revision that no event of this resource tells of."""
        return self.backend.put(self.root + b"/elsewhere/x", b"{}")

    def compact(self, revision: int, *, cache: bool = True) -> None:
        """Compact the source, and unless told otherwise the cache as the source."""
        # The cache has one writer, the follower: it must have nothing to do just now.
        self.caught_up()
        self.backend.compact(revision)
        if cache:
            self.cache.compact(revision)

    def current_revision(self) -> int:
        """The source's, uncounted."""
        return self.backend.source.current_revision()

    def _value(self, path: str, made: dict[str, Any] | bytes | None) -> bytes:
        if isinstance(made, bytes):
            return made
        shown = self.object_at(path) if made is None else made
        return json.dumps(shown, separators=(",", ":")).encode()

    # Reading.

    def caught_up(self, revision: int | None = None) -> int:
        """Wait until the cache has reached a revision, None: the source's newest."""
        wanted = self.current_revision() if revision is None else revision
        deadline_s = time.monotonic() + TIMEOUT_S
        while self.cache.revision < wanted:
            assert time.monotonic() < deadline_s, "the cache doesn't follow"
            self.access.follower.request_progress()
            with suppress(BtreecacheError):
                self.cache.wait_for(wanted, 0.05)
        return wanted

    def get(self, path: str, **query: object) -> Object | Status:
        namespace, _, name = path.rpartition("/")
        return self.access.get(namespace, name, _query(query))

    def list(self, namespace: str = "", one: str = "", **query: object) -> Page | Status:
        """A page; with `one` of the object of that name alone (upstream: non-recursive)."""
        return self.access.list(namespace, one, _query(query))

    def page(self, namespace: str = "", one: str = "", **query: object) -> Page:
        """A page, and nothing else will do."""
        found = self.list(namespace, one, **query)
        assert isinstance(found, Page), found
        return found

    def refusal(self, namespace: str = "", one: str = "", **query: object) -> Status:
        """A Status, and nothing else will do."""
        found = self.list(namespace, one, **query)
        assert isinstance(found, Status), found
        return found

    def watch(self, namespace: str = "", name: str = "", **query: object) -> Events:
        """The events; use it with `with`. A refusal before the first of them is an AssertionError:
        see `watch_refusal`."""
        found = self.access.watch(namespace, name, _query(query))
        assert isinstance(found, Events), found
        return found

    def watch_refusal(self, namespace: str = "", name: str = "", **query: object) -> Status:
        """The Status that is answered in place of a watch."""
        found = self.access.watch(namespace, name, _query(query))
        if isinstance(found, Events):
            found.close()
        assert isinstance(found, Status), "a watch was begun"
        return found

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """What reaches the source meanwhile, by name of the call; filled in at the end."""
        found: Counter[str] = Counter()
        before = Counter(self.source.calls)
        yield found
        found.update(self.source.calls)
        found.subtract(before)
        for name in [name for name, count in found.items() if not count]:
            del found[name]

    def close(self) -> None:
        self.access.close()


_namespaces = itertools.count()


class Namespace:
    """Pods of a namespace that nobody else writes to, so that tests can share a target."""

    def __init__(self, target: Target, name: str = "") -> None:
        self.target = target
        self.name = name or f"ns{next(_namespaces)}"

    def path(self, name: str) -> str:
        return f"{self.name}/{name}"

    def put(self, name: str, /, **labels: str) -> int:
        path = self.path(name)
        return self.target.put(path, self.target.object_at(path, labels))

    def delete(self, name: str) -> int:
        return self.target.delete(self.path(name))

    def get(self, name: str, **query: object) -> Object | Status:
        return self.target.get(self.path(name), **query)

    def list(self, **query: object) -> Page | Status:
        return self.target.list(self.name, **query)

    def page(self, **query: object) -> tuple[str, Page]:
        """The names of a page, and it."""
        page = self.target.page(self.name, **query)
        return " ".join(item["metadata"]["name"] for item in page.items), page


def _query(parameters: Mapping[str, object]) -> dict[str, str]:
    return {
        name.rstrip("_"): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in parameters.items()
        if value is not None
    }


def wait_for(reached: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not reached():
        assert time.monotonic() < deadline_s, "it never happens"
        time.sleep(0.005)
