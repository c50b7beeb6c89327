"""Kubernetes-shaped traffic as etcd sends it: watch responses and pages of a list, as bytes.

Values differ in every event. What is made here holds no large list, which the garbage collector
would have to visit on behalf of the cache that is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from btreecache.errors import Unavailable
from etcdsim import wire

PREFIX = b"/registry/pods/"
VALUE_BYTES = 2048
PAGE_KEYS = 2_000
LOADED = 2  # the revision of the objects of the list


class Traffic:
    """Updates of `objects` keys, spread at random; each is a revision of its own."""

    def __init__(self, objects: int, seed: int = 0) -> None:
        self.objects = objects
        self.revision = LOADED
        self._rng = Random(seed)
        self._body = self._rng.randbytes(VALUE_BYTES)
        self._versions = bytearray(objects)  # updates of each key so far, modulo 256
        self._wraps = dict[int, int]()

    def key(self, i: int) -> bytes:
        """Keys ascend with `i`."""
        return PREFIX + b"namespace-%04d/deployment-%07d-x7k2p" % (i * 1000 // self.objects, i)

    def pages(self) -> Iterator[bytes]:
        """Range responses with all the objects, as bytes."""
        for first in range(0, self.objects, PAGE_KEYS):
            page = wire.RangeResponse()
            for i in range(first, min(first + PAGE_KEYS, self.objects)):
                self._fill(page.kvs.add(), i, LOADED, 1)
            yield page.SerializeToString()

    def responses(self, events: int, per_response: int) -> list[bytes]:
        """Watch responses, as bytes."""
        made = []
        for _ in range(events // per_response):
            response = wire.WatchResponse()
            for _ in range(per_response):
                self.revision += 1
                i = self._rng.randrange(self.objects)
                self._fill(response.events.add().kv, i, self.revision, self._count(i))
            response.header.revision = self.revision
            made.append(response.SerializeToString())
        return made

    def _count(self, i: int) -> int:
        self._versions[i] = (self._versions[i] + 1) % 256
        if not self._versions[i]:
            self._wraps[i] = self._wraps.get(i, 0) + 256
        return 1 + self._wraps.get(i, 0) + self._versions[i]

    def _fill(self, kv: Any, i: int, revision: int, version: int) -> None:
        kv.key, kv.create_revision, kv.mod_revision = self.key(i), LOADED, revision
        kv.version = version
        kv.value = b"%020d" % revision + self._body[20 + i % 7 :] + bytes(i % 7)


class Played:
    """A connection that plays responses back, for an EtcdStream to read as from a server."""

    address = "played back"
    timeout_s = 5.0
    rpc_error = OSError

    def __init__(self, responses: list[bytes]) -> None:
        self._responses = iter(responses)

    def stream(self, method: wire.Method, requests: Iterator[Any]) -> Played:
        return self

    def __next__(self) -> bytes:
        return next(self._responses)

    def cancel(self) -> None:
        """Nothing goes on behind the responses."""

    def unavailable(self, cause: str) -> Unavailable:
        return Unavailable(cause)
