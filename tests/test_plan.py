"""The read plan against docs/reads.md and against what an API server does, over whole products.

Two oracles that share no code with the plan: the tables of docs/reads.md, read from the page, and
the decisions of an API server, written down here. Where the plan departs from the second, a row of
"Where we differ" must say so, and every row must be needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest

from btreecache.continue_token import decode, encode
from btreecache.errors import BadRequest, Compacted, Invalid, NotReady, status
from btreecache.features import Features
from btreecache.options import GetOptions, ListOptions, WatchOptions
from btreecache.plan import (
    NO_PROGRESS,
    After,
    CurrentRevision,
    FromCache,
    FromSource,
    Outcome,
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

PAGE = (Path(__file__).parents[1] / "docs/reads.md").read_text()
PREFIX = b"/registry/pods/"
START = PREFIX + b"ns/a\0"
IMPOSSIBLE = 2**63
NEWEST_TOKEN = -1


def table(header: str) -> list[list[str]]:
    """The rows of the one table on the page that begins with `header`."""
    assert PAGE.count(f"\n| {header} |") == 1
    lines = PAGE.split(f"\n| {header} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


# How a plan looks in the words of the page.


def words(step: Step) -> str:
    """The main path; a branch on timeout is told after the wait that has it."""
    match step:
        case CurrentRevision(then=then):
            return f"ask; {words(then)}"
        case Wait(revision=revision, then=then, on_timeout=branch):
            target = "wait" if revision is None else f"wait for {revision}"
            return f"{target}; on timeout {words(branch)}; {words(then)}"
        case FromCache(revision=revision):
            return f"cache {'newest' if revision is None else revision}"
        case FromSource(revision=revision, at_least=at_least):
            floor = f", not below {at_least}" if at_least else ""
            return f"source {'newest' if revision is None else revision}{floor}"
        case StartWatch(initial=True):
            assert step.after is After.NEWEST
            return "state; changes after it"
        case StartWatch(after=origin):
            return f"changes after {ORIGINS.get(origin, origin)}"
        case TooLarge():
            return "504"
        case Refuse(error=error):
            return str(error.status)


ORIGINS: dict[object, str] = {After.ASKED: "what was said", After.NEWEST: "the cache's revision"}


def steps_of(step: Step | None) -> Iterator[Step]:
    """Every step that a driver can come to."""
    if step is not None:
        yield step
        for outcome in Outcome:
            yield from steps_of(after(step, outcome))


# Every case: what is asked, of whom.


@dataclass(frozen=True)
class Case:
    kind: str  # "list", "one" (a list of one key), "get"
    version: str
    match: str
    limit: int
    token: int | None
    selector: str
    situation: Situation

    @property
    def r(self) -> int:
        token = self.token if self.kind == "list" else None
        return token or int(self.version or 0)

    @property
    def stand_in(self) -> bool:
        if self.situation.authoritative:
            return False
        return self.kind == "get" or (self.limit > 0 and not self.selector)

    def mode(self) -> str:
        """Section "What a list means": exact, rest, consistent or latest."""
        if self.token and self.kind == "list":
            return "exact" if self.token > 0 else "rest"
        if self.match == "Exact":
            return "exact"
        if not self.version:
            return "consistent"
        if not self.match and self.limit > 0 and int(self.version) > 0:
            return "exact"
        return "latest"

    def options(self) -> ListOptions | GetOptions:
        if self.kind == "get":
            return GetOptions(
                resource_version=self.version, resource_version_match=self.match, timeout_s=7.0
            )
        return ListOptions(
            resource_version=self.version,
            resource_version_match=self.match,
            limit=self.limit,
            continue_token="" if self.token is None else encode(START, PREFIX, self.token),
            label_selector=self.selector,
            timeout_s=7.0,
        )

    def plan(self) -> Plan:
        options = self.options()
        if isinstance(options, GetOptions):
            return plan_get(options, self.situation)
        return plan_list(options, self.situation, PREFIX, recursive=self.kind == "list")


FEATURES = [
    Features(list_from_cache_snapshot=snapshots, consistent_list_from_cache=consistent)
    for snapshots, consistent in product((True, False), repeat=2)
]
STATES = [
    Situation(current=100, oldest=50, watch_floor=60),
    Situation(current=100, oldest=50, watch_floor=60, not_ready="down", downtime_s=20.0),
    Situation(current=100, oldest=50, watch_floor=60, suspect_after=80),
    Situation(),
]
SITUATIONS = [
    replace(state, features=features, now_s=1000.0, **where)
    for state, features, where in product(
        STATES,
        FEATURES,
        [
            {"progress_safe": False},
            {"progress_safe": True},
            {"source_only": True},
            {"authoritative": True},
        ],
    )
    if not ("authoritative" in where and state.suspect_after)
]
VERSIONS = ["", "0", "40", "50", "60", "80", "100", "81", "120", str(IMPOSSIBLE)]


def cases() -> Iterator[Case]:
    """Every combination that is valid, times every situation."""
    for kind, version, match, limit, token, selector in product(
        ("list", "one", "get"),
        VERSIONS,
        ("", "Exact", "NotOlderThan"),
        (0, 5),
        (None, 49, 50, 80, 81, 120, NEWEST_TOKEN),
        ("", "app=a"),
    ):
        if match and (not version or token is not None or (match == "Exact" and version == "0")):
            continue
        if kind == "get" and (limit or token is not None or selector):
            continue
        if kind == "list" and token is not None and version not in ("", "0"):
            continue
        for situation in SITUATIONS:
            yield Case(kind, version, match, limit, token, selector, situation)


CASES = list(cases())


def trouble(case: Case) -> bool:
    situation = case.situation
    spoiled = situation.suspect_after is not None
    return spoiled or situation.not_ready is not None or situation.current == 0


def not_kept(case: Case) -> bool:
    situation = case.situation
    suspect = situation.suspect_after is not None and case.r > situation.suspect_after
    return case.r < situation.oldest or suspect


def no_progress(case: Case) -> bool:
    situation = case.situation
    gate = situation.features.consistent_list_from_cache
    return not situation.authoritative and not (gate and situation.progress_safe)


def no_snapshots(case: Case) -> bool:
    situation = case.situation
    return not situation.authoritative and not situation.features.list_from_cache_snapshot


CONDITIONS = {
    "read=source": lambda case: case.situation.source_only,
    "a Store": lambda case: case.situation.authoritative,
    "no snapshots": no_snapshots,
    "no progress": no_progress,
    "not ready": trouble,
    "stand-in": lambda case: case.stand_in,
    "ahead": lambda case: case.r > case.situation.current,
    "not kept": not_kept,
    "impossible": lambda case: case.r >= IMPOSSIBLE,
}
ROWS = [
    (reads.split(", "), [name for name in conditions.split(", ") if name], steps)
    for reads, conditions, steps in table("read")
]


def by_the_page(case: Case) -> tuple[int, str]:
    """Row and steps that docs/reads.md has for the case; row -1 is the sentence below the table."""
    mode = case.mode()
    at = case.r if mode == "exact" else int(case.version or 0)
    if case.kind == "one" and case.token is not None and no_snapshots(case):
        return -1, "source newest" + (f", not below {at}" if at else "")
    for index, (reads, conditions, steps) in enumerate(ROWS):
        if mode in reads and all(CONDITIONS[name](case) for name in conditions):
            return index, re.sub(r"\br\b", str(at), steps).removesuffix(", not below 0")
    raise AssertionError(case)


def test_the_page_names_every_condition() -> None:
    assert [name for name, _ in table("condition")] == list(CONDITIONS)


def test_every_case_is_planned_as_the_page_says() -> None:
    assert len(CASES) > 5_000
    used = set()
    for case in CASES:
        index, said = by_the_page(case)
        used.add(index)
        assert words(case.plan().first) == said, case
    assert used == {-1, *range(len(ROWS))}, "a row that no case needs"


# An API server's decisions.


def api_server(case: Case) -> str:
    """What an API server does, in the same words; " whole" where it ignores the limit."""
    situation, r, mode = case.situation, case.r, case.mode()
    floor = int(case.version or 0)
    current = "source newest" + (f", not below {floor}" if floor else "")
    snapshots = situation.features.list_from_cache_snapshot
    progress = situation.features.consistent_list_from_cache and situation.progress_safe
    ready = situation.current > 0 and situation.not_ready is None
    unready = current if case.stand_in else "429"
    if case.kind == "get":
        if not case.version or not ready:
            return current
        return "cache newest" if floor <= situation.current else _wait(floor, "cache newest")
    if case.kind == "one" and case.token is not None:
        return current
    if mode == "exact":
        if case.kind == "one" or not snapshots:
            return f"source {r}"
        if r > situation.current:
            if not progress:
                return f"source {r}"
            if not ready:
                return f"source {r}" if case.stand_in else "429"
            return _wait(r, f"cache {r}")
        kept = r >= situation.oldest and not (situation.suspect_after and r > 80)
        if not kept:
            return f"source {r}"
        if not ready:
            return f"source {r}" if case.stand_in else "429"
        return f"cache {r}"
    if mode == "rest" and not snapshots:
        return "source newest"
    if mode in ("rest", "consistent"):
        if not progress:
            return "source newest"
        return "ask; wait; on timeout source newest; cache newest" if ready else unready
    if not ready:
        return unready
    if floor > situation.current:
        return _wait(floor, "cache newest")
    return "cache newest" + (" whole" if case.limit and floor == 0 else "")


def _wait(r: int, then: str) -> str:
    return f"wait for {r}; on timeout 504; {then}"


#: When each documented difference applies.
DIFFERENCES = {
    "limit-at-0": lambda case: case.limit > 0 and case.version == "0" and case.token is None,
    "single-key-exact": lambda case: case.kind == "one" and case.mode() == "exact",
    "single-key-continue": lambda case: case.kind == "one" and case.token is not None,
    "get-consistent": lambda case: case.kind == "get" and not case.version,
    "get-exact": lambda case: case.kind == "get" and case.match == "Exact",
    "kept-while-not-ready": lambda case: (
        case.mode() == "exact" and case.situation.not_ready is not None and not not_kept(case)
    ),
    "suspect": lambda case: case.situation.suspect_after is not None,
    "impossible": lambda case: case.r >= IMPOSSIBLE,
}


def planned(case: Case) -> str:
    """The plan in words, with " whole" if an answer from the cache has no limit but one was set."""
    step = case.plan().first
    whole = isinstance(step, FromCache) and case.limit and step.limit is None
    return words(step) + (" whole" if whole else "")


def test_every_difference_from_an_api_server_is_on_the_page_and_every_one_there_is_real() -> None:
    listed = {row[0] for row in table("what") if row[3] == "tests/test_plan.py"}
    needed: set[str] = set()
    for case in CASES:
        if case.situation.source_only or case.situation.authoritative:
            continue
        if planned(case) != api_server(case):
            reasons = {name for name, holds in DIFFERENCES.items() if holds(case)} & listed
            assert reasons, (case, planned(case), api_server(case))
            if len(reasons) == 1:
                needed |= reasons
    assert needed == set(DIFFERENCES)
    # The others on the page have tests of their own below.
    assert listed == needed | {"timeout", "bad-version", "closed-watch"}


# What holds for the steps of every case.


def test_every_step_keeps_start_limit_and_deadline() -> None:
    for case in CASES:
        start = START if case.kind == "list" and case.token is not None else None
        for step in steps_of(case.plan().first):
            if isinstance(step, FromCache | FromSource):
                assert step.start == start
                assert step.limit == (case.limit or None)
            if isinstance(step, Wait):
                assert step.deadline_s == 1007.0


def test_an_outdated_plan_falls_back_to_the_source() -> None:
    for case in CASES:
        for step in steps_of(case.plan().first):
            if not isinstance(step, FromCache):
                continue
            gone, unready = after(step, Outcome.GONE), after(step, Outcome.NOT_READY)
            if step.revision is None:
                assert gone is None
                assert isinstance(unready, FromSource) == case.stand_in
            elif case.situation.authoritative:
                assert isinstance(gone, Refuse)
                assert isinstance(gone.error, Compacted)
            else:
                assert gone == unready == FromSource(step.revision, step.start, step.limit)
            assert after(step, Outcome.DONE) is None


def test_a_store_asks_nobody_and_read_source_reads_no_cache() -> None:
    for case in CASES:
        kinds = {type(step) for step in steps_of(case.plan().first)}
        if case.situation.authoritative:
            assert not kinds & {FromSource, CurrentRevision}
        if case.situation.source_only:
            assert kinds <= {FromSource, Refuse}


def test_every_plan_is_finite_and_explained() -> None:
    for case in CASES:
        plan = case.plan()
        steps = list(steps_of(plan.first))
        lines = plan.explain().splitlines()
        branches = sum(line.strip().startswith("if ") for line in lines)
        assert len(lines) - 1 - branches == len(steps) <= 6
        assert lines[0] == plan.read


def test_what_the_source_compacted_is_said_in_its_words() -> None:
    situation = SITUATIONS[0]
    for token, has_token in ((40, True), (None, False)):
        case = Case(
            "list", "" if token else "40", "" if token else "Exact", 5, token, "", situation
        )
        step = case.plan().first
        assert isinstance(step, FromSource)
        assert step.gone is not None
        answer = status(step.gone)
        metadata = answer["metadata"]
        assert isinstance(metadata, dict)
        assert answer["code"] == 410
        if has_token:
            assert decode(metadata["continue"], PREFIX) == (START, NEWEST_TOKEN)
        else:
            assert metadata == {}


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(None, 3.0), (0.0, 0.0), (0.5, 0.5), (9.0, 9.0), (1e9, 60.0), (-1.0, 0.0), (math.nan, 0.0)],
)
def test_a_wait_takes_the_callers_timeout(asked: float | None, seconds: float) -> None:
    situation = replace(SITUATIONS[0], progress_safe=True)
    for plan in (
        plan_list(ListOptions(resource_version="120", timeout_s=asked), situation, PREFIX),
        plan_get(GetOptions(resource_version="120", timeout_s=asked), situation),
    ):
        assert isinstance(plan.first, Wait)
        assert plan.first.deadline_s == 1000.0 + seconds


# Refused before there is a plan.


@pytest.mark.parametrize("bad", ["x", "-1", "+1", "1.0", "1 ", "\u0661", "18446744073709551616"])
def test_a_malformed_revision_is_a_bad_request_everywhere(bad: str) -> None:
    situation = SITUATIONS[0]
    for plan in (
        lambda: plan_list(ListOptions(resource_version=bad), situation, PREFIX),
        lambda: plan_get(GetOptions(resource_version=bad), situation),
        lambda: plan_watch(WatchOptions(resource_version=bad), situation),
    ):
        with pytest.raises(BadRequest, match=r"^invalid resource version: resourceVersion: "):
            plan()


def test_a_token_allows_no_other_revision() -> None:
    token = encode(START, PREFIX, 60)
    for version in ("1", "60", "x"):
        options = ListOptions(continue_token=token, resource_version=version)
        with pytest.raises(BadRequest, match=r"^specifying resource version is not allowed when"):
            plan_list(options, SITUATIONS[0], PREFIX)
    with pytest.raises(BadRequest, match=r"^invalid continue token: continue key is not valid"):
        plan_list(ListOptions(continue_token="?", resource_version="1"), SITUATIONS[0], PREFIX)
    # A list of one key ignores it, whatever it is.
    plan_list(ListOptions(continue_token="?"), SITUATIONS[0], PREFIX, recursive=False)


def test_what_cannot_be_combined_is_invalid() -> None:
    with pytest.raises(Invalid):
        plan_list(ListOptions(resource_version_match="Exact"), SITUATIONS[0], PREFIX)
    with pytest.raises(Invalid):
        plan_get(GetOptions(resource_version_match="Exact"), SITUATIONS[0])
    with pytest.raises(Invalid):
        plan_watch(WatchOptions(resource_version_match="Exact"), SITUATIONS[0])


# Watches.

WATCH_ROWS = {(version, events): steps for version, events, steps in table("resourceVersion")}
EVENTS = {"unset": None, "true": True, "false": False}
WATCH_SITUATIONS = [
    replace(state, progress_safe=progress, now_s=1000.0, **where)
    for state, progress, where in product(
        STATES, (True, False), ({}, {"source_only": True}, {"authoritative": True})
    )
    if not ("authoritative" in where and state.suspect_after)
]


def watch_by_the_page(
    version: str, events: str, bookmarks: bool, situation: Situation
) -> tuple[str, bool]:
    """The steps that the page has, and whether a refusal goes into the stream."""
    row = WATCH_ROWS["r" if version not in ("", "0") else version or "unset", events]
    steps = re.sub(r"\br\b", version, row)
    r, source, store = int(version or 0), situation.source_only, situation.authoritative
    ready = situation.current > 0 and situation.not_ready is None
    if not source and (not ready or situation.suspect_after is not None):
        return "429", False
    state = "state" in steps
    if bookmarks and events == "true" and not (situation.progress_safe or source or store):
        return "500", True
    if r >= IMPOSSIBLE and (state or source):
        return "504", True
    if not source and not state and 0 < r < situation.watch_floor:
        return "410", True
    if source:
        steps = "state; changes after it" if state else steps
        if version == "0" and not state:
            steps = "ask; changes after what was said"
    elif store:
        steps = steps.removeprefix("ask; wait; on timeout 504; ")
        steps = steps.replace("ask; changes after what was said", ORIGINAL_NOW)
    if r <= situation.current:
        steps = steps.removeprefix(f"wait for {r}; on timeout 504; ")
    return steps, True


ORIGINAL_NOW = "changes after the cache's revision"


def test_every_watch_is_planned_as_the_page_says() -> None:
    assert len(WATCH_ROWS) == 9
    seen = set()
    for version, events, bookmarks, timeout_s, situation in product(
        VERSIONS, EVENTS, (True, False), (None, 1.0, 300.0), WATCH_SITUATIONS
    ):
        options = WatchOptions(
            resource_version=version,
            send_initial_events=EVENTS[events],
            resource_version_match="" if EVENTS[events] is None else "NotOlderThan",
            allow_watch_bookmarks=bookmarks,
            timeout_s=timeout_s,
        )
        plan = plan_watch(options, situation)
        said, in_stream = watch_by_the_page(version, events, bookmarks, situation)
        assert words(plan.first) == said, (options, situation)
        seen.add(said)
        for step in steps_of(plan.first):
            if isinstance(step, Refuse):
                assert step.in_stream == in_stream
            if isinstance(step, StartWatch):
                assert step.bookmarks == bookmarks
                assert step.end_bookmark == (bookmarks and events == "true")
                assert step.deadline_s == (None if timeout_s is None else 1000.0 + timeout_s)
                assert step.source == situation.source_only
                floor = int(version or 0) if situation.source_only and step.initial else 0
                assert step.at_least == floor
            if isinstance(step, Wait):
                assert step.deadline_s == 1000.0 + min(3.0, timeout_s or 3.0)
        assert len(plan.explain().splitlines()) >= 2
    assert {"429", "410", "500", "504"} < seen


def test_an_evicted_start_is_410_in_the_stream() -> None:
    step = plan_watch(WatchOptions(resource_version="59"), STATES[0]).first
    assert isinstance(step, Refuse)
    assert step.in_stream
    assert status(step.error)["message"] == "too old resource version: 59 (60)"
    begun = plan_watch(WatchOptions(resource_version="60"), STATES[0]).first
    assert words(begun) == "changes after 60"


def test_a_streamed_list_without_progress_says_why() -> None:
    options = WatchOptions(
        send_initial_events=True, resource_version_match="NotOlderThan", allow_watch_bookmarks=True
    )
    step = plan_watch(options, STATES[0]).first
    assert isinstance(step, Refuse)
    assert status(step.error) == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": NO_PROGRESS, "reason": "InternalError", "code": 500,
    }  # fmt: skip


def test_the_watch_list_gate() -> None:
    on, off = Features(), Features(watch_list=False)
    for version in ("", "0"):
        options = WatchOptions(resource_version=version, allow_watch_bookmarks=True)
        for features, end in ((on, True), (off, False)):
            situation = replace(STATES[0], features=features, progress_safe=True)
            plan = plan_watch(options.defaulted(features), situation)
            (begin,) = [step for step in steps_of(plan.first) if isinstance(step, StartWatch)]
            assert (begin.initial, begin.end_bookmark) == (True, end)
    asked = WatchOptions(send_initial_events=True, resource_version_match="NotOlderThan")
    with pytest.raises(Invalid, match="unless the WatchList feature gate is enabled"):
        plan_watch(asked, replace(STATES[0], features=off))


def test_not_ready_tells_when_to_come_back() -> None:
    step = plan_list(ListOptions(resource_version="0"), SITUATIONS[16], PREFIX).first
    assert isinstance(step, Refuse)
    assert isinstance(step.error, NotReady)
    answer = status(step.error)
    assert (answer["code"], answer["message"]) == (429, "storage is (re)initializing: down")
    assert answer["details"] == {"retryAfterSeconds": 3}


# Pages.


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("total", range(6))
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7])
def test_the_pages_of_a_chain(total: int, limit: int, filtered: bool) -> None:
    """By the rules: a token iff something comes after, pinned to the first page's revision, the
    count only without a selector and never 0."""
    keys = [PREFIX + b"ns/%d" % index for index in range(total)]
    at, revision, pages = 0, 77, 0
    while True:
        page = keys[at : at + limit]
        rest = keys[at + limit :]
        last = page[-1] if page else None
        meta = page_meta(
            revision=revision, prefix=PREFIX, last_key=last, remaining=len(rest), filtered=filtered
        )
        pages += 1
        assert meta.resource_version == "77"
        assert bool(meta.continue_token) == bool(rest)
        assert meta.remaining_item_count == (len(rest) if rest and not filtered else None)
        assert list(meta.members()) == ["resourceVersion"] + ["continue"] * bool(rest) + [
            "remainingItemCount"
        ] * bool(rest and not filtered)
        if not rest:
            break
        start, revision = decode(meta.continue_token, PREFIX)
        assert last is not None
        assert last < start <= rest[0]
        at = sum(key < start for key in keys)
    assert pages == max(1, -(-total // limit))


def test_a_list_has_a_revision() -> None:
    with pytest.raises(AssertionError):
        page_meta(revision=0, prefix=PREFIX, last_key=None, remaining=0, filtered=False)
