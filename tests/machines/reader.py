"""Reader: gets, lists and page chains in every mode while a source writes, compacts and breaks.

The truth is a dict of objects per revision, made from what was written, not from what was read. A
read may say a revision of its own choice only within what its mode allows, and must then answer
with exactly the objects of that revision (I4 to I8, I12); an error needs its reason.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from btreecache import (
    Batch,
    Bounds,
    Cache,
    Compacted,
    Element,
    Follower,
    FutureRevision,
    NotReady,
    Progress,
    SourceError,
    Unavailable,
)
from btreecache.cache import State
from btreecache.codec import Kubernetes
from btreecache.continue_token import LATEST, decode, encode
from btreecache.errors import NotFound
from btreecache.features import Features
from btreecache.fields import fields_of
from btreecache.index import field_index, label_index
from btreecache.options import GetOptions, ListOptions
from btreecache.reader import Reader
from btreecache.reads import ListPage
from btreecache.resources import BUILT_IN
from btreecache.source import RangePage, Stream
from btreecache.sources.simulated import SimulatedSource, SimulatedStream
from etcdsim.model import Model
from etcdsim.simulator import Truth
from etcdsim.txn import DeleteRange, Put
from tests.fakes import Clock
from tests.machines.model import Machine

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


def random_pod(rng: Random, key: bytes, revision: int, *, tidy: bool) -> Pod:
    parts = key[len(PREFIX) :].decode().split("/")
    namespace, name = (parts[0], parts[-1]) if tidy or rng.random() < 0.94 else ("b", "p2")
    if rng.random() < 0.04:
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


class Shaky(SimulatedSource):
    """The truth on a bad line: `rng` makes streams break, repeat and lose their place; calls fail
    while `away`. What it says is otherwise true."""

    def __init__(self, model: Model) -> None:
        super().__init__(Truth(model), "shaky")
        self.rng: Random | None = None
        self.away = False
        self.refused = 0

    def _refuse(self) -> None:
        if self.away:
            self.refused += 1
            raise Unavailable("away")

    def current_revision(self) -> int:
        self._refuse()
        return super().current_revision()

    def range_at(
        self,
        revision: int,
        prefix: bytes,
        start: bytes | None = None,
        limit: int | None = None,
        keys_only: bool = False,
    ) -> RangePage:
        self._refuse()
        return super().range_at(revision, prefix, start, limit, keys_only)

    def watch(self, prefix: bytes, after: int) -> Stream:  # type: ignore[override]
        self._refuse()
        return ShakyStream(self, super().watch(prefix, after))


class ShakyStream:
    def __init__(self, source: Shaky, stream: SimulatedStream) -> None:
        self.source, self.stream = source, stream
        self.last: Batch | None = None

    def receive(self, timeout_s: float) -> Batch | Progress | None:
        rng = self.source.rng
        kind = rng.choice(["lost", "compacted", "repeat"]) if rng and rng.random() < 0.08 else ""
        if kind == "lost" or self.source.away:
            raise Unavailable("lost")
        if kind == "compacted":
            raise Compacted(0)
        if kind == "repeat" and self.last is not None:
            return self.last
        item = self.stream.receive(0)
        self.last = item if isinstance(item, Batch) else self.last
        return item

    def request_progress(self) -> bool:
        return self.stream.request_progress()

    def close(self) -> None:
        self.stream.close()


@dataclass
class Ask:
    """One list as it is asked for; `exact`: the revision that it must be at, `least`: or above."""

    options: ListOptions
    prefix: bytes
    recursive: bool
    chosen: Chosen
    exact: int | None
    least: int
    start: bytes = b""
    keys_known: bool = True

    @property
    def filtered(self) -> bool:
        return self.chosen is not ALL

    @property
    def limit(self) -> int | None:
        return self.options.limit if self.options.limit > 0 and self.recursive else None


@dataclass
class Chain:
    ask: Ask
    revision: int
    token: str
    read: list[bytes] = field(default_factory=list)


class ReaderMachine(Machine):
    rules = (*["write"] * 4, *["follow"] * 6, "compact", "line", *["get"] * 3, *["list"] * 8,
             *["page_on"] * 5, *["token"] * 2, "elsewhere")  # fmt: skip

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.clock, self.model = Clock(), Model()
        self.source = Shaky(self.model)
        self.contents: dict[int, Pods] = {self.model.revision: {}}
        self.compacted = 0
        bounds = Bounds(age_s=None, revisions=rng.choice([None, rng.randint(1, 15)]))
        self.cache = Cache(PREFIX, bounds=bounds, codec=CODEC, indexes=INDEXES, now=self.clock)
        self.follower = Follower(
            self.source, self.cache, on_gap=rng.choice(["resync", "diff"]),
            backoff_ceiling_s=0.2, now=self.clock, rng=Random(rng.random()),
        )  # fmt: skip
        plain, old = Features(), Features(list_from_cache_snapshot=False)
        self.readers = [
            self.reader(plain),
            self.reader(plain, use_indexes=False),
            self.reader(plain, resource=None),
            self.reader(old),
            self.reader(Features(consistent_list_from_cache=False)),
            self.reader(plain, follower=None),
            self.reader(plain, read="source"),
        ]
        self.rng = rng
        self.tidy = rng.random() < 0.7  # every object under its own name, so that keys tell names
        self.chains: list[Chain] = []

    def reader(self, features: Features, **options: object) -> Reader:
        given = {"follower": self.follower, "resource": BUILT_IN.named("pods")} | options
        return Reader(
            self.cache, self.source, features=features, codec=CODEC, fields=FIELDS,
            now=self.clock, wait=self.wait, **given,
        )  # type: ignore[arg-type]  # fmt: skip

    def wait(self, predicate: Callable[[State], object], timeout_s: float) -> bool:
        """Time passes: the follower goes on, and sometimes somebody writes."""
        if predicate(self.cache.state):
            return True
        if timeout_s <= 0:
            return False
        rng = self.rng
        if rng.random() < 0.1:
            self.write(rng)
        for _ in range(rng.randint(0, 3)):
            if not predicate(self.cache.state):
                self.follower.step()
        self.clock.now_s += timeout_s * rng.choice([0.5, 1.0])
        return bool(predicate(self.cache.state))

    # The truth.

    def at(self, revision: int) -> Pods:
        known = [*self.contents]
        return self.contents[known[bisect_right(known, revision) - 1]]

    def write(self, rng: Random) -> None:
        """A put, a delete, several of both in a transaction, or the end of a lease."""
        model, revision = self.model, self.model.revision + 1
        before = self.at(revision)
        after = dict(before)
        known = KEYS[: len(NAMES)] if self.tidy else KEYS
        keys = rng.sample(known, rng.choice([1, 1, 1, 2, 3, 5]))
        gone = [key for key in keys if key in before and rng.random() < 0.4]
        if rng.random() < 0.15:
            model.delete_keys(keys)
            for key in keys:
                after.pop(key, None)
        else:
            ops: list[Put | DeleteRange] = []
            for key in keys:
                if key in gone:
                    ops.append(DeleteRange(key))
                    del after[key]
                else:
                    after[key] = random_pod(rng, key, revision, tidy=self.tidy)
                    ops.append(Put(key, after[key].value))
            model.txn([], ops)
        if model.revision == revision:
            self.contents[revision] = after
        assert model.revision == revision or after == before

    def elsewhere(self, rng: Random) -> None:
        self.model.put(b"/registry/nodes/n", b"")

    def compact(self, rng: Random) -> None:
        revision = rng.randint(max(self.model.revision - 8, 1), self.model.revision)
        if revision > self.compacted:
            self.model.compact(revision)
            self.compacted = revision
        window = self.cache.state.window
        if window and rng.random() < 0.5:
            self.cache.compact(min(revision, window.current))

    def follow(self, rng: Random) -> None:
        self.source.rng = rng
        for _ in range(rng.randint(1, 4)):
            self.follower.step()
        self.source.rng = None
        self.clock.now_s += rng.choice([0.0, 0.05, 0.3])

    def line(self, rng: Random) -> None:
        self.source.away = rng.random() < 0.15

    # Reading.

    def any_revision(self, rng: Random) -> int:
        current, window = self.model.revision, self.cache.state.window
        edges = [self.compacted, current, current + 1, self.cache.revision, self.cache.revision + 1]
        edges += [window.oldest, window.oldest - 1] if window else []
        return max(1, rng.choice([*edges, rng.randint(1, current), rng.randint(1, current)]))

    def mode(self, rng: Random, limit: int) -> tuple[str, str, int | None, int]:
        """resourceVersion, its match, and what they allow: exactly, or at least."""
        r = self.any_revision(rng)
        match rng.choice(
            ["consistent", "consistent", "any", "exact", "exact", "not older", "bare"]
        ):
            case "consistent":
                return "", "", None, self.model.revision
            case "any":
                return "0", "", None, 0
            case "exact":
                return str(r), "Exact", r, r
            case "not older":
                return str(r), "NotOlderThan", None, r
        return (str(r), "", r, r) if limit > 0 else (str(r), "", None, r)

    def list(self, rng: Random) -> None:
        self.rng, limit = rng, rng.choice([0, 1, 1, 2, 2, 3, 20])
        version, match, exact, least = self.mode(rng, limit)
        chosen, prefix, recursive = rng.choice(SELECTORS), rng.choice(PREFIXES), rng.random() < 0.9
        if not recursive:
            prefix = rng.choice(KEYS)
        options = ListOptions(
            resource_version=version, resource_version_match=match, limit=limit,
            label_selector=chosen.labels, field_selector=chosen.fields,
            timeout_s=rng.choice([None, 0.0, 0.3]),
        )  # fmt: skip
        ask = Ask(options, prefix, recursive, chosen, exact, least)
        page = self.ask(rng, ask)
        if page is not None and page.meta.continue_token:
            revision = int(page.meta.resource_version)
            read = [element.key for element in page.elements]
            self.chains.append(Chain(ask, revision, page.meta.continue_token, read))

    def page_on(self, rng: Random) -> None:
        """I7: whoever is asked for the next page, it belongs to the first."""
        self.rng = rng
        if not self.chains:
            return
        chain = rng.choice(self.chains)
        first, (start, revision) = chain.ask, decode(chain.token, chain.ask.prefix)
        assert revision == chain.revision
        ask = self.continued(first, chain.token, start, revision, rng.choice([0, 1, 2, 5]))
        page = self.ask(rng, ask)
        if page is None:
            # Gone, unreadable or away: only the last may be asked again.
            self.chains.remove(chain)
            return
        chain.read += [element.key for element in page.elements]
        chain.token = page.meta.continue_token
        if not chain.token:
            whole = self.wanted(first, chain.revision, b"", known=True)
            assert chain.read == [key for key, _ in whole], "I7"
            self.chains.remove(chain)

    def token(self, rng: Random) -> None:
        """A token that nobody gave out: from any key, at any revision, with any selector."""
        self.rng, prefix = rng, rng.choice(PREFIXES)
        start = rng.choice([key for key in KEYS if key.startswith(prefix)] or [prefix])
        start += rng.choice([b"", b"\0"]) if start != prefix else b""
        revision = rng.choice([LATEST, self.any_revision(rng), self.any_revision(rng)])
        first = Ask(ListOptions(), prefix, True, rng.choice(SELECTORS), None, 0)
        ask = self.continued(
            first, encode(start, prefix, revision), start, revision, rng.choice([0, 1, 2])
        )
        self.ask(rng, ask)

    def continued(self, first: Ask, token: str, start: bytes, revision: int, limit: int) -> Ask:
        options = ListOptions(
            limit=limit, continue_token=token, label_selector=first.chosen.labels,
            field_selector=first.chosen.fields,
        )  # fmt: skip
        exact = revision if revision > 0 else None
        least = revision if revision > 0 else self.model.revision
        return Ask(options, first.prefix, True, first.chosen, exact, least, start)

    def ask(self, rng: Random, ask: Ask) -> ListPage | None:
        """One list by one of the readers, judged; None if it was rightly refused."""
        index = rng.randrange(len(self.readers))
        ask.keys_known = index != 2
        ready, refused = self.cache.ready, self.source.refused
        must = index < 3 and ask.exact is not None and self.kept(ask.exact)
        self.note(f"reader {index} {ask.options} {ask.prefix!r}")
        try:
            prefix = ask.prefix
            if ask.recursive and rng.random() < 0.2:
                prefix = rng.choice([prefix.rstrip(b"/"), prefix])
            page = self.readers[index].list(ask.options, prefix, recursive=ask.recursive)
        except Exception as error:
            self.note(type(error).__name__)
            self.judge_error(error, ask, must=must, ready=ready, refused=refused)
            if isinstance(error, Compacted) and ask.start and ask.recursive:
                self.go_on(rng, ask, error)
            return None
        self.judge(page, ask)
        return page

    def kept(self, revision: int) -> bool:
        window, good = self.cache.state.window, self.cache.state.suspect_after
        if window is None or not window.oldest <= revision <= window.current:
            return False
        return good is None or revision <= good

    def go_on(self, rng: Random, ask: Ask, error: Compacted) -> None:
        """The token in a 410 continues at the newest state."""
        start, revision = decode(error.continue_token, ask.prefix)
        assert (start, revision) == (ask.start, LATEST)
        self.ask(rng, self.continued(ask, error.continue_token, start, revision, 2))

    def wanted(
        self, ask: Ask, revision: int, start: bytes, *, known: bool
    ) -> list[tuple[bytes, Pod]]:
        """What the list is at `revision`, unreadable objects that it can't leave out included."""
        found = []
        for key, pod in sorted(self.at(revision).items()):
            inside = key.startswith(ask.prefix) if ask.recursive else key == ask.prefix
            if not inside or key < start:
                continue
            parts = key[len(PREFIX) :].decode().split("/")
            if pod.readable:
                takes = ask.chosen.takes(pod)
            else:
                takes = not known or len(parts) != 2 or ask.chosen.may_take(*parts)
            if takes:
                found.append((key, pod))
        return found

    def judge(self, page: ListPage, ask: Ask) -> None:
        revision, meta = int(page.meta.resource_version), page.meta
        assert revision <= self.model.revision
        assert revision == ask.exact if ask.exact is not None else revision >= ask.least
        wanted = self.wanted(ask, revision, ask.start, known=ask.keys_known)
        shown = wanted if ask.limit is None else wanted[: ask.limit]
        assert [element.key for element in page.elements] == [key for key, _ in shown]
        for element, (_, pod) in zip(page.elements, shown, strict=True):
            self.same(element, pod)
        if len(wanted) > len(shown):
            assert meta.continue_token
        if meta.continue_token:
            assert ask.limit is not None
            assert len(shown) == ask.limit
            assert decode(meta.continue_token, ask.prefix) == (shown[-1][0] + b"\0", revision)
            assert ask.filtered or len(wanted) > len(shown)
        left = len(wanted) - len(shown)
        assert meta.remaining_item_count == (left or None if not ask.filtered else None)

    def same(self, element: Element, pod: Pod) -> None:
        assert pod.readable
        assert element.problem is None
        assert (element.source_value(), element.mod_revision) == (pod.value, pod.revision)
        assert json.loads(element.value)["metadata"]["resourceVersion"] == str(pod.revision)

    def revisions(self, exact: int | None, least: int) -> range:
        """The revisions that an answer may have been of."""
        if exact is not None:
            return range(exact, exact + 1)
        return range(max(least, 1), self.model.revision + 1)

    def judge_error(
        self, error: Exception, ask: Ask, *, must: bool, ready: bool, refused: int
    ) -> None:
        assert not must or isinstance(error, SourceError), "a kept revision is served"
        match error:
            case SourceError():
                pages = (
                    self.wanted(ask, r, ask.start, known=ask.keys_known)[: ask.limit]
                    for r in self.revisions(ask.exact, ask.least)
                )
                bad = [{key for key, pod in page if not pod.readable} for page in pages]
                assert any(keys and all(k.decode() in str(error) for k in keys) for keys in bad)
            case _:
                self.judge_refusal(error, ask.exact, ask.least, ready=ready, refused=refused)

    def judge_refusal(
        self, error: Exception, exact: int | None, least: int, *, ready: bool, refused: int
    ) -> None:
        match error:
            case Compacted():
                assert exact is not None
                assert exact < self.compacted, "410 for what the source still has"
            case FutureRevision():
                assert least > self.cache.revision or least > self.model.revision
            case NotReady():
                assert not ready or not self.cache.ready
            case Unavailable():
                assert self.source.refused > refused
            case _:
                raise error

    def get(self, rng: Random) -> None:
        self.rng, key = rng, rng.choice(KEYS)
        version, match, exact, least = self.mode(rng, 0)
        options = GetOptions(
            resource_version=version, resource_version_match=match,
            timeout_s=rng.choice([None, 0.0, 0.3]),
        )  # fmt: skip
        ready, refused = self.cache.ready, self.source.refused
        self.note(f"{options} {key!r}")
        try:
            answer = rng.choice(self.readers).get(key, options)
        except Exception as error:
            self.note(type(error).__name__)
            self.judge_no_answer(error, key, self.revisions(exact, least))
            if not isinstance(error, NotFound | SourceError):
                self.judge_refusal(error, exact, least, ready=ready, refused=refused)
            return
        revision = int(answer.resource_version)
        assert revision in self.revisions(exact, least)
        self.same(answer.element, self.at(revision)[key])

    def judge_no_answer(self, error: Exception, key: bytes, revisions: range) -> None:
        held = [self.at(revision).get(key) for revision in revisions]
        match error:
            case NotFound():
                assert None in held
            case SourceError():
                assert any(pod and not pod.readable for pod in held)
                assert key.decode() in str(error)

    def finish(self) -> None:
        """With the line mended all is level, and everything retained is the truth."""
        self.source.away, self.rng = False, Random(0)
        for _ in range(1000):
            self.follower.step()
            self.clock.now_s += 0.1
            self.follower.request_progress()
            if self.cache.ready and self.cache.revision == self.model.revision:
                break
        assert self.cache.revision == self.model.revision
        for index, reader in enumerate(self.readers):
            for revision in range(1, self.model.revision + 1):
                options = ListOptions(resource_version=str(revision), limit=50)
                ask = Ask(options, PREFIX, True, ALL, revision, revision, b"", index != 2)
                try:
                    self.judge(reader.list(options), ask)
                except (Compacted, SourceError) as error:
                    must = index < 3 and self.kept(revision)
                    self.judge_error(error, ask, must=must, ready=True, refused=0)
        while self.chains:
            self.page_on(Random(len(self.chains)))
