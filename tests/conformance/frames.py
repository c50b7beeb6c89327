"""What the tests of watches share: frames in a word, kept targets, watches that nobody reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from btreecache import BtreecacheError, Compacted
from etcdsim import wire
from tests.conformance.target import Events, Frame, Page, Status, Target, path_of, wait_for

#: What a watch is asked with to begin with changes, and with the state.
CHANGES = {"sendInitialEvents": False, "resourceVersionMatch": "NotOlderThan"}
STATE = {"sendInitialEvents": True, "resourceVersionMatch": "NotOlderThan"}

#: The ID of the lease that `leased` grants.
_LEASE = 77


def told(frame: Frame) -> str:
    """What, which object, the resourceVersion in it; of an error its code and reason."""
    shown = frame["object"]
    if frame["type"] == "ERROR":
        return f"ERROR {shown['code']} {shown['reason']}"
    metadata = shown["metadata"]
    revision = metadata["resourceVersion"]
    if frame["type"] != "BOOKMARK":
        return f"{frame['type']} {path_of(shown)}@{revision}"
    annotations = metadata.get("annotations", {})
    assert annotations in ({}, {"k8s.io/initial-events-end": "true"})
    return f"BOOKMARK @{revision}{' end' if annotations else ''}"


def tell(frames: Sequence[Frame]) -> list[str]:
    return [told(frame) for frame in frames]


def take(events: Events, count: int) -> list[str]:
    """The next `count`, each in a word."""
    return tell(events.take(count))


def revision_of(frame: Frame) -> int:
    return int(frame["object"]["metadata"]["resourceVersion"])


def labelled(target: Target, path: str, node: str = "", **labels: str) -> int:
    """Put a pod with labels, on a node."""
    spec = {"nodeName": node} if node else {}
    return target.put(path, target.object_at(path, labels, **spec))


def emptied(target: Target) -> int:
    """Delete all that a test before left behind; the revision of the empty resource, which the
    cache has reached."""
    while True:
        # From the cache, as only there objects that can't be decoded have a name.
        target.caught_up()
        keys = [element.key for element in target.cache.list(b"").elements]
        if not keys:
            return target.cache.revision
        for key in keys:
            target.backend.delete(key)


def listed(target: Target, **query: object) -> Page:
    """A list, and where none is ready yet one a little later."""
    for _ in range(100):
        found = target.list(**query)
        if isinstance(found, Page):
            return found
        assert isinstance(found, Status)
        assert found.code == 429, found
        target.caught_up()
    raise AssertionError("it never gets ready")


def break_feed(target: Target, error: BtreecacheError) -> None:
    """Have the stream that the cache follows end with an error, and wait until it is mended."""
    stream: Any = target.access.follower._stream
    lists, watches = target.source.calls["list"], target.source.calls["watch"]

    def receive(timeout_s: float) -> Any:
        raise error

    stream.receive = receive
    wait_for(lambda: target.source.calls["watch"] > watches)
    assert target.source.calls["list"] == lists + isinstance(error, Compacted)


def leased(target: Target, *paths: str) -> Callable[[], object]:
    """Put objects with a lease; call what is returned to end it."""
    backend: Any = target.backend
    keys = [target.key(path) for path in paths]
    if target.kind.source == "simulated":
        for path in paths:
            target.put(path)

        def expire() -> None:
            with backend.changed:
                backend._model.delete_keys(keys)
                backend.changed.notify_all()

        return expire

    def ask(name: str, request: bytes) -> None:
        raw = wire.Method(
            f"/etcdserverpb.Lease/{name}",
            SimpleNamespace(SerializeToString=bytes), SimpleNamespace(FromString=bytes),
        )  # fmt: skip
        backend._writer.ask(raw, request)

    # LeaseGrantRequest{TTL = 1: 600, ID = 2} and LeaseRevokeRequest{ID = 1}.
    ask("LeaseGrant", b"\x08\xd8\x04\x10" + bytes([_LEASE]))
    for path, key in zip(paths, keys, strict=True):
        value = target._value(path, None)
        backend._writer.ask(wire.PUT, wire.PutRequest(key=key, value=value, lease=_LEASE))
    return lambda: ask("LeaseRevoke", b"\x08" + bytes([_LEASE]))


@contextmanager
def unread(target: Target, revision: int) -> Iterator[Any]:
    """A watch after `revision` that nobody reads: over HTTP the frames pile up in the connection.
    It comes as a function that reads all of it, to its end."""
    if target.kind.access == "library":
        with target.watch(resourceVersion=revision) as events:
            yield events.rest
        return
    access: Any = target.access
    params = {"watch": "true", "resourceVersion": str(revision)}
    with access.client.stream("GET", access._path(""), params=params, timeout=None) as answer:
        assert answer.status_code == 200
        yield lambda: [json.loads(line) for line in answer.iter_lines()]
