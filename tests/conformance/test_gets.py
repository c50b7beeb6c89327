"""Reads of one object: GET, and lists of one key, which upstream calls non-recursive.

On the state of `rows.Seed`. Each row asserts the object, its revision, and which calls reach the
source, with the gate on and off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from btreecache.errors import BadRequest
from btreecache.options import ListOptions
from tests.conformance.conftest import Worlds
from tests.conformance.rows import (
    AHEAD,
    CALLS,
    CONSISTENT,
    EXACT,
    FINAL,
    GONE,
    LATEST,
    REFUSED,
    REST,
    Row,
    Seed,
    check_refused,
    token,
)
from tests.conformance.target import Http, Library, Object, kinds


@pytest.fixture(scope="module", params=kinds())
def seed(request: pytest.FixtureRequest, worlds: Worlds) -> Iterator[Seed]:
    with worlds.open(request.param, server="seeds") as target:
        yield Seed(target)


@dataclass(frozen=True, kw_only=True)
class Get:
    """One GET.

    at       revision that is asked for, as Seed.revision has it
    found    number of the write that the object is from
    """

    name: str
    path: str = "first/bar"
    at: int | str | None = None
    match: str | None = None
    reads: str
    found: int = 0
    refused: tuple[int, str, str] | None = None
    differs: str = ""

    def __str__(self) -> str:
        return self.name

    def query(self, seed: Seed) -> dict[str, Any]:
        """What is asked."""
        return {
            "resourceVersion": None if self.at is None else seed.revision(self.at),
            "resourceVersionMatch": self.match,
            "timeoutSeconds": -1 if self.at == "too high" else None,
        }


MISSING = (404, "NotFound", 'pods "nothing" not found')
TOO_HIGH = (504, "Timeout", "Too large resource version")

GETS = [
    Get(name="Get: existing key", reads=CONSISTENT, found=7, differs="get-consistent"),
    Get(name="Get: RV 0", at="0", reads=LATEST, found=7),
    Get(name="Get: RV at which it was created", at=1, reads=LATEST, found=7),
    Get(name="Get: current RV, NotOlderThan", at="current", match="NotOlderThan", reads=LATEST,
        found=7),
    Get(name="Get: latest RV", at=7, reads=LATEST, found=7),
    Get(name="Get: RV too high", at="too high", reads=REFUSED, refused=TOO_HIGH,
        differs="timeout"),
    Get(name="Get: missing key", path="first/nothing", reads=CONSISTENT, refused=MISSING),
    Get(name="Get: missing key", path="first/nothing", at="0", reads=LATEST, refused=MISSING),
    # What upstream does not have: a GET at a revision.
    Get(name="Get: Exact", at=6, match="Exact", reads=EXACT, found=1, differs="get-exact"),
    Get(name="Get: Exact, not yet created", path="second/foo", at=2, match="Exact", reads=EXACT,
        refused=(404, "NotFound", 'pods "foo" not found'), differs="get-exact"),
    Get(name="Get: Exact, deleted later", path="second/baz", at=7, match="Exact", reads=EXACT,
        found=4, differs="get-exact"),
    Get(name="Get: Exact, too high", at="too high", match="Exact", reads=AHEAD, refused=TOO_HIGH,
        differs="get-exact"),
    Get(name="Get: Exact, too old", at="compacted", match="Exact", reads=GONE,
        refused=(410, "Expired", "too old"), differs="get-exact"),
    Get(name="Get: invalid RV", at="abc", reads=REFUSED,
        refused=(400, "BadRequest", "invalid resource version"), differs="bad-version"),
]  # fmt: skip


@pytest.mark.parametrize("row", GETS, ids=str)
def test_get(seed: Seed, row: Get) -> None:
    target = seed.target
    with target.counted() as calls:
        answer = target.get(row.path, **row.query(seed))
    if row.refused:
        check_refused(answer, *row.refused)
    else:
        assert isinstance(answer, Object), answer
        assert answer.object["kind"] == "Pod"
        assert seed.shown([answer.object]) == f"{row.path}@{row.found}"
    assert calls == CALLS[row.reads][not target.kind.snapshots]


def one(
    name: str, reads: str, query: dict[str, Any], found: str = "first/bar@7", **more: Any
) -> Row:
    """A list of first/bar alone, `at` a revision as Seed.revision has it."""

    def asked(seed: Seed) -> dict[str, Any]:
        rest = {key: value for key, value in query.items() if key != "at"}
        return rest | ({"resourceVersion": seed.revision(query["at"])} if "at" in query else {})

    row = {"namespace": "first", "one": "bar", **more}
    return Row(name=name, query=asked, reads=reads, found=found, **row)


NOT_OLDER, AT_EXACTLY = {"resourceVersionMatch": "NotOlderThan"}, {"resourceVersionMatch": "Exact"}

NON_RECURSIVE = [
    one("GetListNonRecursive: existing key", CONSISTENT, {}),
    one("GetListNonRecursive: RV 0", LATEST, {"at": "0"}),
    one("GetListNonRecursive: RV 0, NotOlderThan", LATEST, {"at": "0", **NOT_OLDER}),
    one("GetListNonRecursive: current RV", LATEST, {"at": "current"}),
    one("GetListNonRecursive: current RV, NotOlderThan", LATEST, {"at": "current", **NOT_OLDER}),
    one("GetListNonRecursive: current RV, Exact", EXACT, {"at": "current", **AT_EXACTLY},
        differs="single-key-exact"),
    one("GetListNonRecursive: previous RV, NotOlderThan", LATEST, {"at": 6, **NOT_OLDER}),
    one("GetListNonRecursive: previous RV, Exact", EXACT, {"at": 6, **AT_EXACTLY}, "first/bar@1",
        differs="single-key-exact"),
    one("GetListNonRecursive: RV too high", REFUSED, {"at": "too high", "timeoutSeconds": -1},
        refused=TOO_HIGH, differs="timeout"),
    one("GetListNonRecursive: missing key", CONSISTENT, {}, "", one="nothing"),
    one("GetListNonRecursive: matching name", CONSISTENT, {"fieldSelector": "metadata.name=bar"}),
    one("GetListNonRecursive: name that does not match", CONSISTENT,
        {"fieldSelector": "metadata.name=foo"}, ""),
]  # fmt: skip


@pytest.mark.parametrize("row", NON_RECURSIVE, ids=str)
def test_get_list_non_recursive(seed: Seed, row: Row) -> None:
    row.check(seed)


@pytest.mark.parametrize("how", ["consistent", "exact", "not older"])
def test_get_list_recursive_prefix(seed: Seed, how: str) -> None:
    """A directory is no object, and an object no directory."""
    target = seed.target
    query: dict[str, Any] = {"consistent": {}, "exact": AT_EXACTLY, "not older": NOT_OLDER}[how]
    if query:
        query = {"resourceVersion": seed.current, **query}
    # Non-recursive on a directory.
    assert target.page(one="second", **query).items == []
    # Recursive on the key of an object; no path of the API says that.
    if target.kind.access == "library":
        assert target.page("second/bar", **query).items == []
    else:
        assert target.refusal("second/bar", **query).code == 404
    # Recursive on what is only the beginning of a directory's name, and on a directory.
    assert target.page("sec", **query).items == []
    assert seed.shown(target.page("second", **query).items) == "second/bar@2 second/foo@3"
    assert seed.shown(target.page(**query).items) == FINAL
    # Non-recursive on what is only the beginning of a key.
    assert target.page("third", "bar", **query).items == []
    assert seed.shown(target.page("third", "barfoo", **query).items) == "third/barfoo@5"


def test_consistent_list(seed: Seed) -> None:
    """Something was written before each: it is reflected, though no event of pods tells of it."""
    target = seed.target
    bumped = target.put_elsewhere()
    with target.counted() as calls:
        page = target.page(resourceVersion=bumped, **NOT_OLDER)  # before a consistent read
    assert (page.revision >= bumped, calls) == (True, CALLS[LATEST][0])
    bumped = target.put_elsewhere()
    with target.counted() as calls:
        page = target.page()  # the consistent read
    assert (page.revision >= bumped, calls) == (True, CALLS[CONSISTENT][0])
    assert seed.shown(page.items) == FINAL
    bumped = target.put_elsewhere()
    with target.counted() as calls:
        rest = target.page(continue_=token("second/foo", -1))
    assert rest.revision >= bumped
    assert calls == CALLS[REST][not target.kind.snapshots]
    with target.counted() as calls:
        after = target.page(resourceVersion=0)  # what was seen is not taken back
    assert after.revision >= page.revision
    assert calls == {}


def test_key_schema(seed: Seed) -> None:
    """No key outside of what is served can be named: not in a program, not over HTTP."""
    access = seed.target.access
    if isinstance(access, Http):
        for name in ("%2E", "%2E%2E", "a%25b"):
            for path in (
                f"/api/v1/namespaces/first/pods/{name}",
                f"/api/v1/namespaces/{name}/pods",
            ):
                answer = access.client.get(path)
                assert answer.status_code == 400, path
                assert "parameter invalid" in answer.json()["message"]
        for path in ("/api/v1/podsx", "/api/v1/namespaces//pods/x", "/api/v1/namespaces/a/b/c/d"):
            assert access.client.get(path).status_code == 404
        return
    assert isinstance(access, Library)
    reader, prefix = access.reader, seed.target.resource.prefix(seed.target.root)
    for key in (b"", b"/", prefix[:-1], prefix[:-1] + b".apps/a/b", b"/elsewhere/first/bar"):
        with pytest.raises(BadRequest):
            reader.get(key)
        if key != prefix[:-1]:
            with pytest.raises(BadRequest):
                reader.list(ListOptions(), key)
        with pytest.raises(BadRequest):
            reader.list(ListOptions(), key, recursive=False)
    # Recursive, a slash is understood: so that "/pods/a" is not the beginning of "/pods/ab".
    assert len(reader.list(ListOptions(), prefix[:-1]).elements) == len(FINAL.split())
