"""The judges of the API servers' answers find every kind of wrong answer."""

from __future__ import annotations

from copy import deepcopy

import pytest

from tests.apiservers.logs import complaints, errors
from tests.apiservers.record import (
    Change,
    Object,
    Record,
    wrong_bookmark,
    wrong_events,
    wrong_list,
)


def thing(name: str, revision: int, value: str = "") -> Object:
    metadata = {"name": name, "namespace": "red", "resourceVersion": str(revision)}
    return {"metadata": metadata, "data": {"v": value}}


def event(kind: str, name: str, revision: int, value: str = "") -> Object:
    return {"type": kind, "object": {"kind": "ConfigMap", **thing(name, revision, value)}}


@pytest.fixture
def record() -> Record:
    """Four changes: a and b are created, a is deleted (at 13, which no answer told), b updated."""
    record = Record()
    record.put({"kind": "ConfigMap", **thing("a", 11, "1")})
    record.put(thing("b", 12, "2"))
    record.delete(("red", "a"))
    record.put(thing("b", 15, "3"))
    return record


EVENTS = [
    event("ADDED", "a", 11, "1"),
    event("ADDED", "b", 12, "2"),
    event("DELETED", "a", 13, "1"),
    event("MODIFIED", "b", 15, "3"),
]


def test_the_state_at_a_revision(record: Record) -> None:
    assert [*record.at(record.place(11))] == [("red", "a")]
    assert [*record.at(record.place(12))] == [("red", "a"), ("red", "b")]
    assert record.at(record.place(15)) == {("red", "b"): thing("b", 15, "3")} == record.now
    with pytest.raises(KeyError):
        record.place(13)


def test_a_deletion_is_somewhere_between_two_known_revisions(record: Record) -> None:
    assert [record.places(revision) for revision in (10, 12, 14, 15, 99)] == [
        range(1), range(2, 4), range(2, 4), range(4, 5), range(4, 5),
    ]  # fmt: skip
    assert wrong_events(EVENTS, record.changes) is None
    assert [record.places(revision) for revision in (12, 13, 14)] == [
        range(2, 3), range(2, 4), range(2, 4),
    ]  # fmt: skip


def test_a_store_that_goes_back_is_seen(record: Record) -> None:
    with pytest.raises(AssertionError, match="went back from 15 to 14"):
        record.told(14)


def test_right_events_may_be_some_of_those_owed(record: Record) -> None:
    for count in range(len(EVENTS) + 1):
        assert wrong_events(EVENTS[:count], record.changes) is None


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (EVENTS[1:], "event 0 is ADDED red/b at 12, not red/a at 11"),
        (EVENTS[:2] + EVENTS[3:], "not DELETED red/a"),
        (EVENTS[:2] + EVENTS[1:2], "not DELETED red/a"),
        ([EVENTS[0], EVENTS[2], EVENTS[1]], "not ADDED red/b"),
        ([*EVENTS, EVENTS[3]], "nothing was to come"),
        ([EVENTS[0], event("ADDED", "b", 12, "other")], "not red/b at 12"),
        ([*EVENTS[:2], event("DELETED", "a", 13, "other")], "the last state was red/a at 11"),
        ([*EVENTS[:2], event("DELETED", "a", 12, "1")], "behind revision 12"),
        ([event("MODIFIED", "a", 11, "1")], "not ADDED red/a"),
    ],
)
def test_wrong_events(record: Record, events: list[Object], said: str) -> None:
    assert said in (wrong_events(events, record.changes) or "")


def test_every_watch_must_show_a_deletion_at_the_same_revision(record: Record) -> None:
    assert wrong_events(EVENTS, record.changes) is None
    other = [*EVENTS[:2], event("DELETED", "a", 14, "1")]
    assert "it was deleted at 13" in (wrong_events(other, record.changes) or "")


def test_a_bookmark_ahead_of_an_event(record: Record) -> None:
    mark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "12"}}}
    assert wrong_bookmark([*EVENTS[:2], mark], record.changes) is None
    assert "before ADDED red/b" in (wrong_bookmark([EVENTS[0], mark], record.changes) or "")


def test_wrong_lists(record: Record) -> None:
    expected = [*record.at(2).values()]
    items = [{"kind": "ConfigMap", **item} for item in deepcopy(expected)]
    assert wrong_list(items, expected) is None
    assert wrong_list(items[:1], expected) == "1 items, not 2"
    assert wrong_list([*items, items[0]], expected) == "3 items, not 2"
    assert "item 0 is red/b" in (wrong_list(items[::-1], expected) or "")
    items[1]["data"]["v"] = "other"
    assert "item 1" in (wrong_list(items, expected) or "")


def test_what_is_owed_is_judged_in_order() -> None:
    changes = [Change("ADDED", thing("a", 5), 5), Change("ADDED", thing("b", 4), 4)]
    events = [event("ADDED", "a", 5), event("ADDED", "b", 4)]
    assert "behind revision 5" in (wrong_events(events, changes) or "")


LOG = """\
I1124 14:00:00.000001   12 server.go:1] fine 1
W1124 14:00:01.000001   12 watch.go:20] lost 127.0.0.1:2379 after 1.5s
E1124 14:00:02.000001   13 store.go:7] "no" at="0xc000" id=1b4e28ba-2fa1-11d2-883f-0016d3cca427
E1124 14:00:03.000001   13 store.go:9] "no" at="0xc001" id=1b4e28ba-2fa1-11d2-883f-0016d3cca428
\tat a.go:3
panic: runtime error
""".splitlines()


def test_complaints_are_compared_without_what_differs_anyway() -> None:
    found = complaints(LOG)
    assert found == {
        "W watch.go: lost <peer> after <duration>": 1,
        'E store.go: "no" at="<address>" id=<uid>': 2,
        "F runtime: panic: runtime error": 1,
    }
    assert errors(found) == {complaint for complaint in found if complaint[0] != "W"}
    assert complaints(["exec format error"]) == {"F runtime: exec format error": 1}
