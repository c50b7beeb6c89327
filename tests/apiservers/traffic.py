"""Seeded traffic on one resource, each answer held against the client's own record."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Any, ClassVar

from tests.apiservers.bodies import Resource
from tests.apiservers.client import Api, Expired, Watch
from tests.apiservers.compaction import Compactor
from tests.apiservers.record import (
    Change,
    Key,
    Object,
    Record,
    key_of,
    revision_of,
    wrong_bookmark,
    wrong_events,
    wrong_list,
)

OBJECTS_FIRST = 6
OBJECTS_MAX = 60  # of a resource: beyond, deletions win
PATIENCE_S = 30.0  # for an event that is owed
_ZERO_GRACE = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}


class Wrong(Exception):
    """An answer that isn't what the record says."""


def check(right: object, *what: object) -> None:
    if not right:
        raise Wrong(" ".join(map(str, what))[:2000])


class World:
    """One resource of one server, written by nobody else.

    `watch_list`: the server can begin a watch with the state. Every method that begins with `do_`
    is a step of the traffic; it raises Wrong.
    """

    #: How often each step comes, relative to the others.
    STEPS: ClassVar[dict[str, float]] = {
        "create": 20, "update": 20, "merge": 6, "delete": 12, "conflict": 4, "race": 4,
        "refusals": 4, "get": 12, "list": 8, "pages": 8, "exact": 4, "from_cache": 4,
        "selected": 4, "watch": 6, "watch_one": 2, "watch_old": 1, "old_token": 0.1,
    }  # fmt: skip

    def __init__(
        self, api: Api, resource: Resource, rng: Random, compactor: Compactor, watch_list: bool
    ) -> None:
        self.api, self.resource, self.rng = api, resource, rng
        self.compactor = compactor
        self.record = Record()
        self.lock = asyncio.Lock()  # held by who writes, or asks for what the record must know
        self.steps: Counter[str] = Counter()
        self._created = 0
        weights = {**self.STEPS, "watch_list": 4.0} if watch_list else {**self.STEPS}
        self._names, self._weights = [*weights], [*weights.values()]

    async def run(self, stop: asyncio.Event, pause_s: float) -> None:
        """Every step once, and then at random with pauses of about `pause_s`. Raises Wrong."""
        async with self.lock:
            for _ in range(OBJECTS_FIRST):
                await self.do_create()
        every = self.rng.sample(self._names, len(self._names))
        while not stop.is_set():
            name = every.pop() if every else self.rng.choices(self._names, self._weights)[0]
            if len(self.record.now) >= OBJECTS_MAX:
                name = "delete"
            async with self.lock:
                if not self.record.now:
                    await self.do_create()
                await getattr(self, f"do_{name}")()
            self.steps[name] += 1
            await asyncio.sleep(self.rng.uniform(0, 2 * pause_s))

    async def close(self) -> None:
        """Everything as recorded, to the end."""
        async with self.lock:
            await self.do_list()

    # -- writes ---------------------------------------------------------------------------------

    def _some(self) -> Object:
        return self.record.now[self.rng.choice(sorted(self.record.now))]

    def _path(self, key: Key) -> str:
        return self.resource.url(*key)

    async def _write(self, verb: str, path: str, body: Object, code: int) -> Object:
        status, answer = await self.api.ask(verb, path, body)
        check(status == code, verb, path, "is answered with", status, answer)
        self.record.put(answer)
        return answer

    async def do_create(self) -> None:
        self._created += 1
        key = (self.rng.choice(self.resource.namespaces), f"n{self._created}")
        body = self.resource.new(self.rng, *key)
        answer = await self._write("post", self.resource.url(key[0]), body, 201)
        check(key_of(answer) == key, "created", key_of(answer), "instead of", key)

    async def do_update(self) -> None:
        thing = self._some()
        body = self.resource.changed(self.rng, thing)
        await self._write("put", self._path(key_of(thing)), body, 200)

    async def do_merge(self) -> None:
        thing, draw = self._some(), str(self.rng.getrandbits(40))
        body = {"metadata": {"annotations": {"example.com/merged": draw}}}
        answer = await self._write("merge", self._path(key_of(thing)), body, 200)
        notes = answer["metadata"]["annotations"]
        check(notes["example.com/merged"] == draw, "merged", notes, "instead of", draw)

    async def do_delete(self) -> None:
        thing = self._some()
        options = {**_ZERO_GRACE, "preconditions": {"uid": thing["metadata"]["uid"]}}
        status, answer = await self.api.ask("delete", self._path(key_of(thing)), options)
        check(status == 200, "a deletion is answered with", status, answer)
        self.record.delete(key_of(thing))

    async def do_conflict(self) -> None:
        """An update of what has been updated since."""
        old = self._some()
        body = self.resource.changed(self.rng, old)
        await self._write("put", self._path(key_of(old)), body, 200)
        body = self.resource.changed(self.rng, old)
        status, answer = await self.api.ask("put", self._path(key_of(old)), body)
        check((status, answer["reason"]) == (409, "Conflict"), "not a conflict:", status, answer)

    async def do_race(self) -> None:
        """Two updates of the same state at once: one of them holds."""
        thing = self._some()
        bodies = [self.resource.changed(self.rng, thing) for _ in range(2)]
        path = self._path(key_of(thing))
        answers = await asyncio.gather(*(self.api.ask("put", path, body) for body in bodies))
        check(sorted(code for code, _ in answers) == [200, 409], "a race ends with", answers)
        self.record.put(next(answer for code, answer in answers if code == 200))

    async def do_refusals(self) -> None:
        """What must change nothing."""
        thing = self._some()
        key = key_of(thing)
        absent = (key[0], "absent")
        wanted = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}}
        update = self.resource.changed(self.rng, thing)
        update["metadata"]["name"] = "absent"
        for verb, path, body, reason in (
            ("post", self.resource.url(key[0]), self.resource.new(self.rng, *key), "AlreadyExists"),
            ("put", self._path(absent), update, "Conflict NotFound"),
            ("delete", self._path(absent), _ZERO_GRACE, "NotFound"),
            ("delete", self._path(key), wanted, "Conflict"),
            ("get", self._path(absent), None, "NotFound"),
        ):
            code, answer = await self.api.ask(verb, path, body)
            check(answer.get("reason") in reason.split(), verb, path, "gets", code, answer)

    # -- reads ----------------------------------------------------------------------------------

    async def do_get(self) -> None:
        thing = self._some()
        status, answer = await self.api.ask("get", self._path(key_of(thing)))
        check(status == 200, "a get is answered with", status, answer)
        problem = wrong_list([answer], [thing])
        check(problem is None, "get:", problem)

    def _expected(self, namespace: str, place: int, parity: str | None = None) -> list[Object]:
        return [
            thing
            for key, thing in self.record.at(place).items()
            if namespace in ("", key[0])
            and (parity is None or thing["metadata"]["labels"]["parity"] == parity)
        ]

    async def _list(self, namespace: str, **params: Any) -> Object:
        """A list; other tenants' objects left out. Raises Expired."""
        status, answer = await self.api.ask("get", self.resource.url(namespace), **params)
        if status == 410:
            raise Expired(answer)
        check(status == 200, "a list with", params, "is answered with", status, answer)
        own = self.resource.namespaces
        answer["items"] = [item for item in answer["items"] if key_of(item)[0] in own]
        return answer

    def _scope(self) -> str:
        """A namespace, or "" for all of them."""
        return self.rng.choice(("", *self.resource.namespaces))

    def _compare(self, what: str, items: Sequence[Object], expected: Sequence[Object]) -> None:
        problem = wrong_list(items, expected)
        check(problem is None, what, self.resource.plural, problem)

    async def _current(self, namespace: str, **params: Any) -> Object:
        """A list of the current state; its revision becomes known."""
        answer = await self._list(namespace, **params)
        self.record.told(revision_of(answer))
        return answer

    async def do_list(self) -> None:
        scope = self._scope()
        answer = await self._current(scope)
        self._compare("list", answer["items"], self._expected(scope, len(self.record.changes)))

    async def _rest(self, scope: str, answer: Object, limit: int, writes: bool) -> list[Object]:
        """The items of a list in pages from the first page on, with writes in between."""
        items: list[Object] = answer["items"]
        while token := answer["metadata"].get("continue"):
            if writes and self.rng.random() < 0.5:
                await self.rng.choice((self.do_create, self.do_update, self.do_delete))()
                if not self.record.now:
                    await self.do_create()
            revision = answer["metadata"]["resourceVersion"]
            answer = await self._list(scope, limit=limit, **{"continue": token})
            found = answer["metadata"]["resourceVersion"]
            check(found == revision, "a page is of", found, "and the one before of", revision)
            items = items + answer["items"]
        return items

    async def do_pages(self) -> None:
        scope, limit = self._scope(), self.rng.randrange(1, 20)
        first = await self._current(scope, limit=limit)
        revision, place = revision_of(first), len(self.record.changes)
        expected = self._expected(scope, place)
        left = first["metadata"].get("remainingItemCount", 0)
        if scope:
            check(left == max(0, len(expected) - limit), left, "left of", len(expected))
        try:
            items = await self._rest(scope, first, limit, writes=True)
        except Expired as expired:
            await self._may_expire(revision, expired)
        else:
            self._compare("pages", items, expected)

    async def _may_expire(self, revision: int, expired: Expired) -> None:
        floor = await self.compactor.asked()
        check(revision < floor, revision, "expired and the floor was", floor, expired)

    async def do_exact(self) -> None:
        """The state at a revision of before, in pages or whole."""
        changes = self.record.changes
        place = self.rng.randrange(max(0, len(changes) - 30), len(changes)) + 1
        revision = changes[place - 1].revision
        if revision is None or changes[place - 1].type == "DELETED":
            return
        scope, limit = self._scope(), self.rng.randrange(1, 40)
        wanted = {"resourceVersion": revision, "resourceVersionMatch": "Exact"}
        try:
            first = await self._list(scope, limit=limit, **wanted)
            items = await self._rest(scope, first, limit, writes=False)
        except Expired as expired:
            await self._may_expire(revision, expired)
            return
        found = revision_of(first)
        check(found == revision, "asked for exactly", revision, "and got", found)
        self._compare("exact list", items, self._expected(scope, place))

    async def do_from_cache(self) -> None:
        """Any revision, or one not older than the last write: what the cache has."""
        scope = self._scope()
        wanted = self.rng.choice((0, revision_of(self._last_put())))
        answer = await self._list(scope, resourceVersion=wanted)
        found = revision_of(answer)
        check(found >= wanted, "asked for not older than", wanted, "and got", found)
        items = sorted(answer["items"], key=key_of)  # The cache of 1.20 keeps no order.
        problems = []
        for place in self.record.places(found):
            problems.append(wrong_list(items, self._expected(scope, place)))
            if problems[-1] is None:
                return
        check(False, "cached list at", found, self.resource.plural, problems)

    def _last_put(self) -> Object:
        return next(c.object for c in reversed(self.record.changes) if c.type != "DELETED")

    async def do_selected(self) -> None:
        scope, parity = self._scope(), str(self.rng.randrange(2))
        answer = await self._current(scope, labelSelector=f"parity={parity}")
        expected = self._expected(scope, len(self.record.changes), parity)
        self._compare("selected list", answer["items"], expected)

    # -- watches --------------------------------------------------------------------------------

    def _owed(self, scope: str, start: int, only: Key | None = None) -> list[Change]:
        """What a watch from behind the first `start` changes gets."""
        return [
            change
            for change in self.record.changes[start:]
            if scope in ("", key_of(change.object)[0]) and only in (None, key_of(change.object))
        ]

    def own(self, events: Sequence[Object]) -> list[Object]:
        """Those of our namespaces. 1.20 updates a pod to delete it: that is no change of ours."""
        own = self.resource.namespaces
        return [
            event
            for event in events
            if event["type"] == "BOOKMARK"
            or (
                key_of(event["object"])[0] in own
                and (event["type"], "deletionTimestamp" in event["object"]["metadata"])
                != ("MODIFIED", True)
            )
        ]

    async def judge(
        self,
        watch: Watch,
        scope: str,
        start: int,
        only: Key | None = None,
        *,
        whole: bool = True,
        since: int = 0,
    ) -> None:
        """Compare what came with what is owed; `whole`: wait for all that is owed by now. One that
        began at the revision `since` may end when that is compacted."""
        owed = self._owed(scope, start, only)
        puts = [change.revision for change in owed if change.type != "DELETED"]
        arrived = not whole or not puts or await watch.reach(puts[-1] or 0, PATIENCE_S)
        if since and not arrived and isinstance(watch.ended, Expired):
            await self._may_expire(since, watch.ended)
            arrived = True
        events = self.own(watch.events)
        problem = wrong_events(events, owed) or wrong_bookmark(events, owed)
        what = f"watch of {self.resource.plural} in {scope!r} from change {start}:"
        check(problem is None, what, problem)
        check(arrived, what, f"{len(events)} events of {len(owed)} came; {watch.ended!r}")

    async def _write_something(self, only: Key | None = None) -> None:
        for _ in range(self.rng.randrange(1, 12)):
            if not self.record.now:
                await self.do_create()
            steps = (self.do_create, self.do_update, self.do_merge, self.do_delete)
            await self.rng.choice(steps)()
        if only is None:
            await self.do_create()  # The last event has a revision to wait for.
        elif only in self.record.now:
            thing = self.record.now[only]
            body = self.resource.changed(self.rng, thing)
            await self._write("put", self._path(only), body, 200)

    async def do_watch(self) -> None:
        """From the revision of a list or of a recent write on, while more is written."""
        scope = self._scope()
        changes = self.record.changes
        start = self.rng.randrange(max(0, len(changes) - 10), len(changes)) + 1
        revision = changes[start - 1].revision
        if revision is None or changes[start - 1].type == "DELETED":
            revision, start = revision_of(await self._current(scope, limit=1)), len(changes)
        await self._watch(scope, revision, start)

    async def _watch(self, scope: str, revision: int, start: int) -> None:
        params = {"resourceVersion": revision, "allowWatchBookmarks": "true"}
        async with self.api.watch(self.resource.url(scope), timeoutSeconds=60, **params) as watch:
            await self._write_something()
            if scope:  # One more there, to wait for.
                self._created += 1
                body = self.resource.new(self.rng, scope, f"n{self._created}")
                await self._write("post", self.resource.url(scope), body, 201)
            await self.judge(watch, scope, start, since=revision)

    async def do_watch_one(self) -> None:
        """Of a single object."""
        key = key_of(self._some())
        revision, start = revision_of(await self._current(key[0])), len(self.record.changes)
        selector = f"metadata.name={key[1]}"
        params = {"resourceVersion": revision, "fieldSelector": selector, "timeoutSeconds": 60}
        async with self.api.watch(self.resource.url(key[0]), **params) as watch:
            await self._write_something(key)
            await self.judge(watch, key[0], start, key, since=revision)

    async def do_watch_list(self) -> None:
        """A watch that begins with the state: that of a revision no older than the last write."""
        scope, wanted = self._scope(), revision_of(self._last_put())
        start = len(self.record.changes)
        params = {
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.rng.choice(("", wanted)),
            "timeoutSeconds": 60,
        }
        async with self.api.watch(self.resource.url(scope), **params) as watch:
            initial = await watch.initial(PATIENCE_S)
            check(initial is not None, "no end of the initial events:", watch.ended)
            assert initial is not None
            check(all(e["type"] == "ADDED" for e in initial), "initial events:", initial)
            items = sorted((e["object"] for e in initial), key=key_of)
            self._compare("watch-list", items, self._expected(scope, start))
            mark = revision_of(watch.events[len(initial)]["object"])
            check(mark >= wanted, "a state of", mark, "although", wanted, "was known")
            del watch.events[: len(initial) + 1]
            await self._write_something()
            await self.judge(watch, scope, start)

    async def do_watch_old(self) -> None:
        """From below the last compaction: expired, and then from a new list; or, where a cache
        reaches back so far, everything since."""
        old = self.record.told_below(self.compactor.done)
        if not old:
            return
        revision = self.rng.choice((old[0], old[-1], self.rng.choice(old)))
        start = self.record.place(revision)
        params = {"resourceVersion": revision, "timeoutSeconds": 60}
        async with self.api.watch(self.resource.url(), **params) as watch:
            await self.do_create()
            await self._until_over_or_there(watch)
            if not isinstance(watch.ended, Expired):
                check(self.resource.cached, "a watch from compacted", revision, "has begun")
                await self.judge(watch, "", start)
                return
        self.steps["watch expired"] += 1
        answer = await self._current("")
        place = len(self.record.changes)
        self._compare("recovery", answer["items"], self._expected("", place))
        await self._watch("", revision_of(answer), place)

    async def _until_over_or_there(self, watch: Watch) -> None:
        last = self.record.changes[-1].revision
        assert last is not None
        await watch.reach(last, PATIENCE_S)

    async def do_old_token(self) -> None:
        """A token that a compaction came over: the rest as it was, or expired, and then the rest
        as it is, by the token that the refusal brings."""
        first = await self._current("", limit=2)
        token, place = first["metadata"].get("continue"), len(self.record.changes)
        if not token:
            return
        await self.do_create()
        await self.compactor.compact(revision_of(self._last_put()))
        try:
            answer = await self._list("", **{"continue": token})
        except Expired as expired:
            await self._may_expire(revision_of(first), expired)
            self.steps["token expired"] += 1
            token = expired.status["metadata"]["continue"]
            answer = await self._current("", **{"continue": token})
            place = len(self.record.changes)
        skipped = self._page_end(first, place)
        self._compare("old token", answer["items"], self._expected("", place)[skipped:])

    def _page_end(self, first: Object, place: int) -> int:
        """How many objects at `place` lie up to the end of that page, which holds two of anyone."""
        names = [key_of(item) for item in first["items"]]
        last = max(names, default=("", ""))
        return sum(1 for thing in self._expected("", place) if key_of(thing) <= last)


class Follower:
    """A reader of a whole resource that lists and watches as informers do, all the time."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world, self._rng = world, rng
        self.did: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop, and then to the last change. Raises Wrong."""
        world = self._world
        while not stop.is_set():
            async with world.lock:
                await world.do_list()
                revision, start = world.record.last_told, len(world.record.changes)
            self.did["list"] += 1
            await self._follow(revision, start, stop)

    async def _follow(self, revision: int, start: int, stop: asyncio.Event) -> None:
        """Watch after watch, each from where the one before ended, until one has expired."""
        world = self._world
        while True:
            self.did["watch"] += 1
            bound_s = self._rng.randrange(5, 60)
            params = {"resourceVersion": revision, "allowWatchBookmarks": "true"}
            url = world.resource.url()
            async with world.api.watch(url, timeoutSeconds=bound_s, **params) as watch:
                await _first(stop.wait(), watch.end(bound_s + PATIENCE_S))
                arrived = False
                async with world.lock:
                    if stop.is_set():
                        await world.do_create()
                        arrived = await watch.reach(world.record.last_told, PATIENCE_S)
                    await world.judge(watch, "", start, whole=False)
            if arrived:
                return
            if isinstance(watch.ended, Expired):
                self.did["expired"] += 1
                return
            check(watch.ended == "closed", "a watch stopped or ended:", watch.ended)
            start += sum(event["type"] != "BOOKMARK" for event in world.own(watch.events))
            revision = watch.revision or revision


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Until one of them is done; the others are given up."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
