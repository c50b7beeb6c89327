"""The read plan: what has to be asked, awaited and read to answer a GET, a LIST or a WATCH.

A plan is data and nothing here does I/O. It is a small tree of steps: each step names what to do
and where to go on, also when it times out or finds its revision gone. A driver, blocking or
asyncio, walks it:

    step, asked = plan.first, None
    while True:
        match step:
            case CurrentRevision():   asked = ...; outcome = DONE
            case Wait():              wait until the cache has reached step.revision, or `asked`
                                      where that is None; DONE or TIMED_OUT
            case FromCache():         the page, and that's it; or GONE or NOT_READY
            case FromSource():        the page, and that's it; or raise
            case StartWatch():        the watcher, and that's it; or raise
            case TooLarge():          raise FutureRevision(waited for, reached)
            case Refuse():            raise step.error
        step = after(step, outcome)   # None: raise the error that made the outcome

The state that a plan was made from may be outdated when it is executed, and the branches are for
that: an exact read whose snapshot was evicted meanwhile goes to the source. A FromCache after a
Wait reads the very state that ended the wait, so that what was waited for can't be lost between the
two. An error without an outcome (Unavailable, a cancelled wait, a closed cache) goes to the caller.
In the plan of a watch every error goes into the stream as its last event, but for a Refuse that
says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from btreecache.continue_token import decode, encode, expired
from btreecache.errors import (
    BadRequest,
    BtreecacheError,
    Compacted,
    FutureRevision,
    NotReady,
    Unsupported,
)
from btreecache.features import Features
from btreecache.options import (
    EXACT,
    INT64_MAX,
    GetOptions,
    ListOptions,
    WatchOptions,
    parse_resource_version,
)

#: Seconds that a read waits for a revision if its caller says nothing (upstream: 3, always).
WAIT_S = 3.0

#: Seconds that a read waits at most, whatever its caller says: the API server's request timeout.
WAIT_S_MAX = 60.0

#: What an API server says to a client that asks to stream a list where progress can't be asked for.
NO_PROGRESS = (
    "a watch stream was requested by the client but the required storage feature"
    " RequestWatchProgress is disabled"
)


class Outcome(Enum):
    """How a step ended, if not with an answer or an error of its own."""

    DONE = "done"
    TIMED_OUT = "the wait times out"
    GONE = "the revision is gone by then"
    NOT_READY = "the cache isn't ready by then"


class After(Enum):
    """A revision that isn't known when the plan is made."""

    ASKED = "the revision that the source said"
    NEWEST = "the cache's revision"


@dataclass(frozen=True, slots=True)
class CurrentRevision:
    """Ask the source for its current revision. Callers may share a trip, but not one that began
    before they arrived."""

    then: Step


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until the cache has reached `revision` (None: the one that was asked for), at most until
    `deadline_s` on the clock of `Situation.now_s`. With progress safe, ask for progress meanwhile.
    """

    revision: int | None
    deadline_s: float
    then: Step
    on_timeout: Step


@dataclass(frozen=True, slots=True)
class FromCache:
    """Read from the cache at `revision`, None: its newest; from key `start` (None: the first).

    The answer's resourceVersion is `revision` where there is one, else that of the state read.
    `limit` is None for all. Where a branch is None the cache's own error is the answer.
    """

    revision: int | None
    start: bytes | None
    limit: int | None
    on_gone: Step | None = None
    on_not_ready: Step | None = None


@dataclass(frozen=True, slots=True)
class FromSource:
    """Read from the source at `revision`, None: its newest; from key `start` (None: the first).

    at_least   a newest state below it: FutureRevision with retry_after_s=0. So is a `revision` that
               the source says is ahead of it.
    gone       the error to raise if the source has compacted `revision`
    """

    revision: int | None
    start: bytes | None
    limit: int | None
    at_least: int = 0
    gone: Compacted | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class StartWatch:
    """Begin to watch.

    after         changes above this revision are sent
    initial       first the newest state, as ADDED in key order; `after` is then its revision
    end_bookmark  after it a bookmark with the annotation that ends initial events, at `after`
    bookmarks     bookmarks from time to time
    deadline_s    when the watch ends, None: not by itself
    source        from the source, not from the cache (`read="source"`)
    at_least      a newest state of the source below it: as in FromSource
    """

    after: int | After
    initial: bool
    end_bookmark: bool
    bookmarks: bool
    deadline_s: float | None
    source: bool = False
    at_least: int = 0


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Raise FutureRevision with the revision that was waited for and the one that was reached."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Raise `error`; for a watch `in_stream` says whether as its last event or as its answer."""

    error: BtreecacheError
    in_stream: bool = False


Step = CurrentRevision | Wait | FromCache | FromSource | StartWatch | TooLarge | Refuse


def after(step: Step, outcome: Outcome) -> Step | None:
    """The step to take next; None: there is none, the error that made the outcome is the answer."""
    match step, outcome:
        case ((CurrentRevision(then=then) | Wait(then=then)), Outcome.DONE):
            return then
        case Wait(on_timeout=then), Outcome.TIMED_OUT:
            return then
        case FromCache(on_gone=fallback), Outcome.GONE:
            return fallback
        case FromCache(on_not_ready=fallback), Outcome.NOT_READY:
            return fallback
    return None


@dataclass(frozen=True, slots=True)
class Plan:
    """How one read is answered: `read` says in a word what it is, `first` is where to begin."""

    read: str
    first: Step

    def explain(self) -> str:
        """The plan as text, one line a step; what happens otherwise is indented below."""
        return "\n".join([self.read, *_explain(self.first)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known of cache and source when the plan is made.

    features        the gates
    current         the cache's newest complete revision, 0: never filled
    oldest          the lowest revision that it can read
    watch_floor     the lowest position that a watch may start after
    suspect_after   a feed fault is being mended: revisions above this one aren't served
    not_ready       why it can't serve its newest state, None: it can
    downtime_s      for how long it couldn't
    progress_safe   progress may be asked for and is the truth, so that a wait ends
    progress_unknown  there is nobody to ask just now: it isn't safe, and may be in a moment
    authoritative   the cache makes the revisions itself (a Store): there is no source
    source_only     `read="source"`: everything is answered by the source
    now_s           the clock that deadlines are on
    """

    features: Features = field(default_factory=Features)
    current: int = 0
    oldest: int = 0
    watch_floor: int = 0
    suspect_after: int | None = None
    not_ready: str | None = None
    downtime_s: float = 0.0
    progress_safe: bool = False
    progress_unknown: bool = False
    authoritative: bool = False
    source_only: bool = False
    now_s: float = 0.0

    def __post_init__(self) -> None:
        assert not (self.authoritative and self.source_only), "a Store has no source"

    @property
    def trouble(self) -> str | None:
        """Why the newest state can't be served, None: it can."""
        if self.not_ready is not None:
            return self.not_ready
        if self.suspect_after is not None:
            return f"revisions above {self.suspect_after} are suspect after a feed fault"
        return None if self.current else "the cache was never filled"

    @property
    def snapshots(self) -> bool:
        """Whether exact reads and continued pages are served from the cache at all."""
        return self.authoritative or self.features.list_from_cache_snapshot

    @property
    def consistent(self) -> bool:
        """Whether the cache can be waited for until it has reached the source."""
        gate = self.features.consistent_list_from_cache
        return self.authoritative or (self.progress_safe and gate)


class _Read:
    """One read while it is planned: where it starts, its limit, and who may answer instead.

    `delegable`: the source answers while the cache isn't ready.
    """

    def __init__(self, situation: Situation, deadline_s: float, prefix: bytes = b"") -> None:
        self.situation = situation
        self.deadline_s = deadline_s
        self.prefix = prefix
        self.start: bytes | None = None
        self.limit: int | None = None
        self.delegable = False

    def source(self, revision: int | None = None, at_least: int = 0) -> Step:
        """The source's answer, or where there is none, the error that says what is gone."""
        oldest = self.situation.oldest
        gone = revision and expired(revision, oldest, self.start, self.prefix)
        if self.situation.authoritative:
            return Refuse(gone) if gone else self.not_ready()
        return FromSource(revision, self.start, self.limit, at_least, gone or None)

    def not_ready(self) -> Refuse:
        trouble = f"storage is (re)initializing: {self.situation.trouble}"
        return Refuse(NotReady(trouble, self.situation.downtime_s))

    def unready(self, revision: int | None = None, at_least: int = 0) -> Step | None:
        """Who answers while the cache isn't ready; None: nobody."""
        if self.delegable and not self.situation.authoritative:
            return self.source(revision, at_least)
        return None

    def exact(self, revision: int) -> Step:
        """The state at `revision`, neither older nor newer."""
        situation, source = self.situation, self.source(revision)
        if revision > INT64_MAX:
            return Refuse(FutureRevision(revision, situation.current))
        if situation.source_only or not situation.snapshots:
            return source
        suspect_after = situation.suspect_after
        page = FromCache(revision, self.start, self.limit, source, source)
        if revision > situation.current:
            if not situation.consistent:
                return source
            if situation.trouble:
                return self.unready(revision) or self.not_ready()
            return Wait(revision, self.deadline_s, page, TooLarge())
        if revision < situation.oldest or (suspect_after is not None and revision > suspect_after):
            return source
        return page

    def latest(self, at_least: int) -> Step:
        """Any state that is not older than `at_least`."""
        situation = self.situation
        if at_least > INT64_MAX:
            return Refuse(FutureRevision(at_least, situation.current))
        if situation.source_only:
            return self.source(at_least=at_least)
        unready = self.unready(at_least=at_least)
        if situation.trouble:
            return unready or self.not_ready()
        page = FromCache(None, self.start, self.limit, None, unready)
        if at_least <= situation.current:
            return page
        return Wait(at_least, self.deadline_s, page, TooLarge())

    def newest(self) -> Step:
        """A state that is not older than the request: a consistent read."""
        situation, source = self.situation, self.source
        if situation.source_only or not situation.consistent:
            return source()
        unready = self.unready()
        if situation.trouble:
            return unready or self.not_ready()
        page = FromCache(None, self.start, self.limit, None, unready)
        if situation.authoritative:
            return page
        return CurrentRevision(Wait(None, self.deadline_s, page, source()))


def plan_list(
    options: ListOptions, situation: Situation, prefix: bytes, *, recursive: bool = True
) -> Plan:
    """The plan of a list of the keys with `prefix`, or not `recursive`, of that key alone. O(1).

    What can't be answered by anybody raises here: Invalid for options that can't be combined,
    BadRequest for a malformed token or revision. Everything else is a step.
    """
    options.validate()
    read = _Read(situation, _deadline(situation, options.timeout_s), prefix)
    read.limit = options.limit if options.limit > 0 else None
    read.delegable = read.limit is not None and not options.filtered
    if recursive and options.continue_token:
        return _plan_page(options, read)
    revision = parse_resource_version(options.resource_version)
    if not recursive and options.continue_token and not situation.snapshots:
        # Without the gate all that is continued goes to the source, which reads one key at its
        # newest and only looks whether that is new enough.
        return Plan(_latest(revision), read.source(at_least=revision))
    match options.resource_version_match:
        case "" if not options.resource_version:
            return Plan("consistent read", read.newest())
        case "" if read.limit and revision:
            return Plan(f"exact read at {revision}, because of the limit", read.exact(revision))
        case "Exact":
            return Plan(f"exact read at {revision}", read.exact(revision))
    return Plan(_latest(revision), read.latest(revision))


def _plan_page(options: ListOptions, read: _Read) -> Plan:
    """The plan of a page that a token continues."""
    read.start, revision = decode(options.continue_token, read.prefix)
    if options.resource_version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    if revision > 0:
        return Plan(f"page at {revision}", read.exact(revision))
    # Without snapshots a continued list never comes from the cache, not even from its newest.
    first = read.newest() if read.situation.snapshots else read.source()
    return Plan("page at the newest revision", first)


def plan_get(options: GetOptions, situation: Situation) -> Plan:
    """The plan of reading one key. O(1). Raises Invalid and BadRequest, as plan_list."""
    options.validate()
    read = _Read(situation, _deadline(situation, options.timeout_s))
    read.delegable = True
    revision = parse_resource_version(options.resource_version)
    if not options.resource_version:
        return Plan("consistent read", read.newest())
    if options.resource_version_match == EXACT:
        return Plan(f"exact read at {revision}", read.exact(revision))
    return Plan(_latest(revision), read.latest(revision))


def plan_watch(options: WatchOptions, situation: Situation) -> Plan:
    """The plan of a watch. O(1). Raises Invalid, and BadRequest for a malformed revision.

    Options come as they are meant: an API server calls `options.defaulted` first.
    """
    options.validate(situation.features)
    revision = parse_resource_version(options.resource_version)
    read = _Read(situation, _deadline(situation, min(WAIT_S, _seconds(options.timeout_s, WAIT_S))))
    legacy = options.send_initial_events is None and revision == 0
    initial = legacy or options.send_initial_events is True
    # An end bookmark is for those who asked for initial events in so many words.
    streamed_list = options.send_initial_events is True and options.allow_watch_bookmarks
    start = _Start(options, situation, revision, initial, streamed_list)
    said = "the state, then changes" if initial else f"changes after {start.origin()}"
    return Plan(f"watch: {said}", _watch_steps(start, read))


class _Start(NamedTuple):
    """What the steps of a watch are made from."""

    options: WatchOptions
    situation: Situation
    revision: int
    initial: bool
    streamed_list: bool

    def origin(self) -> str:
        if self.revision or self.options.resource_version:
            return str(self.revision) if self.revision else "the cache's revision"
        return "the source's revision"

    def step(self, after_revision: int | After) -> StartWatch:
        situation, timeout_s = self.situation, self.options.timeout_s
        return StartWatch(
            after=after_revision,
            initial=self.initial,
            end_bookmark=self.streamed_list,
            bookmarks=self.options.allow_watch_bookmarks,
            deadline_s=None if timeout_s is None else situation.now_s + max(0.0, timeout_s),
            source=situation.source_only,
            at_least=self.revision if self.initial and situation.source_only else 0,
        )


def _watch_steps(start: _Start, read: _Read) -> Step:
    situation, revision = start.situation, start.revision
    unset = not start.options.resource_version
    if not situation.source_only and situation.trouble:
        return read.not_ready()
    cached = not (situation.source_only or situation.authoritative)
    unsafe = not (situation.progress_safe or situation.progress_unknown)
    if start.streamed_list and cached and unsafe:
        return Refuse(Unsupported(NO_PROGRESS), in_stream=True)
    if start.initial:
        return _initial_steps(start, read)
    if unset and not situation.authoritative:
        return CurrentRevision(start.step(After.ASKED))
    if revision == 0:
        if situation.source_only:
            return CurrentRevision(start.step(After.ASKED))
        return start.step(After.NEWEST)
    if not situation.source_only and revision < situation.watch_floor:
        return Refuse(Compacted(revision, situation.watch_floor), in_stream=True)
    if situation.source_only and revision > INT64_MAX:
        return Refuse(FutureRevision(revision, situation.current), in_stream=True)
    return start.step(revision)


def _initial_steps(start: _Start, read: _Read) -> Step:
    """The state first, at least as new as was asked for."""
    situation, revision = start.situation, start.revision
    if revision > INT64_MAX:
        return Refuse(FutureRevision(revision, situation.current), in_stream=True)
    begin = start.step(After.NEWEST)
    if situation.source_only:
        return begin
    unset = not start.options.resource_version
    if unset and start.options.send_initial_events and not situation.authoritative:
        return CurrentRevision(Wait(None, read.deadline_s, begin, TooLarge()))
    if revision > situation.current:
        return Wait(revision, read.deadline_s, begin, TooLarge())
    return begin


@dataclass(frozen=True, slots=True)
class PageMeta:
    """The metadata of a list: `continue_token` "" on the last page, `remaining_item_count` None
    where it isn't said."""

    resource_version: str
    continue_token: str = ""
    remaining_item_count: int | None = None

    def members(self) -> dict[str, object]:
        """The members of ListMeta, in the order of the wire; absent ones left out."""
        members: dict[str, object] = {"resourceVersion": self.resource_version}
        if self.continue_token:
            members["continue"] = self.continue_token
        if self.remaining_item_count is not None:
            members["remainingItemCount"] = self.remaining_item_count
        return members


def page_meta(
    *, revision: int, prefix: bytes, last_key: bytes | None, remaining: int, filtered: bool
) -> PageMeta:
    """The metadata of a page that was read at `revision`: the next one is read there too (I7).

    `last_key` is the last key that was looked at, `remaining` how many keys with the prefix come
    after it, whether selected or not: so the page after a `filtered` one may be empty, and a
    filtered page doesn't say how much is left. Raises BadRequest as continue_token.encode.
    """
    assert revision > 0, "a list has a revision"
    if last_key is None or remaining <= 0:
        return PageMeta(str(revision))
    token = encode(last_key + b"\0", prefix, revision)
    return PageMeta(str(revision), token, None if filtered else remaining)


def _latest(revision: int) -> str:
    return f"read of any state not older than {revision}" if revision else "read of any state"


def _seconds(timeout_s: float | None, default: float) -> float:
    """A timeout that can be added to a clock: never below 0, never above WAIT_S_MAX."""
    return default if timeout_s is None else min(WAIT_S_MAX, max(0.0, timeout_s))


def _deadline(situation: Situation, timeout_s: float | None) -> float:
    return situation.now_s + _seconds(timeout_s, WAIT_S)


def _explain(step: Step | None, depth: int = 1) -> Iterator[str]:
    while step is not None:
        yield "  " * depth + _line(step)
        for outcome in (Outcome.TIMED_OUT, Outcome.GONE, Outcome.NOT_READY):
            if branch := after(step, outcome):
                yield "  " * (depth + 1) + f"if {outcome.value}:"
                yield from _explain(branch, depth + 2)
        step = after(step, Outcome.DONE)


def _line(step: Step) -> str:
    match step:
        case CurrentRevision():
            return "ask the source for its current revision"
        case Wait(revision=revision, deadline_s=deadline_s):
            target = "what the source said" if revision is None else revision
            return f"wait until the cache has reached {target}, at most until {deadline_s:g} s"
        case FromCache(revision=revision):
            return f"read the cache at {_place(revision, step.start, step.limit)}"
        case FromSource(revision=revision, at_least=at_least):
            place = _place(revision, step.start, step.limit)
            return f"read the source at {place}" + (f", at least {at_least}" if at_least else "")
        case StartWatch():
            return _watch_line(step)
        case TooLarge():
            return "refuse: 504 Timeout, the revision is too large"
        case Refuse(error=error, in_stream=in_stream):
            how = "end the stream with" if in_stream else "refuse:"
            return f"{how} {error.status} {error.reason}, {error}"


def _place(revision: int | None, start: bytes | None, limit: int | None) -> str:
    place = "its newest revision" if revision is None else f"revision {revision}"
    place += "" if start is None else f", from key {start!r}"
    return place if limit is None else f"{place}, at most {limit}"


def _watch_line(step: StartWatch) -> str:
    origin = step.after.value if isinstance(step.after, After) else str(step.after)
    origin = "it" if step.initial else origin
    parts = ["the newest state"] if step.initial else []
    parts += ["a bookmark that ends it"] if step.end_bookmark else []
    parts += [f"changes after {origin}"]
    parts += ["with bookmarks"] if step.bookmarks else []
    parts += [] if step.deadline_s is None else [f"until {step.deadline_s:g} s"]
    return f"watch the {'source' if step.source else 'cache'}: {', '.join(parts)}"
