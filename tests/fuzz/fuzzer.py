"""One seed: a world, requests, and what came of each."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from btreecache.errors import BtreecacheError, FutureRevision
from btreecache.options import GetOptions, ListOptions, WatchOptions, wants_watch
from btreecache.server.caches import served
from btreecache.server.routing import Objects, route
from btreecache.watch_stream import WatchEvent, WatchStream
from tests.fuzz import naive
from tests.fuzz.judge import (
    Before,
    Meaning,
    judge_answer,
    judge_page,
    judge_refusal,
    judge_status,
    require,
    same,
)
from tests.fuzz.requests import Request, Requests
from tests.fuzz.world import PODS, RESOURCE, Door, Followed, Stored, World

RESOURCES = served()

#: Events of one watch that are looked at, and times that it is found with nothing to say.
EVENTS_MAX, IDLE_MAX = 200, 3

#: One request in so many is huge; given tokens that are remembered; violations that are told.
HUGE_EVERY, TOKENS_MAX, TOLD_MAX = 1000, 20, 20

#: What refuses a list of keys that no API server makes: its next page can't be said in a token.
UNSAYABLE = ("unable to encode next field", "continue key is not valid: ")

#: Timeouts that no query string can say, but a caller can.
TIMEOUTS_S = (None, 0.0, -1.0, 1e308, float("inf"), float("-inf"), float("nan"), 0.25)


class Fuzzer:
    """Asks, and judges. `outcomes` counts answers by kind and refusals by status."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.world: World = Stored(rng) if rng.random() < 0.25 else Followed(rng)
        self.requests = Requests(rng, self.world)
        self.outcomes: Counter[str] = Counter()
        self.meaning = Meaning(b"")

    def ask(self, request: Request) -> None:
        """One request to one of the readers. Raises Violation, or what nobody should raise."""
        world, door = self.world, self.rng.choice(self.world.doors)
        if request.plain and not door.watches:
            door = world.doors[0]
        world.waits = 0
        before = Before.of(world)
        try:
            outcome = self._ask(request, door)
        except BtreecacheError as error:
            judge_status(error, request.size)
            judge_refusal(error, self.meaning, before, world)
            told = world.odd and any(text in str(error) for text in UNSAYABLE)
            wrong = request.plain and error.status in (400, 422) and not told
            require(not wrong, f"a valid request is refused: {error}")
            outcome = str(error.status)
        self.outcomes[outcome] += 1

    def _ask(self, request: Request, door: Door) -> str:
        """As the server does it, from the path on; what came of it."""
        world, key = self.world, request.key
        one = request.kind == "get" or request.exact
        named = request.kind == "get"
        self.meaning = Meaning(world.base if key is None else key, one)
        if request.path is not None:
            target = route(request.path, RESOURCES)
            if not isinstance(target, Objects) or target.resource != RESOURCE:
                return "routed"
            one = named = bool(target.name)
            found = target.key(b"/registry") if one else target.prefix(b"/registry")
            key = world.base + found[len(PODS) :]
        query = request.pairs
        if named:
            return self._get(GetOptions.from_query(query), key or b"", door)
        if wants_watch(query):
            return self._watch(WatchOptions.from_query(query), key, one, door)
        return self._list(ListOptions.from_query(query), key, one, door)

    def _get(self, options: GetOptions, key: bytes, door: Door) -> str:
        if self.rng.random() < 0.03:
            options = replace(options, timeout_s=self.rng.choice(TIMEOUTS_S))
        number = _number(options.resource_version)
        exact = number if options.resource_version_match == "Exact" else None
        least = number if options.resource_version else self.world.current
        self.meaning = Meaning(key, True, exact, least, number)
        judge_answer(door.reader.get(key, options), self.meaning, self.world)
        _named_plainly(options.resource_version)
        return "get"

    def _list(self, options: ListOptions, key: bytes | None, one: bool, door: Door) -> str:
        if self.rng.random() < 0.03:
            options = replace(options, timeout_s=self.rng.choice(TIMEOUTS_S))
        number, token = _number(options.resource_version), options.continue_token
        limit = options.limit if options.limit > 0 else None
        exact, start, position = None, b"", None
        least = number if options.resource_version else self.world.current
        if token and not one:
            position = naive.token(token)
            rest, number = position or (b"", 0)
            start = self._prefix(key, one) + rest
            exact, least = (number, number) if number > 0 else (None, self.world.current)
        elif options.resource_version_match == "Exact" or (
            limit and number and not options.resource_version_match
        ):
            # A token means nothing for one key, but without snapshots all that is continued goes
            # to the source, which reads its newest.
            exact = None if token and not door.snapshots else number
        self.meaning = self._meaning(options, key, one, door)._replace(
            exact=exact, least=least, number=max(number, 0), start=start,
            limit=None if one else limit,
        )  # fmt: skip
        page = door.reader.list(options, key, recursive=not one)
        require(not token or one or position, "a token that nobody can read is answered")
        _named_plainly(options.resource_version)
        judge_page(page, self.meaning, self.world)
        if page.meta.continue_token:
            tokens = self.requests.tokens
            tokens.append((page.meta.continue_token, self.meaning.prefix))
            del tokens[:-TOKENS_MAX]
        return "page" if token else "list"

    def _prefix(self, key: bytes | None, one: bool) -> bytes:
        prefix = self.world.base if key is None else key
        return prefix if one or not prefix or prefix.endswith(b"/") else prefix + b"/"

    def _meaning(
        self, options: ListOptions | WatchOptions, key: bytes | None, one: bool, door: Door
    ) -> Meaning:
        labels = naive.labels(options.label_selector)
        fields = naive.fields(options.field_selector, aliases=door.aliases)
        filtered = labels is not naive.everything or fields is not naive.everything
        return Meaning(self._prefix(key, one), one, labels=labels, fields=fields, filtered=filtered)

    # Watches.

    def _watch(self, options: WatchOptions, key: bytes | None, one: bool, door: Door) -> str:
        if self.rng.random() < 0.03:
            options = replace(options, timeout_s=self.rng.choice(TIMEOUTS_S))
        number = _number(options.resource_version)
        self.meaning = self._meaning(options, key, one, door)._replace(number=number)
        if self.rng.random() < 0.9:
            options = options.defaulted(door.features)
        began = self.world.cache.revision
        stream = door.reader.watch(options, key, exact=one)
        _named_plainly(options.resource_version)
        try:
            error = self._follow(stream, options)
        finally:
            stream.close()
        if error is None:
            return "watch"
        size = len(repr(options)) + len(key or b"")
        judge_status(error, size)
        if isinstance(error, FutureRevision):
            require(not number or number > began, f"{number} was there: {error}")
        return f"watch {error.status}"

    def _follow(self, stream: WatchStream, options: WatchOptions) -> BtreecacheError | None:
        """Hold what a watch says against what happens; the error that ends it."""
        world, meaning, idle = self.world, self.meaning, 0
        initial = options.send_initial_events is not False and (
            options.send_initial_events is True or meaning.number == 0
        )
        view: dict[bytes, int] | None = {} if initial else None
        if not initial and stream.position <= world.current:
            view = _revisions(meaning, world, stream.position)
        for _ in range(EVENTS_MAX):
            event = stream.poll()
            if event is None:
                idle += 1
                if stream.ended or idle > IDLE_MAX:
                    break
                if stream.position and view is not None and meaning.known:
                    there = _revisions(meaning, world, stream.position)
                    require(view == there, f"watch at {stream.position}: {view}, not {there}")
                world.pass_time()
                if self.rng.random() < 0.5:
                    world.write()
                world.step()
                world.clock.now_s += self.rng.choice([0.0, 1.0, 40.0])
            elif event.type == "ERROR":
                assert event.error is not None
                return event.error
            else:
                self._event(event, view)
        return None

    def _event(self, event: WatchEvent, view: dict[bytes, int] | None) -> None:
        world, meaning, revision = self.world, self.meaning, event.revision
        require(1 <= revision <= world.current, f"{event.type} at {revision}, which is not yet")
        if event.type == "BOOKMARK":
            if event.ends_initial_events and view is not None and meaning.known:
                there = _revisions(meaning, world, revision)
                require(view == there, f"state at {revision}: {view}, not {there}")
            return
        element = event.element
        assert element is not None
        key = element.key
        known = view is not None and meaning.known
        if event.type == "DELETED":
            require(not known or key in (view or {}), f"{key!r} leaves, but was never there")
            (view or {}).pop(key, None)
            return
        pods = world.at(revision)
        same(element, pods, revision)
        require(meaning.takes(key, pods[key]), f"{key!r} is not selected at {revision}")
        require(not known or (key in (view or {})) is (event.type == "MODIFIED"),
                f"{event.type} of {key!r} at {revision}")  # fmt: skip
        if view is not None:
            view[key] = element.mod_revision


def _number(version: str) -> int:
    """The number that a resourceVersion says; 0 for none that can be served."""
    digits = version.lstrip("0")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 30 else 0


def _named_plainly(version: str) -> None:
    """An answer was given: then its resourceVersion was a number."""
    plain = version.isascii() and version.isdigit()
    require(not version or plain, f"resourceVersion {version!r} is answered")


def _revisions(meaning: Meaning, world: World, revision: int) -> dict[bytes, int]:
    return {key: pod.revision for key, pod in meaning.of(world.at(revision)).items()}


# One seed.

Run = dict[str, Any]


def run_one(seed: int, requests: int) -> Run:
    """A seed from beginning to end. `violations` is empty when every outcome was in order."""
    rng = Random(f"fuzz {seed}")
    began_s = time.perf_counter()
    fuzzer = Fuzzer(rng)
    violations: list[dict[str, Any]] = []
    slowest_s, slowest, most_mb, biggest = 0.0, "", 0.0, ""
    for index in range(requests):
        fuzzer.world.pass_time()
        huge = index % HUGE_EVERY == HUGE_EVERY // 2
        request = fuzzer.requests.huge() if huge else fuzzer.requests.next()
        rss_mb = _rss_mb(fresh=True) if huge else 0.0
        cpu_s = time.process_time()
        try:
            fuzzer.ask(request)
        except Exception as error:
            fuzzer.outcomes["violation"] += 1
            if len(violations) < TOLD_MAX:
                told = "".join(traceback.format_exception(error)[-4:])[-3_000:]
                violations.append({"index": index, "request": str(request), "error": told})
        cpu_s = time.process_time() - cpu_s
        if cpu_s > slowest_s:
            slowest_s, slowest = cpu_s, str(request)[:120]
        if huge and (grown_mb := _rss_mb() - rss_mb) > most_mb:
            most_mb, biggest = grown_mb, str(request)[:120]
    return {
        "seed": seed, "requests": requests, "took_s": round(time.perf_counter() - began_s, 3),
        "outcomes": dict(sorted(fuzzer.outcomes.items())), "violations": violations,
        "slowest_s": round(slowest_s, 3), "slowest": slowest,
        "most_mb": round(most_mb, 1), "biggest": biggest,
    }  # fmt: skip


def _rss_mb(*, fresh: bool = False) -> float:
    """The most memory that this process held, in MB; `fresh`: what it holds now, and the count of
    the most begins again. 0 where the system can't say."""
    try:
        if fresh:
            Path("/proc/self/clear_refs").write_text("5")
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    name = "VmRSS:" if fresh else "VmHWM:"
    return int(text.split(name)[1].split()[0]) / 1024
