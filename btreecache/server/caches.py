"""One cache for each resource, begun when it is first wanted, all of them fed by one source.

Whoever asks first for a resource begins its cache, and waits a little for its first list. Those
that are named at the start begin then, and only they count for readiness: what nobody asked for
can't keep a server from being ready.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Literal

from btreecache.block import Blocks
from btreecache.cache import Cache
from btreecache.codec import Kubernetes, Transform
from btreecache.compaction import Compaction
from btreecache.element import Element
from btreecache.encoding.kept import KeptLists
from btreecache.errors import BadRequest, NotReady
from btreecache.features import Features
from btreecache.fields import custom_fields, fields_of
from btreecache.follow import Follower
from btreecache.history import History
from btreecache.index import Index
from btreecache.options import GetOptions, ListOptions, WatchOptions
from btreecache.reader import AsyncReader, Reader
from btreecache.reads import Answer, ListPage
from btreecache.resources import BUILT_IN, Resource, Resources
from btreecache.server.counts import FrameCounts
from btreecache.server.hidden import is_secret
from btreecache.server.refusals import Forbidden, UnknownPath
from btreecache.source import Source
from btreecache.tree import Tree
from btreecache.watch_stream import WatchStream
from btreecache.window import Bounds

#: How long a request waits for the first list of a cache that it has begun, and how often it looks.
FIRST_LIST_S, FIRST_LIST_POLL_S = 3.0, 0.01

#: Compressed lists that are kept.
BLOCKS_BYTES = 64 << 20

#: Followers that are ended at the same time; each takes a tenth of a second to notice.
CLOSERS = 16

#: Fields that the API server indexes. The pods of a node are what its agents ask for.
INDEXED: dict[tuple[str, str], tuple[str, ...]] = {("", "pods"): ("spec.nodeName",)}

#: The resource of CustomResourceDefinitions.
DEFINITIONS = "apiextensions.k8s.io", "customresourcedefinitions"

#: Kept as objects of the core group: in their own they would have to be converted.
_CONVERTED = {("events.k8s.io", "events")}


def served(
    configured: Iterable[Resource] = (), *, root: bytes = b"/registry", allow_secrets: bool = False
) -> Resources:
    """The resources that there are: built-in ones that are stored as what they are, and configured
    ones, which replace built-in ones of their group and plural. Raises BadRequest, also for
    configured ones among whose keys are Secrets, unless these are allowed."""
    configured = tuple(configured)
    for one in configured:
        if not allow_secrets and is_secret(one, root):
            raise BadRequest(f"resource {one.plural!r}: Secrets are among its keys")
    known = (
        one
        for one in BUILT_IN.all
        if (one.group, one.plural) not in _CONVERTED and (allow_secrets or not is_secret(one, root))
    )
    return Resources(tuple(known)).extended(configured)


def is_typed(resource: Resource) -> bool:
    """Whether an API server has a struct for it: custom resources are written in another way."""
    return any((one.group, one.plural) == (resource.group, resource.plural) for one in BUILT_IN.all)


class ResourceCache:
    """The cache of one resource, what feeds it and who reads it.

    Made and read on one event loop; the follower has a thread of its own from `start` to `close`.

    frames   what watches were sent, by the version that they asked for
    """

    def __init__(
        self,
        resource: Resource,
        source: Source,
        root: bytes,
        *,
        features: Features,
        bounds: Bounds | None,
        compaction: Compaction | None,
        transform: Transform | None,
        archive: Callable[[bytes], History] | None,
        blocks: Blocks,
        rng: Random,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        name = resource.group, resource.plural
        fields = (
            fields_of(*name)
            if is_typed(resource)
            else custom_fields(_selectable(resource), namespaced=resource.namespaced)
        )
        codec = Kubernetes(fields.fields)
        prefix = resource.prefix(root)
        self.resource = resource
        self.cache = Cache(
            prefix,
            bounds=bounds,
            codec=codec,
            transform=transform,
            indexes=[_index(field, codec.fields.index(field)) for field in INDEXED.get(name, ())],
            archive=archive and archive(prefix),
        )
        self.follower = Follower(source, self.cache, compaction=compaction, rng=rng)
        self.kept = KeptLists(blocks)
        self.frames: dict[str, FrameCounts] = {}
        self._features = features
        self._now = now
        self.reader = Reader(
            self.cache,
            source,
            follower=self.follower,
            compaction=compaction,
            features=features,
            codec=codec,
            fields=fields,
            resource=resource,
            now=now,
        )
        self._async = AsyncReader(self.reader)

    @property
    def ready(self) -> bool:
        """As Cache.ready."""
        return self.cache.ready

    @property
    def filled(self) -> bool:
        """Whether there was a first list, whatever came after it."""
        return self.cache.state.window is not None

    def frames_of(self, version: str) -> FrameCounts:
        """What is counted of the watches in one version of the resource."""
        return self.frames.setdefault(version, FrameCounts())

    @property
    def newest(self) -> Tree[bytes, Element] | None:
        """The newest state that it has, whether or not it may be served. O(1)."""
        window = self.cache.state.window
        return window.newest if window is not None else None

    async def first_list(self) -> None:
        """Wait until the cache was filled once, at most FIRST_LIST_S: it may have just begun."""
        deadline_s = self._now() + FIRST_LIST_S
        while not self.filled and self._now() < deadline_s:
            if self.cache.closed:
                return
            await asyncio.sleep(FIRST_LIST_POLL_S)

    async def get(self, key: bytes, options: GetOptions) -> Answer:
        """As Reader.get."""
        return await self._async.get(key, options)

    async def list(self, options: ListOptions, prefix: bytes) -> ListPage:
        """As Reader.list."""
        return await self._async.list(options, prefix)

    async def watch(self, options: WatchOptions, prefix: bytes) -> WatchStream:
        """As Reader.watch, the options as an API server takes them."""
        return await self._async.watch(options.defaulted(self._features), prefix)


def _selectable(resource: Resource) -> tuple[str, ...]:
    return resource.custom.selectable if resource.custom else ()


def _is_other(resource: Resource, now: Resource | None) -> bool:
    """Whether a cache of a resource as it was is none of it as it is now."""
    return (
        now is None
        or (now.storage, now.kind, now.namespaced)
        != (resource.storage, resource.kind, resource.namespaced)
        or _selectable(now) != _selectable(resource)
    )


def _index(field: str, place: int) -> Index:
    def value_of(element: Element) -> str | None:
        return element.fields[place] if element.fields else None

    return Index(f"f:{field}", value_of)


class Caches:
    """The caches of a server, by resource. `close` ends them all; the source is the caller's.

    source      used by every follower, each in its thread, and by reads that caches can't answer
    root        where an API server would keep everything: `/registry`
    at_start    resources to follow from `start` on; `ready` is about these
    history     "source": what the source has compacted is forgotten too; "window": `bounds` alone
                say how much is kept
    archive     gives the durable history of a prefix (Archive.history): caches begin with what it
                holds, and its retention alone says what can be read, whatever `history`
    allow_secrets   without it no cache is begun that Secrets could come into
    follows_definitions   custom resources come and go with their definitions in the source, which
                          are a resource at start
    transform   of every cache, as Cache's: `serve_as`, `strip_managed_fields`
    blocks_bytes   budget of the compressed lists that are kept, of all caches together
    """

    def __init__(
        self,
        source: Source,
        resources: Resources,
        *,
        root: bytes = b"/registry",
        at_start: Iterable[Resource] = (),
        features: Features | None = None,
        bounds: Bounds | None = None,
        history: Literal["source", "window"] = "source",
        archive: Callable[[bytes], History] | None = None,
        allow_secrets: bool = False,
        follows_definitions: bool = False,
        transform: Transform | None = None,
        blocks_bytes: int = BLOCKS_BYTES,
        rng: Random | None = None,
    ) -> None:
        self.resources = resources
        self.root = root
        self.features = features or Features()
        self._source = source
        self._bounds = bounds
        self._archive = archive
        self._allow_secrets = allow_secrets
        self._transform = transform
        self.blocks = Blocks(blocks_bytes)
        self.follows_definitions = follows_definitions
        definitions = [resources.find(*DEFINITIONS)] if follows_definitions else []
        self._at_start = tuple(dict.fromkeys(filter(None, (*at_start, *definitions))))
        self._rng = rng or Random(0)
        self._compaction = (
            Compaction(source, rng=Random(self._rng.random()))
            if history == "source" and archive is None
            else None
        )
        self._caches: dict[tuple[str, str], ResourceCache] = {}
        self._lock = threading.Lock()
        self._stopped = self._leaving = False

    def start(self) -> None:
        """Begin the caches that were named, and to hear of compactions."""
        if self._compaction is not None:
            self._compaction.start()
        for resource in self._at_start:
            self.of(resource)

    async def define(self, resources: Resources) -> None:
        """From now on these are the resources. The caches of those that are gone, or that have
        become others, end, and with them their watches. One task; on the event loop."""
        others = [one for one in self.resources.all if _is_other(one, resources.find(*_name(one)))]
        # While their followers end nobody may begin new ones: two would write one history.
        kept = {_name(one) for one in others}
        self.resources = Resources(tuple(r for r in resources.all if _name(r) not in kept))
        with self._lock:
            ended = [self._caches.pop(one) for one in kept if one in self._caches]
        for one in ended:
            one.cache.close()
        await asyncio.to_thread(_close, ended)
        self.resources = resources

    def hides(self, resource: Resource) -> bool:
        """Whether Secrets may be among its keys, and they aren't allowed."""
        return not self._allow_secrets and is_secret(resource, self.root)

    def of(self, resource: Resource) -> ResourceCache:
        """The cache of a resource, begun if it wasn't. Any thread.

        Raises NotReady after `stop`, Forbidden for what is hidden, UnknownPath if there is no such
        resource any more.
        """
        name = _name(resource)
        with self._lock:
            if self._stopped:
                raise NotReady("the server is shutting down")
            known = self.resources.find(*name)
            if known is None:
                raise UnknownPath
            resource = known
            if self.hides(resource):
                raise Forbidden("Secrets are not served")
            found = self._caches.get(name)
            if found is None:
                found = ResourceCache(
                    resource, self._source, self.root,
                    features=self.features, bounds=self._bounds, compaction=self._compaction,
                    transform=self._transform, archive=self._archive, blocks=self.blocks,
                    rng=Random(self._rng.random()),
                )  # fmt: skip
                found.follower.start()
                self._caches[name] = found
            return found

    def begun(self) -> list[ResourceCache]:
        """Those that anybody has wanted yet. Any thread."""
        with self._lock:
            return [*self._caches.values()]

    @property
    def compact_revision(self) -> int:
        """Below which the source is known to have forgotten; 0: none is known."""
        return self._compaction.revision if self._compaction else 0

    def readiness(self) -> dict[str, str]:
        """What keeps each cache that was named from being ready, "" for nothing, by plural.group;
        and the end, once it has been announced. Any thread."""
        with self._lock:
            caches = dict(self._caches)
        found = {"shutdown": "process is shutting down"} if self._leaving else {}
        for resource in self._at_start:
            cache = caches.get((resource.group, resource.plural))
            if cache is None or not cache.filled:
                problem = "the cache has not been filled yet"
            else:
                problem = "" if cache.ready else "the cache is resynchronising"
            found[resource.dotted] = problem
        return found

    def leave(self) -> None:
        """Announce the end: `readiness` says so; all is answered as before. Any thread."""
        self._leaving = True

    def stop(self) -> None:
        """Begin no more caches; watches and waits end. Quick. Any thread. Idempotent."""
        with self._lock:
            self._stopped = self._leaving = True
            caches = [*self._caches.values()]
        for one in caches:
            one.cache.close()

    def close(self) -> None:
        """`stop`, and wait for the followers' threads to end. Idempotent."""
        self.stop()
        if self._compaction is not None:
            self._compaction.close()
        _close([*self._caches.values()])


def _name(resource: Resource) -> tuple[str, str]:
    return resource.group, resource.plural


def _close(caches: list[ResourceCache]) -> None:
    """Wait for the followers of caches to end."""
    if caches:
        with ThreadPoolExecutor(CLOSERS) as closers:
            list(closers.map(lambda one: one.follower.close(), caches))
