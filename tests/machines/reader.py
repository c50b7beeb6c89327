"""Reader: gets, lists, page chains and watches while a source writes, compacts and breaks.

The truth is a dict of objects per revision, made from what was written, not from what was read. A
read may say a revision of its own choice only within what its mode allows, and must then answer
with exactly the objects of that revision (I4 to I8, I12); an error needs its reason. What a watch
says is judged in `watches`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Literal

from btreecache import (
    Bounds,
    BtreecacheError,
    Cache,
    Compacted,
    Element,
    Follower,
    FutureRevision,
    NotReady,
    SourceError,
    Unavailable,
)
from btreecache.cache import State
from btreecache.continue_token import LATEST, decode, encode
from btreecache.errors import BadRequest, Invalid, NotFound, Unsupported
from btreecache.features import Features
from btreecache.options import NOT_OLDER_THAN, GetOptions, ListOptions, WatchOptions
from btreecache.reader import Reader
from btreecache.reads import ATTEMPTS_MAX, ListPage
from btreecache.resources import BUILT_IN
from btreecache.trips import PROGRESS_S
from btreecache.watch_stream import WatchStream
from etcdsim.model import Model
from etcdsim.txn import DeleteRange, Put
from tests.fakes import Clock
from tests.machines.asks import Ask, Before, Chain
from tests.machines.model import Machine
from tests.machines.pods import (
    ALL,
    CODEC,
    FIELDS,
    INDEXES,
    KEYS,
    NAMES,
    PREFIX,
    PREFIXES,
    SELECTORS,
    Chosen,
    History,
    Pod,
    Pods,
    random_pod,
)
from tests.machines.shaky import Shaky
from tests.machines.watches import View, Watched

#: Places among the readers: without a follower, and of the source alone.
ALONE, READS_SOURCE = 5, 6

#: Watches that are open at one time.
WATCHES_MAX = 6


class ReaderMachine(Machine):
    rules = (*["write"] * 8, *["expire"] * 2, *["follow"] * 6, "compact", "line", *["get"] * 3,
             *["list"] * 6, *["page_on"] * 4, *["token"] * 2, "elsewhere", *["watch"] * 3,
             *["poll"] * 10, "end", "time")  # fmt: skip

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.clock, self.model = Clock(), Model()
        self.source = Shaky(self.model)
        self.source.meanwhile, self.source.listed = self.meanwhile, self.listed
        self.source.trouble = rng.choice([0.01, 0.03, 0.1])
        self.history = History(self.model.revision)
        #: The keys of each lease; a lease ends with all of them at one revision.
        self.leases: list[set[bytes]] = [set(), set()]
        self.compacted = 0
        self.interruptions = 0  # compactions that came between a read's question and its answer
        self.epoch = 0  # how often history was cut, for whoever watches
        self.blind_s = 0.0  # when there last was no stream to ask for progress
        bounds = Bounds(age_s=None, revisions=rng.choice([None, rng.randint(1, 15)]))
        self.cache = Cache(PREFIX, bounds=bounds, codec=CODEC, indexes=INDEXES, now=self.clock)
        self.on_gap: Literal["resync", "diff"] = rng.choice(["resync", "diff"])
        self.follower = Follower(
            self.source, self.cache, on_gap=self.on_gap,
            backoff_ceiling_s=0.2, now=self.clock, rng=Random(rng.random()),
        )  # fmt: skip
        plain, old = Features(), Features(list_from_cache_snapshot=False)
        without, old_watch = Features(consistent_list_from_cache=False), Features(watch_list=False)
        self.features = [plain, plain, plain, old, without, plain, plain, old_watch]
        self.readers = [
            self.reader(plain),
            self.reader(plain, use_indexes=False),
            self.reader(plain, resource=None),
            self.reader(old),
            self.reader(without),
            self.reader(plain, follower=None),
            self.reader(plain, read="source"),
            self.reader(old_watch),
        ]
        self.rng = rng
        self.tidy = rng.random() < 0.7  # every object under its own name, so that keys tell names
        self.bad = rng.choice([0.0, 0.01, 0.05])
        self.chains: list[Chain] = []
        self.watches: list[Watched] = []

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
                self.follow_on()
        self.clock.now_s += timeout_s * rng.choice([0.5, 1.0])
        return bool(predicate(self.cache.state))

    # The truth.

    def at(self, revision: int) -> Pods:
        return self.history.at(revision)

    def write(self, rng: Random) -> None:
        """A put, a delete, or several of both in a transaction. A put may be held by a lease."""
        revision = self.model.revision + 1
        before = self.at(revision)
        after = dict(before)
        known = KEYS[: len(NAMES)] if self.tidy else KEYS
        keys = rng.sample(known, rng.choice([1, 1, 1, 2, 3, 5]))
        ops: list[Put | DeleteRange] = []
        for key in keys:
            for lease in self.leases:
                lease.discard(key)
            if key in before and rng.random() < 0.4:
                ops.append(DeleteRange(key))
                del after[key]
            else:
                after[key] = random_pod(rng, key, revision, tidy=self.tidy, bad=self.bad)
                ops.append(Put(key, after[key].value))
                if rng.random() < 0.3:
                    rng.choice(self.leases).add(key)
        self.model.txn([], ops)
        assert self.model.revision == revision
        self.history.write(revision, after, keys)

    def expire(self, rng: Random) -> None:
        """A lease ends: all its keys go at one revision, in key order."""
        lease, revision = rng.choice(self.leases), self.model.revision + 1
        if lease:
            self.model.delete_keys(lease)
            assert self.model.revision == revision
            kept = {key: pod for key, pod in self.at(revision).items() if key not in lease}
            self.history.write(revision, kept, sorted(lease))
            lease.clear()

    def elsewhere(self, rng: Random) -> None:
        self.model.put(b"/registry/nodes/n", b"")

    def compact(self, rng: Random) -> None:
        revision = rng.randint(max(self.model.revision - 8, 1), self.model.revision)
        self.compact_source(revision)
        window = self.cache.state.window
        if window and rng.random() < 0.5:
            self.cache.compact(min(revision, window.current))

    def compact_source(self, revision: int) -> None:
        if revision > self.compacted:
            self.model.compact(revision)
            self.compacted = revision

    def meanwhile(self) -> None:
        """Before the source answers, somebody else writes, and compacts away what it was asked."""
        if self.rng.random() < 0.03:
            self.write(self.rng)
            self.compact_source(self.model.revision)
            self.interruptions += 1

    def listed(self, revision: int) -> None:
        """The follower has listed: history is cut, or the gap will be told as one step."""
        state = self.cache.state
        if state.window is None:
            return
        if self.on_gap == "diff" and revision > state.window.current:
            self.history.gap(state.window.current, revision)
        else:
            self.epoch += 1

    def follow(self, rng: Random) -> None:
        self.rng = self.source.rng = rng
        for _ in range(rng.randint(1, 4)):
            self.follow_on()
        self.source.rng = None
        self.clock.now_s += rng.choice([0.0, 0.05, 0.3])

    def follow_on(self) -> None:
        was_blind = not self.source.streaming
        self.follower.step()
        if was_blind or not self.source.streaming:
            self.blind_s = self.clock.now_s

    def time(self, rng: Random) -> None:
        self.clock.now_s += rng.choice([1.0, 7.0, 31.0, 61.0])

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
        before = self.before()
        must = index < 3 and ask.exact is not None and self.kept(ask.exact)
        self.note(f"reader {index} {ask.options} {ask.prefix!r}")
        try:
            prefix = ask.prefix
            if ask.recursive and rng.random() < 0.2:
                prefix = rng.choice([prefix.rstrip(b"/"), prefix])
            page = self.readers[index].list(ask.options, prefix, recursive=ask.recursive)
        except Exception as error:
            self.note(type(error).__name__)
            self.judge_error(error, ask, before, must=must)
            if isinstance(error, Compacted) and ask.start and ask.recursive:
                self.go_on(rng, ask, error)
            return None
        self.judge(page, ask)
        return page

    def before(self) -> Before:
        return Before(
            self.cache.ready,
            self.source.refused,
            self.interruptions,
            self.model.revision,
            self.clock.now_s,
        )

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
        right = revision == ask.exact if ask.exact is not None else revision >= ask.least
        assert right, "another revision than was asked for"
        wanted = self.wanted(ask, revision, ask.start, known=ask.keys_known)
        shown = wanted if ask.limit is None else wanted[: ask.limit]
        found = [element.key for element in page.elements]
        assert found == [key for key, _ in shown], "I4: another content than the revision's"
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

    def judge_error(self, error: Exception, ask: Ask, before: Before, *, must: bool) -> None:
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
                self.judge_refusal(error, ask.exact, ask.least, before)

    def judge_refusal(
        self, error: Exception, exact: int | None, least: int, before: Before
    ) -> None:
        match error:
            case Compacted() if exact is None:
                met = self.interruptions - before.interruptions
                assert met >= ATTEMPTS_MAX, "410 for the newest state, which can be had"
            case Compacted():
                assert exact is not None
                assert exact < self.compacted, "410 for what the source still has"
            case FutureRevision():
                ahead = least > self.cache.revision or least > self.model.revision
                assert ahead, "504 for what has been reached"
            case NotReady():
                assert not before.ready or not self.cache.ready
            case Unavailable():
                assert self.source.refused > before.refused
            case _:
                raise error

    def get(self, rng: Random) -> None:
        self.rng, key = rng, rng.choice(KEYS)
        version, match, exact, least = self.mode(rng, 0)
        options = GetOptions(
            resource_version=version, resource_version_match=match,
            timeout_s=rng.choice([None, 0.0, 0.3]),
        )  # fmt: skip
        before = self.before()
        self.note(f"{options} {key!r}")
        try:
            answer = rng.choice(self.readers).get(key, options)
        except Exception as error:
            self.note(type(error).__name__)
            self.judge_no_answer(error, key, self.revisions(exact, least))
            if not isinstance(error, NotFound | SourceError):
                self.judge_refusal(error, exact, least, before)
            return
        revision = int(answer.resource_version)
        right = revision in self.revisions(exact, least)
        assert right, "another revision than was asked for"
        self.same(answer.element, self.at(revision)[key])

    def judge_no_answer(self, error: Exception, key: bytes, revisions: range) -> None:
        held = [self.at(revision).get(key) for revision in revisions]
        match error:
            case NotFound():
                assert None in held, "I4: not found, but it is there"
            case SourceError():
                assert any(pod and not pod.readable for pod in held)
                assert key.decode() in str(error)

    # Watching.

    def watch(self, rng: Random) -> None:
        """Open a watch of any kind through one of the readers."""
        self.rng, index = rng, rng.randrange(len(self.readers))
        view = View(rng.choice(PREFIXES), False, rng.choice(SELECTORS), index != 2)
        if rng.random() < 0.2:
            view.prefix, view.exact = rng.choice(KEYS), True
        options = self.watch_options(rng, view.chosen)
        if rng.random() < 0.3:
            options = options.defaulted(self.features[index])
        before = self.before()
        self.note(f"reader {index} {options} {view.prefix!r} {view.exact}")
        try:
            stream = self.readers[index].watch(options, view.prefix, exact=view.exact)
        except Exception as error:
            self.note(type(error).__name__)
            self.judge_no_watch(error, options, index, before)
            return
        asks = options.send_initial_events is not None
        assert not asks or self.features[index].watch_list, "the gate is off"
        if len(self.watches) == WATCHES_MAX:
            self.watches.pop(rng.randrange(WATCHES_MAX))
        self.watches.append(self.watched(stream, options, view, index, before))

    def watch_options(self, rng: Random, chosen: Chosen) -> WatchOptions:
        version = rng.choice(["", "0", *[str(self.any_revision(rng)) for _ in range(3)]])
        initial = rng.choice([None, None, False, True])
        return WatchOptions(
            resource_version=version, send_initial_events=initial,
            resource_version_match="" if initial is None else NOT_OLDER_THAN,
            allow_watch_bookmarks=rng.random() < 0.6,
            timeout_s=rng.choice([*[None] * 8, 0.0, 1.5, 40.0, 200.0]),
            label_selector=chosen.labels, field_selector=chosen.fields,
        )  # fmt: skip

    def judge_no_watch(
        self, error: Exception, options: WatchOptions, index: int, before: Before
    ) -> None:
        match error:
            case Invalid():
                assert options.send_initial_events is not None
                assert not self.features[index].watch_list
            case BadRequest():
                assert index == READS_SOURCE
            case NotReady():
                assert not before.ready or not self.cache.ready
            case _:
                raise error

    def watched(
        self, stream: WatchStream, options: WatchOptions, view: View, index: int, before: Before
    ) -> Watched:  # fmt: skip
        """What an open watch must say."""
        asked, initial = int(options.resource_version or 0), options.send_initial_events
        from_state = bool(initial) or (initial is None and not asked)
        start, least = (asked or self.cache.revision), 0
        if not options.resource_version and initial is not None:
            start = least = before.current
        if from_state:
            start, least = self.cache.revision, max(least, asked)
        excuses: set[type[BtreecacheError]] = set()
        if self.source.refused > before.refused:
            excuses.add(Unavailable)
        if from_state and least > self.cache.revision:
            excuses.add(FutureRevision)
        window = self.cache.state.window
        if not from_state and window and start < window.watch_floor:
            excuses.add(Compacted)
        streamed = options.send_initial_events and options.allow_watch_bookmarks
        blind = not self.source.streaming or self.clock.now_s - self.blind_s <= PROGRESS_S
        if streamed and (index == ALONE or blind):
            excuses.add(Unsupported)
        return Watched(
            stream=stream, options=options, view=view, history=self.history, cache=self.cache,
            clock=self.clock, initial=from_state, start=start, least=least, excuses=excuses,
            epoch=self.epoch,
            asked_s=before.now_s,
        )  # fmt: skip

    def poll(self, rng: Random) -> None:
        """Read some events of one watch."""
        if not self.watches:
            return
        watched = rng.choice(self.watches)
        self.note(f"{watched.view} from {watched.start} at {watched.revision}")
        for _ in range(rng.choice([1, 2, 5, 100])):
            if not watched.poll(self.epoch):
                break
        if watched.stream.ended:
            self.watches.remove(watched)

    def end(self, rng: Random) -> None:
        """A reader goes, or the server drains."""
        if self.watches:
            watched = rng.choice(self.watches)
            watched.end(drain=rng.random() < 0.5)
            self.note(f"{watched.view} at {watched.revision}, drained {watched.drained}")

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
        before = self.before()
        for index, reader in enumerate(self.readers):
            for revision in range(1, self.model.revision + 1):
                options = ListOptions(resource_version=str(revision), limit=50)
                ask = Ask(options, PREFIX, True, ALL, revision, revision, b"", index != 2)
                try:
                    self.judge(reader.list(options), ask)
                except (Compacted, SourceError) as error:
                    must = index < 3 and self.kept(revision)
                    self.judge_error(error, ask, before, must=must)
        while self.chains:
            self.page_on(Random(len(self.chains)))
        for watched in self.watches:
            watched.finish(self.epoch)
