"""What upstream's RunTestList names: every way to ask for a list, on one state that doesn't change.

Each row asserts the items with their revisions, the list's revision, its token, what remains, and
which calls reach the source, with the gate on and off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.conftest import Worlds
from tests.conformance.rows import (
    AHEAD,
    CONSISTENT,
    EXACT,
    FAR,
    FINAL,
    GONE,
    LATEST,
    REFUSED,
    REST,
    WRITES,
    Row,
    Seed,
    token,
)
from tests.conformance.target import kinds

Query = Callable[[Seed], dict[str, Any]]

TOO_OLD = "The resourceVersion for the provided list is too old."
TOO_LARGE = "Too large resource version"

SECOND = "second/bar@2 second/foo@3"


@pytest.fixture(scope="module", params=kinds())
def seed(request: pytest.FixtureRequest, worlds: Worlds) -> Iterator[Seed]:
    """One state for every row: they only read."""
    with worlds.open(request.param, server="seeds") as target:
        yield Seed(target)


def asked(**query: Any) -> Query:
    return lambda _: query


def at(number: int | None, match: str | None = None, **more: Any) -> Query:
    """At the revision of a write, None: the newest."""
    return lambda seed: {
        "resourceVersion": seed.current if number is None else seed.at[number],
        "resourceVersionMatch": match,
        **more,
    }


def refused(name: str, query: Query, code: int, reason: str, part: str, **more: Any) -> Row:
    return Row(name=name, query=query, reads=REFUSED, refused=(code, reason, part), **more)


ERRORS = [
    refused("rejects invalid resource version", asked(resourceVersion="abc"), 400, "BadRequest",
            'invalid resource version: resourceVersion: Invalid value: "abc"'),
    refused("rejects resource version and continue token",
            lambda seed: {"resourceVersion": seed.at[1], "continue_": token("foo", seed.at[8])},
            400, "BadRequest", "specifying resource version is not allowed when using continue",
            namespace="second"),
    refused("rejects resource version set too high",
            lambda seed: {"resourceVersion": seed.current + FAR, "timeoutSeconds": -1},
            504, "Timeout", TOO_LARGE, differs="timeout"),
    refused("rejects match=Invalid", asked(resourceVersionMatch="Invalid"), 422, "Invalid",
            "is forbidden unless resourceVersion is provided"),
    refused("rejects match=Invalid with a resource version", at(None, "Invalid"), 422, "Invalid",
            'Unsupported value: "Invalid": supported values: "Exact", "NotOlderThan", ""'),
    refused("continue from empty fails", lambda seed: {"continue_": token("", seed.at[8])},
            400, "BadRequest", "encoded start key empty"),
    refused("continue with an empty resource version fails",
            lambda seed: {"continue_": token("second/foo", 0)},
            400, "BadRequest", "incorrect encoded start resourceVersion"),
    refused("continue with a negative version from empty fails",
            lambda seed: {"continue_": token("", -1)},
            400, "BadRequest", "encoded start key empty"),
]  # fmt: skip


def one(name: str, query: Query, reads: str, found: str, path: str, **more: Any) -> Row:
    """A list of one key."""
    namespace, _, key = path.rpartition("/")
    return Row(
        name=name, query=query, reads=reads, found=found, namespace=namespace, one=key, **more
    )


EXISTING = [
    one("existing key: RV unset", asked(), CONSISTENT, "first/bar@7", "first/bar"),
    one("existing key: RV 0", asked(resourceVersion=0), LATEST, "first/bar@7", "first/bar"),
    one("existing key: Exact before the update", at(6, "Exact"), EXACT, "first/bar@1",
        "first/bar", differs="single-key-exact"),
    one("existing key: Exact before it was created", at(2, "Exact"), EXACT, "", "second/foo",
        differs="single-key-exact"),
    one("existing key: Exact after it was created", at(3, "Exact"), EXACT, "second/foo@3",
        "second/foo", differs="single-key-exact"),
    one("existing key: Exact before the first write",
        lambda seed: {"resourceVersion": seed.before, "resourceVersionMatch": "Exact"},
        GONE, "", "first/bar", refused=(410, "Expired", TOO_OLD)),
    one("existing key: current RV", at(None), LATEST, "first/bar@7", "first/bar"),
    one("existing key: current RV, Exact", at(None, "Exact"), EXACT, "first/bar@7", "first/bar",
        differs="single-key-exact"),
    one("existing key: current RV, NotOlderThan", at(None, "NotOlderThan"), LATEST,
        "first/bar@7", "first/bar"),
    one("non-existing key", asked(), CONSISTENT, "", "first/nothing"),
]  # fmt: skip

BARS = "first/bar@7 second/bar@2"

NAMED = [
    Row(name="pod name matching", query=asked(fieldSelector="metadata.name=bar"),
        reads=CONSISTENT, found=BARS),
    Row(name="pod name matching, NotOlderThan",
        query=at(None, "NotOlderThan", fieldSelector="metadata.name=bar"), reads=LATEST,
        found=BARS),
]  # fmt: skip


def limited(name: str, query: Query, reads: str, **more: Any) -> Row:
    """The first of the two of a namespace."""
    row = {"found": "second/bar@2", "more": ("bar", 1), "namespace": "second", **more}
    return Row(name=name, query=query, reads=reads, **row)


LIMITS = [
    limited("limit", asked(limit=1), CONSISTENT),
    limited("limit at current RV", at(None, limit=1), EXACT),
    limited("limit at current RV, Exact", at(None, "Exact", limit=1), EXACT),
    limited("limit at current RV, NotOlderThan", at(None, "NotOlderThan", limit=1), LATEST),
    limited("limit at RV 0", asked(resourceVersion=0, limit=1), LATEST, differs="limit-at-0"),
    limited("limit at RV 0, NotOlderThan",
            asked(resourceVersion=0, resourceVersionMatch="NotOlderThan", limit=1), LATEST,
            differs="limit-at-0"),
    limited("limit, Exact before it was created", at(1, "Exact", limit=1), EXACT, found="",
            more=None),
    limited("limit, Exact after it was created", at(3, "Exact", limit=1), EXACT),
    limited("pregenerated continue token",
            lambda seed: {"continue_": token("foo", seed.at[8]), "limit": 1}, EXACT,
            found="second/foo@3", more=None),
    limited("pregenerated continue token, RV 0 ignored",
            lambda seed: {"continue_": token("foo", seed.at[8]), "limit": 1, "resourceVersion": 0},
            EXACT, found="second/foo@3", more=None),
]  # fmt: skip

WHOLE = [
    Row(name="multiple levels of directories", query=asked(), reads=CONSISTENT, found=FINAL),
    Row(name="multiple levels of directories, NotOlderThan", query=at(None, "NotOlderThan"),
        reads=LATEST, found=FINAL),
    Row(name="page size equal to the total list size", query=asked(limit=5), reads=CONSISTENT,
        found=FINAL),
    Row(name="list all", query=asked(fieldSelector=","), reads=CONSISTENT, found=FINAL),
    Row(name="list all, NotOlderThan", query=at(7, "NotOlderThan"), reads=LATEST, found=FINAL),
    Row(name="updated version visible", query=asked(labelSelector="updated=yes"),
        reads=CONSISTENT, found="first/bar@7"),
    Row(name="deleted not visible", query=asked(labelSelector="name=baz"), reads=CONSISTENT),
    Row(name="consistent list", query=asked(fieldSelector="spec.nodeName=n1"), reads=CONSISTENT,
        found=FINAL),
    Row(name="non-consistent list", query=asked(resourceVersion=0), reads=LATEST, found=FINAL),
]  # fmt: skip

# A full page has a token only if another match may follow; upstream's has one unless the last
# match is the last key.
FILTERS = [
    Row(name="filter for one item: single page", query=asked(labelSelector="name=barfoo", limit=1),
        reads=CONSISTENT, namespace="third", found="third/barfoo@5", differs="look-ahead"),
    Row(name="filter for one item: page covers the entire list",
        query=asked(labelSelector="name=barfoo", limit=2), reads=CONSISTENT, namespace="third",
        found="third/barfoo@5"),
    Row(name="filter for one item: RV 0",
        query=asked(labelSelector="name=barfoo", limit=2, resourceVersion=0), reads=LATEST,
        namespace="third", found="third/barfoo@5"),
    Row(name="filter for two items: more pages possible",
        query=asked(labelSelector="name=bar", limit=2), reads=CONSISTENT, found=BARS,
        differs="look-ahead"),
    Row(name="filter for two items: split across pages",
        query=asked(labelSelector="name=foo", limit=1), reads=CONSISTENT, found="second/foo@3",
        more=("second/foo", None)),
    Row(name="one item for the last page: ends on last item, not full",
        query=lambda seed: {"labelSelector": "name=foo", "limit": 2,
                            "continue_": token("third/barfoo", seed.at[8])},
        reads=EXACT, found="third/foo@6"),
    Row(name="one item for the last page: starts on last item, full",
        query=lambda seed: {"labelSelector": "name=foo", "limit": 1,
                            "continue_": token("third/foo", seed.at[8])},
        reads=EXACT, found="third/foo@6"),
    Row(name="one item for the last page: starts on last item, partial",
        query=lambda seed: {"labelSelector": "name=foo", "limit": 2,
                            "continue_": token("third/foo", seed.at[8])},
        reads=EXACT, found="third/foo@6"),
]  # fmt: skip


def exact_rows() -> Iterator[Row]:
    """At each write and after them: the state then, in all three ways to name a revision."""
    for number in [*range(1, len(WRITES) + 1), None]:
        count = len(WRITES) if number is None else number

        def state(seed: Seed, count: int = count) -> str:
            return seed.state(count)

        def second(seed: Seed, count: int = count) -> str:
            return seed.state(count, "second/", "second/bar")

        yield Row(name="Exact at each write", query=at(number, "Exact"), reads=EXACT, found=state)
        if count > 1:
            rest = state_size(count) - 1
            yield Row(
                name="Exact with limit at each write", query=at(number, limit=1), reads=EXACT,
                found=lambda seed, count=count: seed.state(count).partition(" ")[0],  # type: ignore[misc]
                more=("first/bar", rest),
            )  # fmt: skip

        def goes_on(seed: Seed, number: int | None = number) -> dict[str, Any]:
            revision = seed.current if number is None else seed.at[number]
            return {"continue_": token("bar", revision)}

        yield Row(name="Exact with continue at each write", query=goes_on, reads=EXACT,
                  found=second, namespace="second")  # fmt: skip


def state_size(count: int) -> int:
    """How many pods there are after so many writes."""
    return sum(labels is not None for labels in dict(WRITES[:count]).values())


BEYOND = [
    Row(name="Exact with continue at each write",
        query=lambda seed: {"continue_": token("second/bar", seed.before)}, reads=GONE,
        refused=(410, "Expired", "The provided continue parameter is too old")),
    Row(name="Exact with limit at each write",
        query=lambda seed: {"resourceVersion": seed.before, "limit": 1}, reads=GONE,
        refused=(410, "Expired", TOO_OLD)),
    Row(name="Exact at a future RV",
        query=lambda seed: {"resourceVersion": seed.current + FAR, "resourceVersionMatch": "Exact",
                            "timeoutSeconds": -1},
        reads=AHEAD, refused=(504, "Timeout", TOO_LARGE), differs="timeout"),
    Row(name="Exact at a future RV",
        query=lambda seed: {"resourceVersion": seed.current + FAR, "limit": 1,
                            "timeoutSeconds": -1},
        reads=AHEAD, refused=(504, "Timeout", TOO_LARGE), differs="timeout"),
    Row(name="Exact at a future RV",
        query=asked(resourceVersion=2**63, resourceVersionMatch="Exact"),
        reads=REFUSED, refused=(504, "Timeout", TOO_LARGE), differs="impossible"),
    Row(name="continue with negative RV: from the second",
        query=asked(continue_=token("second/bar", -1)), reads=REST,
        found="second/bar@2 second/foo@3 third/barfoo@5 third/foo@6"),
    Row(name="continue with negative RV: with a limit",
        query=asked(continue_=token("second/bar", -1), limit=1), reads=REST, found="second/bar@2",
        more=("second/bar", 3)),
    Row(name="continue with negative RV: from the third",
        query=asked(continue_=token("second/foo", -1)), reads=REST,
        found="second/foo@3 third/barfoo@5 third/foo@6"),
]  # fmt: skip

ROWS = [*ERRORS, *EXISTING, *NAMED, *LIMITS, *WHOLE, *FILTERS, *exact_rows(), *BEYOND]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_list(seed: Seed, row: Row) -> None:
    row.check(seed)


def test_requests_that_reach_the_source(seed: Seed) -> None:
    """Chains at every write, to their ends: none; with the gate off one for each page."""
    target = seed.target
    with target.counted() as calls:
        for number in range(1, len(WRITES) + 1):
            page = target.page(resourceVersion=seed.at[number], limit=2)
            while page.token:
                page = target.page(continue_=page.token, limit=2)
    pages = sum(max(1, -(-state_size(number) // 2)) for number in range(1, len(WRITES) + 1))
    assert calls == ({} if target.kind.snapshots else {"range_at": pages})
