"""Pods for the reader's machine: what is written, what it means, and the truth by revision."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from random import Random
from typing import NamedTuple

from btreecache.codec import Kubernetes
from btreecache.fields import fields_of
from btreecache.index import field_index, label_index

PREFIX = b"/registry/pods/"
NAMES = [f"{namespace}/{name}" for namespace in ("a", "a-b", "b") for name in ("p1", "p10", "p2")]
ODD = ["a/b/c", "odd"]
KEYS = [PREFIX + name.encode() for name in NAMES + ODD]
PREFIXES = [PREFIX] * 4 + [PREFIX + part for part in (b"a/", b"a/", b"b/", b"nothing/", b"a/p1/")]

FIELDS = fields_of("", "pods")
CODEC = Kubernetes(FIELDS.fields)
INDEXES = (label_index("app"), field_index("spec.nodeName", CODEC.fields.index("spec.nodeName")))


class Pod(NamedTuple):
    """What a key holds; no `app`: no such label; not `readable`: nobody can say what."""

    value: bytes
    revision: int
    name: str
    namespace: str
    app: str | None
    node: str
    readable: bool = True


Pods = dict[bytes, Pod]


def random_pod(rng: Random, key: bytes, revision: int, *, tidy: bool, bad: float) -> Pod:
    """A pod for a key; not `tidy`: perhaps another's. `bad`: how often nobody can read it."""
    parts = key[len(PREFIX) :].decode().split("/")
    namespace, name = (parts[0], parts[-1]) if tidy or rng.random() < 0.85 else ("b", "p2")
    if rng.random() < bad:
        return Pod(b"{%d" % rng.randint(0, 9), revision, "", "", None, "", readable=False)
    app, node = rng.choice(["x", "y", None]), rng.choice(["n1", "n2", ""])
    labels = {"app": app} if app else {}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node},
           "n": rng.randint(0, 99)}  # fmt: skip
    return Pod(json.dumps(pod).encode(), revision, name, namespace, app, node)


class Chosen(NamedTuple):
    """A selector, what it means for a pod, and what it means for (namespace, name) alone."""

    labels: str
    fields: str
    takes: Callable[[Pod], bool]
    may_take: Callable[[str, str], bool] = lambda namespace, name: True


ALL = Chosen("", "", lambda pod: True)
SELECTORS = [
    ALL, ALL, ALL,
    Chosen("app=x", "", lambda pod: pod.app == "x"),
    Chosen("app!=x", "", lambda pod: pod.app != "x"),
    Chosen("app in (x,y),!gone", "", lambda pod: pod.app is not None),
    Chosen("", "spec.nodeName=n1", lambda pod: pod.node == "n1"),
    Chosen("app=y", "spec.nodeName=", lambda pod: pod.app == "y" and not pod.node),
    Chosen("", "metadata.name=p1", lambda pod: pod.name == "p1", lambda space, name: name == "p1"),
    Chosen("", "metadata.name=p2,metadata.namespace=a",
           lambda pod: (pod.namespace, pod.name) == ("a", "p2"),
           lambda space, name: (space, name) == ("a", "p2")),
    Chosen("", "metadata.namespace=b", lambda pod: pod.namespace == "b",
           lambda space, name: space == "b"),
    Chosen("app=x", "metadata.name!=p1", lambda pod: pod.app == "x" and pod.name != "p1",
           lambda space, name: name != "p1"),
]  # fmt: skip


class Change(NamedTuple):
    """What became of a key; None: it didn't exist."""

    key: bytes
    old: Pod | None
    new: Pod | None


class History:
    """The pods at every revision, and the steps from one to the next as a watch is told of them.

    A step is a revision with all that it changed, in its order. Where a follower that tells of gaps
    as one synthetic batch has listed anew, what it missed is one step of net changes in key order.
    """

    def __init__(self, revision: int) -> None:
        self._revisions = [revision]
        self._contents: list[Pods] = [{}]
        self._steps: list[int] = []
        self._changes: dict[int, tuple[Change, ...]] = {}
        #: Where a gap ends: where it began.
        self.gaps: dict[int, int] = {}

    def at(self, revision: int) -> Pods:
        return self._contents[bisect_right(self._revisions, revision) - 1]

    def write(self, revision: int, after: Pods, keys: Iterable[bytes]) -> None:
        """`keys` changed, in this order, and `after` is what is there now."""
        before = self._contents[-1]
        self._changes[revision] = tuple(Change(k, before.get(k), after.get(k)) for k in keys)
        self._revisions.append(revision)
        self._contents.append(after)
        self._steps.append(revision)

    def gap(self, base: int, revision: int) -> None:
        """Of what happened after `base` up to `revision` only the sum is told."""
        before, after = self.at(base), self.at(revision)
        keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        self._changes[revision] = tuple(Change(k, before.get(k), after.get(k)) for k in keys)
        steps = self._steps
        steps[bisect_right(steps, base) : bisect_right(steps, revision)] = [revision]
        self.gaps[revision] = base

    def steps(self, after: int, upto: int) -> list[int]:
        """The steps above `after` and not above `upto`."""
        steps = self._steps
        return steps[bisect_right(steps, after) : bisect_right(steps, upto)]

    def changes(self, revision: int) -> tuple[Change, ...]:
        """What changed at a step; nothing elsewhere."""
        steps = self._steps
        at = bisect_left(steps, revision)
        is_step = at < len(steps) and steps[at] == revision
        return self._changes[revision] if is_step else ()
