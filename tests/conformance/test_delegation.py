"""Who answers a list: the whole matrix of options against rules written down here, and what happens
when the cache is behind, has forgotten, or has lost its source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from threading import Timer
from time import monotonic
from typing import Any, NamedTuple

import pytest

from tests.conformance.conftest import Worlds
from tests.conformance.rows import (
    AHEAD,
    CALLS,
    CONSISTENT,
    EXACT,
    FAR,
    GONE,
    LATEST,
    REFUSED,
    REST,
    Seed,
    check_refused,
    token,
    token_members,
)
from tests.conformance.target import Namespace, Object, Page, Status, kinds


@pytest.fixture(scope="module", params=kinds())
def seed(request: pytest.FixtureRequest, worlds: Worlds) -> Iterator[Seed]:
    with worlds.open(request.param, server="seeds") as target:
        yield Seed(target)


VERSIONS = ("", "0", "compacted", 3, 8, "current", "too high")
MATCHES = ("", "Exact", "NotOlderThan", "Invalid")
LIMITS = (0, 1)
TOKENS = (None, "compacted", 3, 8, "current", -1)
SELECTORS = ("", "name=foo")


class Case(NamedTuple):
    """One combination of options. Revisions are as Seed.revision has them."""

    version: int | str
    match: str
    limit: int
    token: int | str | None
    selector: str

    def query(self, seed: Seed) -> dict[str, Any]:
        """What is asked."""
        found: dict[str, Any] = {"timeoutSeconds": -1}
        if self.version != "":
            found["resourceVersion"] = seed.revision(self.version)
        if self.match:
            found["resourceVersionMatch"] = self.match
        if self.limit:
            found["limit"] = self.limit
        if self.selector:
            found["labelSelector"] = self.selector
        if self.token is not None:
            revision = -1 if self.token == -1 else seed.revision(self.token)
            found["continue_"] = token("second/foo", int(revision))
        return found

    def mode(self) -> tuple[str, int | str]:
        """How it is served, and of a refusal its code, else the revision."""
        combined = bool(self.match) and (
            self.version == "" or self.token is not None or self.match == "Invalid"
        )
        if combined or (self.match == "Exact" and self.version == "0"):
            return REFUSED, 422
        if self.token is not None:
            if self.version not in ("", "0"):
                return REFUSED, 400
            return (REST, "current") if self.token == -1 else self._exact(self.token)
        if self.match == "Exact" or (
            not self.match and self.limit and self.version not in ("", "0")
        ):
            return self._exact(self.version)
        if self.version == "":
            return CONSISTENT, "current"
        return (REFUSED, 504) if self.version == "too high" else (LATEST, "current")

    def _exact(self, revision: int | str) -> tuple[str, int | str]:
        if revision == "compacted":
            return GONE, 410
        return (AHEAD, 504) if revision == "too high" else (EXACT, revision)


def cases() -> Iterator[Case]:
    """All of them; what is refused for its version and match once, whatever else is asked."""
    for options in product(VERSIONS, MATCHES, LIMITS, TOKENS, SELECTORS):
        case = Case(*options)
        if case.mode() != (REFUSED, 422) or not (case.limit or case.selector):
            yield case


CASES = [*cases()]


def answers(seed: Seed, case: Case) -> None:
    """What of a case is wrong: AssertionError."""
    mode, at = case.mode()
    answer = seed.target.list(**case.query(seed))
    if mode in (REFUSED, GONE, AHEAD):
        assert isinstance(answer, Status), answer
        assert answer.code == at
        return
    assert isinstance(answer, Page), answer
    revision = seed.revision(at)
    assert answer.revision == revision or (at == "current" and answer.revision > int(revision))
    start = "" if case.token is None else "second/foo"
    wanted = seed.state(8 if at == "current" else int(at), start=start).split()
    if case.selector:
        wanted = [one for one in wanted if "/foo@" in one]
    shown = wanted[: case.limit] if case.limit else wanted
    assert seed.shown(answer.items) == " ".join(shown)
    left = len(wanted) - len(shown)
    if left:
        after = shown[-1].partition("@")[0]
        assert token_members(answer.token) == (f"{after}\0", answer.revision)
    elif answer.token:
        # As upstream a filtered page may have one though nothing follows.
        assert case.selector
        assert seed.target.page(continue_=answer.token, labelSelector=case.selector).items == []
    assert answer.remaining == (None if case.selector or not left else left)


def test_should_delegate_list(seed: Seed) -> None:
    """Every combination, and what each reads of the source with the gate on and off."""
    seen: Counter[str] = Counter()
    for case in CASES:
        mode, _ = case.mode()
        with seed.target.counted() as calls:
            try:
                answers(seed, case)
            except AssertionError as error:
                raise AssertionError(f"{case}: {case.query(seed)}") from error
        seen[mode] += 1
        allowed = CALLS[mode][not seed.target.kind.snapshots]
        # A selected page of the source may take several reads.
        at_most = 9 if case.selector else 1
        assert set(calls) == set(allowed), case
        assert all(count <= at_most for count in calls.values()), case
    assert set(seen) == set(CALLS), "every way to be served was met"


def test_match_exact_resource_version_fallback(pods: Namespace) -> None:
    """What the cache has forgotten the source answers, once; what it keeps nobody else."""
    target = pods.target
    old, kept, newest = pods.put("a"), pods.put("b"), pods.put("c")
    target.caught_up(newest)
    target.cache.compact(kept)
    for revision, names in ((old, "a"), (kept, "a b")):
        with target.counted() as calls:
            found, page = pods.page(resourceVersion=revision, resourceVersionMatch="Exact")
        assert (found, page.revision) == (names, revision)
        asked = revision == old or not target.kind.snapshots
        assert calls == ({"range_at": 1} if asked else {})
    with target.counted() as calls:
        assert isinstance(pods.get("a", resourceVersion=old, resourceVersionMatch="Exact"), Object)
    assert calls == {"range_at": 1}


def test_consistent_read_fallback_success(pods: Namespace) -> None:
    """Behind when it is asked: it asks the source where it is, and waits until it is there."""
    target = pods.target
    with target.counted() as calls:
        written = pods.put("a")
        found, page = pods.page()
        assert (found, page.revision >= written) == ("a", True)
        elsewhere = target.put_elsewhere()
        assert pods.page()[1].revision >= elsewhere, "told by a mark"
    assert calls == {"current_revision": 2}


@pytest.mark.parametrize("limit", [None, 1])
def test_consistent_read_fallback(pods: Namespace, limit: int | None) -> None:
    """Not there in time: the source answers, at one revision."""
    target = pods.target
    pods.put("a")
    pods.put("b")
    target.caught_up()
    target.source.is_stalled = True
    try:
        written = pods.put("a", new="yes")
        with target.counted() as calls:
            found, page = pods.page(limit=limit, timeoutSeconds=-1)
        assert found == ("a" if limit else "a b")
        assert page.items[0]["metadata"]["resourceVersion"] == str(written)
        assert (page.revision, page.remaining) == (written, 1 if limit else None)
        # One to know what to wait for, one to fix the revision that is read.
        assert calls == {"current_revision": 2, "range_at": 1}
        with target.counted() as calls:
            one = pods.get("a", timeoutSeconds=-1)
        assert isinstance(one, Object)
        assert one.revision == written
        assert calls == {"current_revision": 2, "range_at": 1}
        # Any state is what the cache has.
        assert pods.page(resourceVersion=0)[1].revision < written
        check_refused(pods.list(resourceVersion=written, timeoutSeconds=-1), 504, "Timeout")
    finally:
        target.source.is_stalled = False
    target.caught_up(written)
    assert pods.page(resourceVersion=0)[1].revision >= written


def test_consistent_read_fallback_failure(pods: Namespace) -> None:
    """A source that is away: 503 for what needs it, and nothing else."""
    target = pods.target
    written = pods.put("a")
    target.caught_up()
    target.source.is_down = True
    try:
        for answer in (pods.list(), pods.list(limit=1), pods.get("a")):
            check_refused(answer, 503, "ServiceUnavailable")
        assert pods.page(resourceVersion=0)[0] == "a"
        assert pods.page(resourceVersion=written)[0] == "a"
        exact = pods.list(resourceVersion=written, resourceVersionMatch="Exact")
        if target.kind.snapshots:
            assert isinstance(exact, Page)
        else:
            check_refused(exact, 503, "ServiceUnavailable")
    finally:
        target.source.is_down = False
    assert pods.page()[0] == "a"


def test_a_wait_takes_the_timeout_of_the_caller(pods: Namespace) -> None:
    """In real seconds: a revision that is reached within them is served, one that is not refused
    when they are over."""
    target = pods.target
    current = target.caught_up(pods.put("a"))
    began_s = monotonic()
    refused = pods.list(resourceVersion=current + FAR, timeoutSeconds=1)
    took_s = monotonic() - began_s
    check_refused(refused, 504, "Timeout", f"Timeout: Too large resource version: {current + FAR}")
    assert 1 <= took_s < 3, "upstream: 3 seconds"
    for query in ({}, {"resourceVersionMatch": "NotOlderThan"}, {"limit": 1}):
        writing = Timer(0.05, pods.put, ["a"])
        writing.start()
        current += 1
        answer = pods.list(resourceVersion=current, timeoutSeconds=5, **query)
        writing.join()
        if "limit" in query and not target.kind.snapshots:
            # The source is asked, which does not wait.
            check_refused(answer, 504, "Timeout")
            continue
        assert isinstance(answer, Page), answer
        assert answer.revision == current
        assert answer.items[0]["metadata"]["resourceVersion"] == str(current)
