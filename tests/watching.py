"""What the tests of watch streams share: a source of Kubernetes objects, and a driver of plans."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from btreecache import Batch, Bounds, Cache, Element, Event, Progress
from btreecache.cache import State
from btreecache.codec import Kubernetes
from btreecache.options import WatchOptions
from btreecache.plan import After, StartWatch
from btreecache.reader import Reader
from btreecache.selectors import FieldSelector, LabelSelector
from btreecache.watch_stream import WatchEvent, WatchStream
from tests.codec.objects import Field
from tests.fakes import Clock

PREFIX = b"/registry/pods/"
CODEC = Kubernetes([Field("spec.nodeName", ("spec", "nodeName"))])


def pod_key(name: str) -> bytes:
    """`ns/name` -> its key."""
    return PREFIX + name.encode()


def pod(name: str, node: str = "", **labels: str) -> bytes:
    """An object as it is stored, without a resourceVersion."""
    namespace, _, own = name.partition("/")
    metadata: dict[str, Any] = {"name": own, "namespace": namespace}
    if labels:
        metadata["labels"] = labels
    spec = {"nodeName": node} if node else {}
    return json.dumps(
        {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec},
        separators=(",", ":"),
    ).encode()


class Pods:
    """A cache of objects and what writes to it; `states` is the truth, by revision, undecoded."""

    def __init__(self, bounds: Bounds | None = None, *, codec: Any = CODEC) -> None:
        self.clock = Clock()
        self.cache = Cache(PREFIX, bounds=bounds, codec=codec, now=self.clock)
        self.cache.replace(1, ())
        self.states: dict[int, dict[bytes, Element]] = {1: {}}

    @property
    def revision(self) -> int:
        return max(self.states)

    def txn(self, writes: Iterable[tuple[bytes, bytes | None]]) -> int:
        """Key and value, None to delete, all as one revision."""
        revision, state = self.revision + 1, dict(self.states[self.revision])
        events = []
        for key, value in writes:
            old = state.pop(key, None)
            if value is None:
                events.append(Event(key, None))
                continue
            created, version = (old.create_revision, old.version) if old else (revision, 0)
            state[key] = Element(key, value, revision, created, version + 1)
            events.append(Event(key, state[key]))
        self.cache.apply(Batch(revision, tuple(events)))
        self.states[revision] = state
        return revision

    def put(self, name: str, node: str = "", **labels: str) -> int:
        return self.txn([(pod_key(name), pod(name, node, **labels))])

    def delete(self, name: str) -> int:
        return self.txn([(pod_key(name), None)])

    def elsewhere(self) -> int:
        """A write to another resource: only a progress mark tells."""
        revision = self.revision + 1
        self.states[revision] = self.states[self.revision]
        self.cache.progress(Progress(revision))
        return revision

    def stream(self, start: StartWatch, prefix: bytes = PREFIX, **options: Any) -> WatchStream:
        return WatchStream(self.cache, start, prefix, now=self.clock, **options)

    def watch(
        self, options: WatchOptions, prefix: bytes = PREFIX, *, exact: bool = False
    ) -> WatchStream:
        """The watch that `options` ask for. Nothing happens while it waits but that time passes."""
        reader = Reader(
            self.cache, self, follower=self, codec=CODEC, now=self.clock, wait=self.wait
        )  # type: ignore[arg-type]
        return reader.watch(options, prefix, exact=exact)

    # What a reader asks of its source and its follower.

    def current_revision(self) -> int:
        return self.revision

    def request_progress(self) -> bool:
        return True

    def wait(self, predicate: Callable[[State], object], timeout_s: float) -> bool:
        self.clock.now_s += timeout_s
        return bool(predicate(self.cache.state))


def begin(
    after: int | After = After.NEWEST,
    *,
    like: StartWatch | None = None,
    initial: bool = False,
    end_bookmark: bool = False,
    bookmarks: bool = False,
    deadline_s: float | None = None,
) -> StartWatch:
    """A resolved start, by its parts or as another but for its revision."""
    if like is None:
        return StartWatch(after, initial, end_bookmark, bookmarks or end_bookmark, deadline_s)
    return StartWatch(after, like.initial, like.end_bookmark, like.bookmarks, like.deadline_s)


def labelled(text: str) -> Callable[[Element], bool]:
    selector = LabelSelector.parse(text)
    return lambda element: selector.matches_pairs(element.labels)


def with_fields(text: str) -> Callable[[Element], bool]:
    match = FieldSelector.parse(text).bind(CODEC.fields)
    return lambda element: match(element.fields)


def rest(stream: WatchStream) -> list[WatchEvent]:
    """Every event that there is by now."""
    found = []
    while (event := stream.poll()) is not None:
        found.append(event)
    return found


def told(event: WatchEvent) -> str:
    """An event in a word: what, which object, the resourceVersion that a client reads in it."""
    if event.type == "ERROR":
        assert event.error is not None
        return f"ERROR {event.error.reason}"
    if event.element is None:
        end = " end" if event.ends_initial_events else ""
        return f"BOOKMARK @{event.revision}{end}"
    value = json.loads(event.element.value)
    metadata = value["metadata"]
    version = metadata["resourceVersion"]
    assert int(version) == event.element.mod_revision
    return f"{event.type} {metadata['namespace']}/{metadata['name']}@{version}"


def tell(stream: WatchStream) -> list[str]:
    return [told(event) for event in rest(stream)]
