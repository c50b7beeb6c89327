"""`python -m tests.bench.serving`: a server full of objects, in a process of its own to measure.

The server is the project's: its application over Caches, which follow a source that holds the
objects. Beside the API it answers to

    /bench/one-buffer/PATH   what PATH answers with, from one buffer that is made once: the rival
    /bench/cpu               seconds of CPU that this process has used
    /bench/idle              after what can be given back to the system was
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import os
import resource as limits
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from random import Random
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from btreecache.codec.transcode import protobuf_of
from btreecache.element import Element
from btreecache.errors import Unavailable
from btreecache.event import Batch, Event, Progress
from btreecache.features import Features
from btreecache.resources import Resource, parse_resource
from btreecache.server import listening
from btreecache.server.application import application
from btreecache.server.caches import Caches, served
from btreecache.source import Listing, RangePage
from tests.bench.harness import ROOT
from tests.schema.measure import recorded
from tests.server.visit import visit

START_S, ANSWER_S = 120.0, 600.0
#: Bytes of one read of a client.
READ_BYTES = 1 << 20

#: A custom resource, whose lists an API server writes in another way.
WIDGETS = parse_resource("example.com/v1/widgets:Widget:namespaced")
PATHS = {
    "pods": "/api/v1/pods",
    "configmaps": "/api/v1/configmaps",
    "widgets": "/apis/example.com/v1/widgets",
}

#: glibc: below 32 MB nothing is mapped for itself, and the heap never shrinks (mallopt(3)).
KEEPS_FREED = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}

#: A thousand objects in a namespace.
NAMESPACE = 1_000


def resource_of(kind: str) -> Resource:
    """The resource of a kind of PATHS."""
    found = served([WIDGETS]).named(kind)
    assert found is not None
    return found


def objects(
    kind: str, count: int, object_bytes: int, *, stored: str = "json", seed: int = 1
) -> Iterator[Element]:
    """Objects as etcd holds them, in key order, each about `object_bytes` of JSON. Lazy.

    pods, widgets: a pod that a real API server stored, with environment variables for the rest of
    the bytes. configmaps: one random text. `stored`: json or protobuf.
    """
    rng, template = Random(seed), _template(kind, object_bytes)
    prefix = resource_of(kind).prefix()
    for at in range(count):
        space, name = f"team-{at // NAMESPACE:03}", f"app-{at:07}-{rng.randbytes(3).hex()}"
        value = template.replace(b"@space@", space.encode()).replace(b"@name@", name.encode())
        value = value.replace(b"@uid@", rng.randbytes(16).hex().encode(), 1)
        if (fill := object_bytes - len(value)) > 0:
            # Hardly to be compressed, as what fills large objects often is.
            value = value.replace(b"@fill@", b64encode(rng.randbytes(fill * 3 // 4)), 1)
        if stored == "protobuf":
            value = protobuf_of(value)
        yield Element(prefix + f"{space}/{name}".encode(), value, 1, 1, 1)


def _template(kind: str, object_bytes: int) -> bytes:
    if kind == "configmaps":
        metadata = {"name": "@name@", "namespace": "@space@", "uid": "@uid@"}
        body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata,
                "data": {"blob": "@fill@"}}  # fmt: skip
        return json.dumps(body, separators=(",", ":")).encode()
    pod: dict[str, Any] = json.loads(recorded()["/registry/pods/shop/bare"][2])
    pod["metadata"] |= {"name": "@name@", "namespace": "@space@", "uid": "@uid@"}
    # The server fills it in on reading, and so do we.
    del pod["metadata"]["resourceVersion"]
    variables: list[dict[str, str]] = []
    pod["spec"]["containers"][0]["env"] = variables
    if kind == "widgets":
        pod |= {"kind": "Widget", "apiVersion": "example.com/v1"}
        pod = dict(sorted(pod.items()))
    text = json.dumps(pod, separators=(",", ":"))
    while len(text) < object_bytes - 110:
        at = len(variables)
        variables.append({"name": f"SETTING_{at}", "value": f"http://service-{at}.@space@.svc"})
        text = json.dumps(pod, separators=(",", ":"))
    return text.encode()


class Held:
    """A Source that holds objects, and after their list says some updates, one a revision."""

    name = "held"

    def __init__(self, kind: str, count: int, object_bytes: int, stored: str, updates: int) -> None:
        self._prefix = resource_of(kind).prefix()
        self._made = kind, count, object_bytes, stored
        self._updates = updates
        self.closed = threading.Event()

    def list(self, prefix: bytes) -> Listing:
        return Listing(1, self._objects() if prefix == self._prefix else ())

    def _objects(self) -> Iterator[Element]:
        kind, count, object_bytes, stored = self._made
        return objects(kind, count, object_bytes, stored=stored)

    def watch(self, prefix: bytes, after: int) -> HeldStream:
        items: list[Batch | Progress] = []
        if prefix == self._prefix and after == 1:
            for one in self._objects():
                if len(items) == self._updates:
                    break
                updated = Element(one.key, one.value, len(items) + 2, 1, 2)
                items.append(Batch(updated.mod_revision, (Event(one.key, updated),)))
        return HeldStream(self, [*items, Progress(self.current_revision())])

    def current_revision(self) -> int:
        return 1 + self._updates

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        """Of other prefixes: nothing is there. What is measured has to come from the cache."""
        if prefix == self._prefix:
            raise Unavailable("there is nothing to be read here")
        return RangePage([], False, 0, 0)

    def close(self) -> None:
        self.closed.set()


class HeldStream:
    """Its stream: what there is to say, then silence."""

    def __init__(self, source: Held, items: Sequence[Batch | Progress]) -> None:
        self._source, self._items = source, iter(items)

    def receive(self, timeout_s: float) -> Batch | Progress | None:
        item = next(self._items, None)
        if item is None:
            self._source.closed.wait(timeout_s)
        return item

    def request_progress(self) -> bool:
        self._items = iter([*self._items, Progress(self._source.current_revision())])
        return True

    def close(self) -> None:
        self._items = iter(())


class Measured:
    """The application, and what is beside it under /bench/."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._buffers: dict[object, tuple[dict[str, Any], bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if not path.startswith("/bench/"):
            await self._app(scope, receive, send)
            return
        start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
        if path == "/bench/cpu":
            body = b"%f" % time.process_time()
        elif path == "/bench/idle":
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            body = b"idle"
        else:
            start, body = await self._one_buffer(path.removeprefix("/bench/one-buffer"), scope)
        others = [pair for pair in start["headers"] if pair[0] != b"content-length"]
        length = (b"content-length", b"%d" % len(body))
        await send(start | {"headers": [*others, length]})
        await send({"type": "http.response.body", "body": body})

    async def _one_buffer(self, path: str, scope: Scope) -> tuple[dict[str, Any], bytes]:
        query, headers = scope["query_string"], scope["headers"]
        accept = sorted(pair for pair in headers if pair[0].startswith(b"accept"))
        name = path, query, *accept
        if name not in self._buffers:
            seen = await visit(
                self._app, path, query, headers=headers, leave_after_s=ANSWER_S, end_within_s=10.0
            )
            self._buffers[name] = seen.messages[0], seen.body
        return self._buffers[name]


class Answer(NamedTuple):
    """An answer whose body was thrown away. `whole`: it came to its end, with status 200."""

    status: int
    size: int
    whole: bool
    first_s: float
    seconds: float


class Served(NamedTuple):
    """A server in a child process."""

    process: subprocess.Popen[bytes]
    port: int

    def connection(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)

    def text(self, path: str) -> bytes:
        """A short answer."""
        connection = self.connection()
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def cpu_s(self) -> float:
        return float(self.text("/bench/cpu"))


def download(
    connection: HTTPConnection,
    path: str,
    *,
    accept: str = "application/json",
    encoding: str = "",
    bytes_per_s: float = 0.0,
) -> Answer:
    """Ask, and throw the body away as it comes; not faster than `bytes_per_s` if there is one."""
    buffer = bytearray(READ_BYTES if not bytes_per_s else READ_BYTES >> 4)
    began, size, status, first_s = time.perf_counter(), 0, 0, 0.0
    whole = False
    try:
        headers = {"Accept": accept} | ({"Accept-Encoding": encoding} if encoding else {})
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as answer:
            status = answer.status
            stated = answer.getheader("Content-Length")
            while got := answer.readinto(buffer):
                size += got
                first_s = first_s or time.perf_counter() - began
                if bytes_per_s and (ahead := began + size / bytes_per_s - time.perf_counter()) > 0:
                    time.sleep(ahead)
            # A reader of what is cut off by its length gets no error from http.client.
            whole = status == 200 and stated in (None, str(size))
    except (OSError, HTTPException):
        pass
    return Answer(status, size, whole, first_s, time.perf_counter() - began)


@contextmanager
def started(
    kind: str,
    count: int,
    object_bytes: int,
    *,
    stored: str = "json",
    updates: int = 0,
    gates: str = "",
    limit_bytes: int = 0,
    keeps_freed: bool = False,
) -> Iterator[Served]:
    """A server that is ready.

    limit_bytes   what it may have of memory, hard (RLIMIT_DATA)
    keeps_freed   its allocator gives nothing back. Else one large buffer may be mapped anew for
                  every answer, or not, as chance has it: that made the rival three times slower
    """
    words = [kind, count, object_bytes, stored, updates, gates or "-", limit_bytes]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.serving", *map(str, words)],
        cwd=ROOT, stdout=subprocess.PIPE, env=os.environ | (KEEPS_FREED if keeps_freed else {}),
        # Out of memory, it has much to say.
        stderr=subprocess.DEVNULL if limit_bytes else None,
    )  # fmt: skip
    try:
        assert process.stdout
        port = int(process.stdout.readline() or b"0")
        found = Served(process, port)
        newest = b'"resourceVersion":"%d"' % (1 + updates)
        deadline = time.perf_counter() + START_S
        while True:
            try:
                if newest in found.text(f"{PATHS[kind]}?limit=1"):
                    break
            except OSError:
                pass
            assert process.poll() is None, "the server has ended"
            assert time.perf_counter() < deadline, "the server isn't ready"
            time.sleep(0.02)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving", description=__doc__)
    parser.add_argument("kind", choices=PATHS)
    parser.add_argument("count", type=int)
    parser.add_argument("object_bytes", type=int)
    parser.add_argument("stored", choices=("json", "protobuf"))
    parser.add_argument("updates", type=int)
    parser.add_argument("gates", help="as --feature-gates; -: none")
    parser.add_argument("limit_bytes", type=int, help="RLIMIT_DATA; 0: no limit")
    asked = parser.parse_args()
    if asked.limit_bytes:
        limits.setrlimit(limits.RLIMIT_DATA, (asked.limit_bytes, asked.limit_bytes))
    source = Held(asked.kind, asked.count, asked.object_bytes, asked.stored, asked.updates)
    features = Features.parse("" if asked.gates == "-" else asked.gates)
    caches = Caches(
        source, served([WIDGETS]), at_start=[resource_of(asked.kind)], features=features
    )
    # As listening.serve has it.
    config = uvicorn.Config(
        Measured(application(caches)), loop="asyncio", http="h11", ws="none", lifespan="on",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    with listening.bind("127.0.0.1", 0) as sock:
        print(sock.getsockname()[1], flush=True)
        asyncio.run(uvicorn.Server(config).serve(sockets=[sock]))


if __name__ == "__main__":
    main()
