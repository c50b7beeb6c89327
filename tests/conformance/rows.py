"""Rows of reads: what is asked, what must be answered, and what of it may reach the source.

Expectations come from a list of writes kept beside the target, never from the target. What a kind
of read may cost is said once, in CALLS, so that every row asserts it with the gate on and off.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.conformance.target import Object, Page, Status, Target

#: Written in this order, one revision each: the path, and the labels and spec of a pod; None
#: deletes. At the end five pods are left, in three namespaces.
WRITES: tuple[tuple[str, dict[str, str] | None], ...] = (
    ("first/bar", {"name": "bar"}),
    ("second/bar", {"name": "bar"}),
    ("second/foo", {"name": "foo"}),
    ("second/baz", {"name": "baz"}),
    ("third/barfoo", {"name": "barfoo"}),
    ("third/foo", {"name": "foo"}),
    ("first/bar", {"name": "bar", "updated": "yes"}),
    ("second/baz", None),
)

#: The state after all of them: path and the number of the write that it is from.
FINAL = "first/bar@7 second/bar@2 second/foo@3 third/barfoo@5 third/foo@6"

#: A revision that nobody reaches while a test runs.
FAR = 10**6

#: How a read is served.
#: LATEST      any state not older than asked
#: CONSISTENT  not older than the request
#: EXACT       the state at a revision that is kept
#: REST        the newest state, by a token whose revision is -1
#: GONE        at a revision that the source has compacted: it is asked all the same
#: AHEAD       at a revision that nobody has reached
#: REFUSED     whoever asks
LATEST, CONSISTENT, EXACT, REST, GONE, AHEAD, REFUSED = (
    "latest", "consistent", "exact", "rest", "gone", "ahead", "refused",
)  # fmt: skip

#: Calls that reach the source: with the gate ListFromCacheSnapshot on, and off.
CALLS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    LATEST: ({}, {}),
    CONSISTENT: ({"current_revision": 1}, {"current_revision": 1}),
    EXACT: ({}, {"range_at": 1}),
    REST: ({"current_revision": 1}, {"current_revision": 1, "range_at": 1}),
    GONE: ({"range_at": 1}, {"range_at": 1}),
    AHEAD: ({}, {"range_at": 1}),
    REFUSED: ({}, {}),
}


def token(start: str, revision: int) -> str:
    """A continue token, made here and not by what is tested."""
    document = {"v": "meta.k8s.io/v1", "rv": revision, "start": start}
    raw = json.dumps(document, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token_members(text: str) -> tuple[str, int]:
    """Where a token goes on, and its revision."""
    document = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert document["v"] == "meta.k8s.io/v1"
    return document["start"], document["rv"]


class Seed:
    """A target with WRITES written, compacted at the revision before the first of them.

    at        revision of each write, from 1; at[0] is that of the empty resource
    current   of the source, after a write elsewhere
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        for _ in range(3):
            self.at = [target.put_elsewhere()]
        for path, labels in WRITES:
            made = None if labels is None else target.object_at(path, labels, nodeName="n1")
            self.at.append(target.delete(path) if made is None else target.put(path, made))
        target.compact(self.at[0])
        self.current = target.put_elsewhere()
        target.caught_up()

    @property
    def before(self) -> int:
        """A revision that is compacted."""
        return self.at[0] - 1

    def revision(self, at: int | str) -> int | str:
        """Of a write by its number; "current", "too high", "compacted"; any other text as it is."""
        if isinstance(at, int):
            return self.at[at]
        known = {"current": self.current, "too high": self.current + FAR, "compacted": self.before}
        return known.get(at, at)

    def state(self, count: int, prefix: str = "", start: str = "") -> str:
        """The state after so many writes, as FINAL; with `prefix` and from `start` on."""
        found: dict[str, int] = {}
        for number, (path, labels) in enumerate(WRITES[:count], 1):
            if labels is None:
                found.pop(path, None)
            elif path.startswith(prefix) and path >= start:
                found[path] = number
        return " ".join(f"{path}@{number}" for path, number in sorted(found.items()))

    def shown(self, items: list[dict[str, Any]]) -> str:
        """Items as in FINAL."""
        said = []
        for item in items:
            metadata = item["metadata"]
            number = self.at.index(int(metadata["resourceVersion"]))
            said.append(f"{metadata['namespace']}/{metadata['name']}@{number}")
        return " ".join(said)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One read.

    name       of the behaviour, as in behaviours.txt
    query      what is asked, made from the seed
    reads      how it is served: a key of CALLS
    found      the items as in FINAL
    more       on pages with a token: path after which it goes on, relative to what is listed, and
               how many remain, None where that isn't said
    refused    code, reason, and a part of the message
    pages_off  pages that the source is read in with the gate off, if not one
    differs    row of "where we differ" in docs/reads.md: our expectation, not upstream's
    """

    name: str
    query: Callable[[Seed], dict[str, Any]]
    reads: str
    found: str | Callable[[Seed], str] = ""
    namespace: str = ""
    one: str = ""
    more: tuple[str, int | None] | None = None
    refused: tuple[int, str, str] | None = None
    pages_off: int = 1
    differs: str = ""

    def __str__(self) -> str:
        return self.name

    def calls(self, *, snapshots: bool) -> dict[str, int]:
        """What may reach the source."""
        found = dict(CALLS[self.reads][not snapshots])
        if not snapshots and "range_at" in found:
            found["range_at"] = self.pages_off
        return found

    def check(self, seed: Seed) -> None:
        """Ask, and compare everything that is said."""
        target, query = seed.target, self.query(seed)
        with target.counted() as calls:
            answer = target.list(self.namespace, self.one, **query)
        if self.refused:
            check_refused(answer, *self.refused)
        else:
            assert isinstance(answer, Page), answer
            found = self.found if isinstance(self.found, str) else self.found(seed)
            assert seed.shown(answer.items) == found
            self.check_metadata(seed, answer, query)
        assert calls == self.calls(snapshots=target.kind.snapshots)

    def check_metadata(self, seed: Seed, page: Page, query: dict[str, Any]) -> None:
        """The revision is the one that was asked for, or the newest; the token goes on there."""
        asked = int(query.get("resourceVersion") or 0)
        if query.get("continue_"):
            asked = token_members(query["continue_"])[1]
        if self.reads == EXACT:
            assert page.revision == asked
        else:
            # Nothing is ever behind here: the cache had reached the source before the first row.
            assert page.revision >= max(asked, seed.current)
        if self.more is None:
            assert set(page.metadata) == {"resourceVersion"}
        else:
            after, remaining = self.more
            assert token_members(page.token) == (f"{after}\0", page.revision)
            assert page.remaining == remaining


def check_refused(answer: Page | Object | Status, code: int, reason: str, part: str = "") -> Status:
    """That it is a Status, and this one."""
    assert isinstance(answer, Status), answer
    assert (answer.code, answer.reason) == (code, reason), answer
    assert part in answer.message
    if code == 504:
        assert answer.causes == ["ResourceVersionTooLarge"]
    return answer
