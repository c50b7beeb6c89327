"""What a GET, a LIST and a WATCH do, as the Kubernetes API promises them, from a cache and its
source.

They carry out read plans (`plan`). A read is a generator: it yields what it needs (a trip to the
source, a wait, a page of the source) and is sent what came of it, so that it is written once for
the drivers (`reader`), which meet those needs by blocking a thread or on an event loop. A read
looks at one published State from beginning to end: the one it was planned on, or the one that ended
its wait. What it doesn't do: wait, or call a source.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from btreecache.cache import Cache, State
from btreecache.compaction import Compaction
from btreecache.continue_token import expired
from btreecache.element import Element
from btreecache.errors import (
    BadRequest,
    BtreecacheError,
    Compacted,
    FutureRevision,
    NotReady,
    Unavailable,
)
from btreecache.features import Features
from btreecache.fields import ResourceFields
from btreecache.metrics import ReadCounts
from btreecache.options import GetOptions, ListOptions, WatchOptions
from btreecache.plan import (
    After,
    CurrentRevision,
    FromCache,
    FromSource,
    Outcome,
    PageMeta,
    Plan,
    Refuse,
    Situation,
    StartWatch,
    Step,
    TooLarge,
    Wait,
    after,
    page_meta,
    plan_get,
    plan_list,
    plan_watch,
)
from btreecache.selection import UNREADABLE, Keys, Selection, any_in, check_readable, select
from btreecache.snapshot import Page, Snapshot, prefix_end
from btreecache.source import RangePage, Source
from btreecache.store import Store
from btreecache.trips import ProgressRequests
from btreecache.watch_stream import DeletedElements, WatchStream

#: Keys in a page of the source: where a list without a limit begins, and what pages grow to by
#: doubling (upstream's maximum); and the bytes that a page aims at.
PAGE_KEYS_FIRST, PAGE_KEYS_MAX, PAGE_BYTES = 500, 10_000, 4 << 20

#: How often the newest state of a source is asked for anew when it was compacted meanwhile.
ATTEMPTS_MAX = 3

T = TypeVar("T")


class Answer(NamedTuple):
    """One object, and the revision of the state that it was read from, as a decimal number."""

    element: Element
    resource_version: str


class Range(NamedTuple):
    """A range of a snapshot, `stop` excluded, None: to its end."""

    snapshot: Snapshot
    start: bytes
    stop: bytes | None


class ListPage(NamedTuple):
    """A page of a list, in key order, and its metadata.

    range   what the elements are all of, if they come from a snapshot and none was left out
    """

    elements: list[Element]
    meta: PageMeta
    range: Range | None = None


class Ask(NamedTuple):
    """Needed: the source's current revision, by a trip that begins from now on."""


class Until(NamedTuple):
    """Needed: a State that has reached `revision`; None comes if `deadline_s` comes first."""

    revision: int
    deadline_s: float


class Call(NamedTuple):
    """Needed: what `fetch` returns; it blocks, and may be called in any thread."""

    fetch: Callable[[], Any]


#: A read in progress: what it needs, what it is sent, what it comes to.
Steps: TypeAlias = Generator[Ask | Until | Call, Any, T]


@dataclass(frozen=True, slots=True)
class _List:
    """One list: of what, and what of it. Not `recursive`: `prefix` is a key."""

    options: ListOptions
    prefix: bytes
    recursive: bool
    selection: Selection

    def page(
        self, revision: int, elements: list[Element], next_start: bytes | None, remaining: int
    ) -> ListPage:
        """`remaining` counts only without a selection. Raises BadRequest where no token can say
        where the next page starts."""
        if self.selection.empty:
            last = elements[-1].key if elements and remaining else None
        else:
            last, remaining = next_start and next_start[:-1], 1
        meta = page_meta(
            revision=revision,
            prefix=self.prefix,
            last_key=last,
            remaining=remaining,
            filtered=not self.selection.empty,
        )
        return ListPage(elements, meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """The reads of one cache, as steps. Immutable; what it holds may be used by any thread.

    What the members mean is said at `reader.Reader`.
    """

    cache: Cache
    source: Source | None
    features: Features
    fields: ResourceFields | None
    names: tuple[str, ...]
    keys: Keys
    source_only: bool
    use_indexes: bool
    now: Callable[[], float]
    progress: ProgressRequests
    deleted: DeletedElements
    compaction: Compaction | None
    counts: ReadCounts

    def plan(
        self,
        options: GetOptions | ListOptions | WatchOptions,
        prefix: bytes | None = None,
        *,
        recursive: bool = True,
    ) -> Plan:
        """How a read would be answered now, for `Plan.explain`. Raises as it would."""
        situation = self.situation(self.cache.state)
        if isinstance(options, GetOptions):
            return plan_get(options, situation)
        if isinstance(options, WatchOptions):
            return plan_watch(options, situation)
        wanted = self._wanted(options, prefix, recursive)
        return plan_list(wanted.options, situation, wanted.prefix, recursive=recursive)

    # What a read does, without waiting for anything.

    def situation(self, state: State) -> Situation:
        """What a plan made on this state has to know."""
        window = state.window
        archived = self.cache.archive.oldest if self.cache.archive else 0
        serving = window is not None and state.suspect_after is None
        safe = not self.source_only and self.progress.safe()
        return Situation(
            features=self.features,
            current=window.current if window else 0,
            oldest=min(archived or window.oldest, window.oldest) if window else 0,
            watch_floor=window.watch_floor if window else 0,
            suspect_after=state.suspect_after,
            downtime_s=0.0 if serving else self.cache.age_s,
            progress_safe=safe,
            progress_unknown=not safe and self.progress.unknown,
            authoritative=isinstance(self.cache, Store) and not self.source_only,
            source_only=self.source_only,
            now_s=self.now(),
        )

    def get(self, key: bytes, options: GetOptions) -> Steps[Answer]:
        """The object at `key`; what it raises is said at Reader.get."""
        self._check_prefix(key)
        if not key:
            raise BadRequest("empty key")
        state = self.cache.state
        plan = plan_get(options, self.situation(state))

        def from_cache(snapshot: Snapshot, _: FromCache) -> tuple[Element | None, int]:
            return snapshot.get(key), snapshot.revision

        def from_source(step: FromSource) -> Steps[tuple[Element | None, int]]:
            return self._pinned(step, b"", partial(self._one_of_source, key))

        element, revision = yield from self._walk(plan, state, from_cache, from_source)
        if element is None:
            raise self.keys.not_found(key)
        check_readable([element])
        return Answer(element, str(revision))

    def list(self, options: ListOptions, prefix: bytes | None, recursive: bool) -> Steps[ListPage]:
        """A page of a list; what it raises is said at Reader.list."""
        wanted = self._wanted(options, prefix, recursive)
        state = self.cache.state
        situation = self.situation(state)
        plan = plan_list(wanted.options, situation, wanted.prefix, recursive=recursive)

        def from_cache(snapshot: Snapshot, step: FromCache) -> ListPage:
            return self._page(snapshot, step, wanted)

        def from_source(step: FromSource) -> Steps[ListPage]:
            pages = self._pages_of_source if recursive else self._key_of_source
            return self._pinned(step, wanted.prefix, partial(pages, wanted, step))

        page = yield from self._walk(plan, state, from_cache, from_source)
        return page

    def watch(self, options: WatchOptions, prefix: bytes | None, exact: bool) -> Steps[WatchStream]:
        """The stream of a watch; what it raises is said at Reader.watch."""
        prefix = self._prefix(prefix, recursive=not exact)
        validate = partial(options.validate, self.features)
        selection = select(options, validate, self.names, self.keys, self.fields)
        state = self.cache.state
        plan = plan_watch(options, self.situation(state))
        start: Step | BtreecacheError
        try:
            start, _ = yield from self._prepared(plan.first, state)
        except NotReady:
            raise
        except BtreecacheError as error:
            start = error
        if isinstance(start, Refuse):
            if not start.in_stream:
                raise start.error
            start = start.error
        assert isinstance(start, StartWatch | BtreecacheError), "a watch reads no pages"
        if isinstance(start, StartWatch) and start.source:
            raise BadRequest("a reader of the source doesn't watch: the source itself does")
        return WatchStream(
            self.cache, start, prefix, exact=exact,
            predicate=None if selection.empty else selection.matches,
            unreadable=None if selection.empty else selection.matches,
            requirements=selection.requirements if self.use_indexes else (),
            deleted=self.deleted, now=self.now,
        )  # fmt: skip

    def _prefix(self, prefix: bytes | None, *, recursive: bool) -> bytes:
        """The prefix that is meant. Raises BadRequest if it lies outside the cache's."""
        prefix = self.cache.prefix if prefix is None else prefix
        if recursive and prefix and not prefix.endswith(b"/"):
            # As upstream: else "/pods/a" would list "/pods/ab", and its tokens would lose a slash.
            prefix += b"/"
        self._check_prefix(prefix)
        return prefix

    def _wanted(self, options: ListOptions, prefix: bytes | None, recursive: bool) -> _List:
        prefix = self._prefix(prefix, recursive=recursive)
        selection = select(options, options.validate, self.names, self.keys, self.fields)
        if selection.empty and options.filtered:
            # "," selects everything: as if it hadn't been said.
            options = replace(options, label_selector="", field_selector="")
        return _List(options, prefix, recursive, selection)

    def _check_prefix(self, prefix: bytes) -> None:
        if not prefix.startswith(self.cache.prefix):
            raise BadRequest(f"{prefix!r} lies outside the prefix {self.cache.prefix!r}")

    def _walk(
        self,
        plan: Plan,
        state: State,
        from_cache: Callable[[Snapshot, FromCache], T],
        from_source: Callable[[FromSource], Steps[T]],
    ) -> Steps[T]:
        """Carry out a plan to read that was made on `state`."""
        step, state = yield from self._prepared(plan.first, state)
        while True:
            match step:
                case FromCache(revision=revision):
                    try:
                        if self._is_archived(state, revision):
                            past: T = yield Call(partial(self._past, from_cache, step))
                            return past
                        snapshot = state.at(revision)
                    except (Compacted, NotReady) as error:
                        gone = isinstance(error, Compacted)
                        following = after(step, Outcome.GONE if gone else Outcome.NOT_READY)
                        if following is None:
                            raise
                        step = following
                    else:
                        return from_cache(snapshot, step)
                case FromSource():
                    found = yield from from_source(step)
                    return found
                case Refuse(error=error):
                    raise error
                case _:
                    raise AssertionError("a read doesn't watch, and has waited")

    def _is_archived(self, state: State, revision: int | None) -> bool:
        """Whether only the archive may have a revision."""
        window = state.window
        return bool(
            self.cache.archive and window and revision is not None and revision < window.oldest
        )

    def _past(self, from_cache: Callable[[Snapshot, FromCache], T], step: FromCache) -> T:
        """What is read of a revision in the archive; blocks. Nothing of it stays open."""
        assert step.revision is not None
        with self.cache.archived(step.revision) as snapshot:
            found = from_cache(snapshot, step)
        return found._replace(range=None) if isinstance(found, ListPage) else found

    def _prepared(self, step: Step, state: State) -> Steps[tuple[Step, State]]:
        """Ask and wait as long as the plan says so: the step after it, and the state to take it on.

        Raises FutureRevision for TooLarge; what it yields may raise in here.
        """
        asked = target = 0
        while True:
            match step:
                case CurrentRevision():
                    asked = yield Ask()
                    step = step.then
                case Wait(revision=revision, deadline_s=deadline_s):
                    target = asked if revision is None else revision
                    began_s = self.now()
                    reached: State | None = yield Until(target, deadline_s)
                    self.counts.waits.observe(self.now() - began_s)
                    following = after(step, Outcome.DONE if reached else Outcome.TIMED_OUT)
                    assert following is not None
                    step, state = following, reached or state
                case TooLarge():
                    raise FutureRevision(target, self.cache.revision)
                case StartWatch(after=After.ASKED):
                    return replace(step, after=asked), state
                case _:
                    return step, state

    # From the cache.

    def _page(self, snapshot: Snapshot, step: FromCache, wanted: _List) -> ListPage:
        prefix, selection = wanted.prefix, wanted.selection
        if not wanted.recursive:
            alone = _only(wanted, snapshot.revision, snapshot.get(prefix))
            self.counts.from_cache(len(alone.elements), fetched=1)
            return alone
        if not selection.empty:
            found = self._selected(snapshot, step, wanted)
            check_readable(found.elements)
            return wanted.page(found.revision, found.elements, found.next_start, 0)
        found = snapshot.list(prefix, start=step.start, limit=step.limit)
        self.counts.from_cache(len(found.elements), fetched=len(found.elements))
        first = prefix if step.start is None else step.start
        end = prefix_end(prefix) if found.next_start is None else found.next_start
        if any_in(snapshot, UNREADABLE, first, end):
            check_readable(found.elements)
        page = wanted.page(found.revision, found.elements, found.next_start, found.remaining or 0)
        return page._replace(range=Range(snapshot, first, end))

    def _selected(self, snapshot: Snapshot, step: FromCache, wanted: _List) -> Page:
        """The elements that match, unreadable ones that may match among them."""
        prefix, selection, start = wanted.prefix, wanted.selection, step.start
        narrow, is_key = self.keys.narrowed(prefix, selection)
        if narrow != prefix and self.keys.are_names(snapshot, prefix):
            if is_key:
                element = snapshot.get(narrow) if start is None or narrow >= start else None
                found = [element] if element and selection.matches(element) else []
                self.counts.from_cache(len(found), fetched=1)
                return Page(snapshot.revision, found, None, 0)
            prefix, end = narrow, prefix_end(narrow)
            if start is not None and start < prefix:
                start = None
            if start is not None and end is not None and start >= end:
                return Page(snapshot.revision, [], None, 0)
        requirements = selection.requirements if self.use_indexes else ()
        if requirements and snapshot.indexes.declared:
            # What can't be read is in no index, and has to be found all the same (I12).
            first, end = prefix if start is None else start, prefix_end(prefix)
            if any_in(snapshot, UNREADABLE, first, end):
                requirements = ()
        page = snapshot.select(
            selection.matches, requirements, prefix, start=start, limit=step.limit
        )
        # What it went through; what it looked ahead for another match is left out.
        choice = snapshot.choose(requirements, prefix, start=start)
        fetched = choice.candidates
        if page.next_start is not None:
            fetched -= snapshot.candidates(choice, page.next_start, prefix_end(prefix))
        index = choice.requirement[0] if choice.requirement else ""
        self.counts.from_cache(len(page.elements), fetched=fetched, index=index)
        return page

    # From the source.

    def ask_source(self) -> int:
        """The source's revision now; it blocks. For the trips that `Ask` is met with."""
        return self._open_source().current_revision()

    def _open_source(self) -> Source:
        if self.source is None:
            raise Unavailable("the cache can't answer this, and there is no source to ask")
        return self.source

    def _pinned(self, step: FromSource, prefix: bytes, read: Callable[[int], Steps[T]]) -> Steps[T]:
        """`read` at the revision of the step; for the newest at the one that the source says."""
        attempts = 0
        while True:
            revision = step.revision
            if revision is None:
                revision = yield Ask()
                if revision < step.at_least:
                    raise FutureRevision(step.at_least, revision, retry_after_s=0)
            try:
                found = yield from read(revision)
            except FutureRevision as error:
                raise FutureRevision(error.revision, error.current, retry_after_s=0) from None
            except Compacted as error:
                if self.compaction is not None:
                    # The source has compacted above what was asked for, it doesn't say where.
                    self.compaction.note(revision + 1)
                if step.revision is not None:
                    raise (step.gone or error) from None
                attempts += 1
                if attempts == ATTEMPTS_MAX:
                    raise expired(revision, error.oldest, step.start, prefix) from None
            else:
                return found

    def _range(
        self, revision: int, prefix: bytes, start: bytes | None = None, limit: int | None = None
    ) -> Steps[RangePage]:
        """A page of the source, its elements as the cache would serve them."""
        source, served = self._open_source(), self.cache.read

        def fetch() -> RangePage:
            page = source.range_at(revision, prefix, start, limit)
            return replace(page, elements=[*map(served, page.elements)])

        page: RangePage = yield Call(fetch)
        return page

    def _one_of_source(self, key: bytes, revision: int) -> Steps[tuple[Element | None, int]]:
        # Of all keys that begin with this one it is the first.
        page = yield from self._range(revision, key, None, 1)
        found = page.elements
        return (found[0] if found and found[0].key == key else None), revision

    def _key_of_source(self, wanted: _List, _: FromSource, revision: int) -> Steps[ListPage]:
        element, _revision = yield from self._one_of_source(wanted.prefix, revision)
        alone = _only(wanted, revision, element)
        self.counts.from_source(len(alone.elements), fetched=1)
        return alone

    def _pages_of_source(self, wanted: _List, step: FromSource, revision: int) -> Steps[ListPage]:
        """As many pages as it takes, each up to twice the last one (upstream does the same)."""
        selection, limit, start = wanted.selection, step.limit, step.start
        found: list[Element] = []
        size, count, next_start = min(limit or PAGE_KEYS_FIRST, PAGE_KEYS_MAX), None, None
        fetched = 0
        while True:
            if limit and selection.empty:
                size = min(size, limit - len(found))
            page = yield from self._range(revision, wanted.prefix, start, size)
            count = page.count if count is None else count
            elements, taken = page.elements, len(page.elements)
            fetched += taken
            if selection.empty:
                found += elements
            else:
                taken = _take(found, elements, selection.matches, limit)
            if limit and len(found) >= limit:
                rest = elements[taken:]
                if page.more or (rest and any(map(selection.matches, rest))):
                    next_start = found[-1].key + b"\0"
                break
            if not page.more or not elements:
                break
            start = elements[-1].key + b"\0"
            fitting = len(elements) * PAGE_BYTES // max(page.bytes_read, 1)
            size = max(1, min(2 * size, PAGE_KEYS_MAX, fitting))
        check_readable(found)
        self.counts.from_source(len(found), fetched=fetched)
        return wanted.page(revision, found, next_start, (count or 0) - len(found))


def _only(wanted: _List, revision: int, element: Element | None) -> ListPage:
    """The list of one key: it has no pages."""
    selection = wanted.selection
    found = [element] if element and (selection.empty or selection.matches(element)) else []
    check_readable(found)
    return wanted.page(revision, found, None, 0)


def _take(
    found: list[Element],
    elements: list[Element],
    matches: Callable[[Element], bool],
    limit: int | None,
) -> int:
    """Add the matches to `found`, up to `limit` in all; how many elements were looked at."""
    for index, element in enumerate(elements):
        if matches(element):
            found.append(element)
            if limit and len(found) == limit:
                return index + 1
    return len(elements)
