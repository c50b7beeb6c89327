"""What is asked: a few pods, their whole history as dicts, and readers of every kind.

One world is fed by a follower from the simulated source, the other is a Store. Both remember what
was written, not what was read. Time passes only when somebody waits.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from random import Random
from typing import Any, Literal, NamedTuple

from btreecache import Bounds, Cache, Follower
from btreecache import store as store_module
from btreecache.cache import State
from btreecache.codec import Kubernetes
from btreecache.features import Features
from btreecache.fields import fields_of
from btreecache.index import field_index, label_index
from btreecache.reader import Reader
from btreecache.resources import BUILT_IN
from btreecache.sources.simulated import SimulatedSource
from btreecache.store import Store
from etcdsim.model import Model
from etcdsim.simulator import Truth
from etcdsim.txn import DeleteRange, Put
from tests.fakes import Clock

PODS = b"/registry/pods/"
NAMESPACES, NAMES = ("a", "a-b", "b"), ("p1", "p10", "p2", "x.y")
TIDY = [f"{namespace}/{name}".encode() for namespace in NAMESPACES for name in NAMES]
ODD = [b"a/b/c", b"odd", b"a/\xff\xfe", b"/a/p1", b"a//p1", b"b/\x00", "a/é".encode()]

FIELDS = fields_of("", "pods")
CODEC = Kubernetes(FIELDS.fields)
INDEXES = (label_index("app"), field_index("spec.nodeName", CODEC.fields.index("spec.nodeName")))
RESOURCE = BUILT_IN.named("pods")

#: Waits of one request, each some virtual time long: more, and it would never end.
WAITS_MAX = 2_000


class Endless(Exception):
    """A request waits and waits."""


class Pod(NamedTuple):
    """What a key holds, and what selectors see of it."""

    value: bytes
    revision: int
    labels: dict[str, str]
    fields: dict[str, str]


Pods = dict[bytes, Pod]


class Door(NamedTuple):
    """A reader, and what it was made with.

    aliases     it knows the fields of pods
    watches     it isn't one of the source alone
    snapshots   exact reads and continued pages are the cache's
    """

    name: str
    reader: Reader
    features: Features
    aliases: bool = True
    watches: bool = True
    snapshots: bool = True


def random_pod(rng: Random, name: str, revision: int) -> Pod:
    namespace, _, own = name.rpartition("/")
    labels = {}
    for label, values in (("app", "xy"), ("tier", ("web", "db", "")), ("example.com/n", "059")):
        if rng.random() < 0.6:
            labels[label] = rng.choice(values)
    node, phase = rng.choice(["n1", "n2", ""]), rng.choice(["Running", "Pending"])
    metadata = {"name": own, "namespace": namespace, "labels": labels}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node},
           "status": {"phase": phase}, "n": rng.randint(0, 99)}  # fmt: skip
    fields = {
        "metadata.name": own, "metadata.namespace": namespace, "spec.nodeName": node,
        "status.phase": phase, "spec.restartPolicy": "Always", "spec.hostNetwork": "false",
        "spec.schedulerName": "default-scheduler",
    }  # fmt: skip
    return Pod(json.dumps(pod).encode(), revision, labels, fields)


class World(ABC):
    """The part that both have. `base`: the prefix of the cache; `compacted`: reads begin here."""

    base: bytes
    cache: Cache
    doors: list[Door]

    def __init__(self, rng: Random) -> None:
        self.rng, self.clock = rng, Clock()
        self.compacted = self.waits = 0
        self.revisions: list[int] = [1]
        self.states: list[Pods] = [{}]
        names = TIDY + (ODD if rng.random() < 0.3 else [])
        self.odd = len(names) > len(TIDY)
        self.names = rng.sample(names, rng.randint(len(names) // 2, len(names)))

    def at(self, revision: int) -> Pods:
        """The truth: what was there, in key order."""
        return self.states[bisect_right(self.revisions, revision) - 1]

    @property
    @abstractmethod
    def current(self) -> int:
        """The newest revision that was written."""

    @abstractmethod
    def _commit(self, puts: dict[bytes, bytes], deletes: list[bytes]) -> int:
        """Write all of it as one revision; that."""

    @abstractmethod
    def compact(self) -> None:
        """Forget some of the past."""

    @abstractmethod
    def step(self) -> None:
        """Something happens elsewhere."""

    def write(self) -> None:
        """Puts and deletes of a few keys in one transaction."""
        rng, before = self.rng, self.states[-1]
        after, revision, deletes = dict(before), self.current + 1, []
        puts: dict[bytes, bytes] = {}
        for name in rng.sample(self.names, min(rng.choice([1, 1, 2, 4]), len(self.names))):
            key = self.base + name
            if key in before and rng.random() < 0.3:
                deletes.append(key)
                del after[key]
            else:
                after[key] = random_pod(rng, name.decode(errors="replace"), revision)
                puts[key] = after[key].value
        made = self._commit(puts, deletes)
        assert made == revision
        self.revisions.append(revision)
        self.states.append(dict(sorted(after.items())))

    def pass_time(self) -> None:
        """Between two requests: mostly nothing."""
        rng = self.rng
        chance = rng.random()
        if chance < 0.04:
            self.write()
        elif chance < 0.05:
            self.compact()
        self.step()
        self.clock.now_s += rng.choice([0.0, 0.01, 0.3])

    def wait(self, predicate: Callable[[State], object], timeout_s: float) -> bool:
        """For readers: the time passes, and things happen."""
        self.waits += 1
        if self.waits > WAITS_MAX:
            raise Endless
        if predicate(self.cache.state):
            return True
        if timeout_s <= 0:
            return False
        if self.rng.random() < 0.05:
            self.write()
        for _ in range(self.rng.randint(0, 3)):
            if not predicate(self.cache.state):
                self.step()
        self.clock.now_s += timeout_s * self.rng.choice([1.0, 1.0, 30.0])
        return bool(predicate(self.cache.state))


class Followed(World):
    """A cache, its follower, and a source that compacts."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.base, self.model = PODS, Model()
        self.source = SimulatedSource(Truth(self.model), "simulated")
        bounds = Bounds(age_s=None, revisions=rng.choice([None, 3, 10]))
        self.cache = Cache(PODS, bounds=bounds, codec=CODEC, indexes=INDEXES, now=self.clock)
        on_gap: Literal["resync", "diff"] = rng.choice(["resync", "diff"])
        self.follower = Follower(
            self.source, self.cache, on_gap=on_gap, backoff_ceiling_s=0.2,
            now=self.clock, rng=Random(rng.random()),
        )  # fmt: skip
        plain, older = Features(), Features(list_from_cache_snapshot=False)
        oldest = Features(
            consistent_list_from_cache=False, list_from_cache_snapshot=False, watch_list=False
        )
        self.doors = [
            self.door("plain", plain),
            self.door("no snapshots", older),
            self.door("all gates off", oldest),
            self.door("no indexes", plain, use_indexes=False),
            self.door("no resource", plain, resource=None),
            self.door("any field", plain, fields=None)._replace(aliases=False),
            self.door("source", plain, read="source")._replace(watches=False),
        ]
        for _ in range(rng.choice([0, 10, 30])):
            self.write()
        # Often level, sometimes far behind, or with its first list yet to come.
        self.pace = rng.choice([0.7, 0.7, 0.7, 0.05, 0.002])
        for _ in range(rng.choice([0, 60, 60])):
            self.step()

    def door(self, name: str, features: Features, **options: Any) -> Door:
        given: dict[str, Any] = {"fields": FIELDS, "resource": RESOURCE} | options
        reader = Reader(
            self.cache, self.source, follower=self.follower, features=features, codec=CODEC,
            now=self.clock, wait=self.wait, **given,
        )  # fmt: skip
        return Door(name, reader, features, snapshots=features.list_from_cache_snapshot)

    @property
    def current(self) -> int:
        return self.model.revision

    def _commit(self, puts: dict[bytes, bytes], deletes: list[bytes]) -> int:
        ops: list[Put | DeleteRange] = [Put(key, value) for key, value in puts.items()]
        self.model.txn([], ops + [DeleteRange(key) for key in deletes])
        return self.model.revision

    def compact(self) -> None:
        if self.rng.random() < 0.3:
            self.model.put(b"/registry/nodes/n", b"")
        revision = self.rng.randint(max(self.current - 8, 1), self.current)
        if revision > self.compacted:
            self.model.compact(revision)
            self.compacted = revision
        window = self.cache.state.window
        if window and self.rng.random() < 0.5:
            self.cache.compact(min(revision, window.current))

    def step(self) -> None:
        if self.rng.random() < self.pace:
            self.follower.step()


class Stored(World):
    """A Store: nobody else to ask."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.base = b""
        bounds = Bounds(age_s=None, revisions=rng.choice([None, 3, 10]))
        self.store = Store(bounds=bounds, codec=CODEC, indexes=INDEXES, now=self.clock)
        self.cache = self.store
        plain, older = Features(), Features(list_from_cache_snapshot=False, watch_list=False)
        self.doors = [
            Door("store", self.reader(plain), plain),
            Door("store, gates off", self.reader(older), older),
        ]
        for _ in range(rng.choice([0, 10, 30])):
            self.write()

    def reader(self, features: Features) -> Reader:
        return Reader(
            self.store, features=features, codec=CODEC, fields=FIELDS, resource=RESOURCE,
            now=self.clock, wait=self.wait,
        )  # fmt: skip

    def step(self) -> None:
        """Nothing: there is no elsewhere."""

    @property
    def current(self) -> int:
        return self.store.revision

    def _commit(self, puts: dict[bytes, bytes], deletes: list[bytes]) -> int:
        writes = [store_module.Put(key, value) for key, value in puts.items()]
        made = self.store.txn([*writes, *map(store_module.Delete, deletes)])
        self.compacted = self.store.oldest
        return made

    def compact(self) -> None:
        self.store.compact(self.rng.randint(self.compacted, self.current))
        self.compacted = self.store.oldest
