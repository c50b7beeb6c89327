"""The model against what a real etcd 3.5.30 answered, request by request.

The facts are copied from a recorded conversation with etcd 3.5.30; each test is one stretch of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcdsim.errors import (
    ErrCompacted,
    ErrDuplicateKey,
    ErrEmptyKey,
    ErrFutureRev,
    ErrKeyNotFound,
    ErrLeaseNotFound,
    ErrLeaseProvided,
    ErrTooManyOps,
    ErrValueProvided,
    EtcdError,
)
from etcdsim.model import Event, KeyValue, Model, prefix_end, prefix_range
from etcdsim.txn import Compare, DeleteRange, Op, Put, Range, Txn

ALL = (b"\0", b"\0")


def keys(kvs: list[KeyValue]) -> list[bytes]:
    return [kv.key for kv in kvs]


@pytest.fixture
def model() -> Model:
    """The recorded store at revision 7: a (twice), b, c, d, e."""
    model = Model()
    for key, value in ((b"a", b"1"), (b"a", b"2"), *((k, b"v") for k in (b"b", b"c", b"d", b"e"))):
        model.put(key, value)
    return model


def test_the_empty_store() -> None:
    model = Model()
    assert model.range(*ALL) == ([], False, 0, 1)
    assert model.delete_range(b"missing") == (1, 0, [])
    assert model.put(b"a", b"1") == (2, None)
    assert model.put(b"a", b"1") == (3, KeyValue(b"a", b"1", 2, 2, 1))


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.range(b""),
        lambda model: model.scan(b""),
        lambda model: model.put(b"", b"x"),
        lambda model: model.delete_range(b""),
        lambda model: model.txn([Compare(b"", "MOD", "EQUAL", 0)], []),
        lambda model: model.txn([], [], [Range(b"")]),
    ],
)
def test_a_key_has_to_be_given(model: Model, call: Callable[[Model], object]) -> None:
    with pytest.raises(ErrEmptyKey, match=r"^etcdserver: key is not provided$") as caught:
        call(model)
    assert caught.value.code_name == "INVALID_ARGUMENT"
    assert model.revision == 7


@pytest.mark.parametrize(
    ("key", "range_end", "options", "expected"),
    [
        (*ALL, {"limit": 2}, (True, 5, [b"a", b"b"])),
        (*ALL, {"limit": 5}, (False, 5, [b"a", b"b", b"c", b"d", b"e"])),
        (*ALL, {"limit": 1, "count_only": True}, (False, 5, [])),
        (b"b", b"\0", {}, (False, 4, [b"b", b"c", b"d", b"e"])),
        (b"e", b"a", {}, (False, 0, [])),
        (b"a", b"a", {}, (False, 0, [])),
        (b"b", b"", {}, (False, 1, [b"b"])),
        (b"c", b"e", {"limit": 1}, (True, 2, [b"c"])),
        (*ALL, {"revision": -1}, (False, 5, [b"a", b"b", b"c", b"d", b"e"])),
        (*ALL, {"revision": 1}, (False, 0, [])),
        (*ALL, {"revision": 2}, (False, 1, [b"a"])),
    ],
)
def test_ranges(
    model: Model, key: bytes, range_end: bytes, options: dict[str, int],
    expected: tuple[bool, int, list[bytes]],
) -> None:  # fmt: skip
    kvs, more, count, revision = model.range(key, range_end, **options)  # type: ignore[arg-type]
    assert (more, count, keys(kvs)) == expected
    assert revision == 7  # the store's, not the one that was read


def test_a_range_at_a_revision_has_the_values_of_then(model: Model) -> None:
    assert model.range(*ALL, revision=2).kvs == [KeyValue(b"a", b"1", 2, 2, 1)]
    assert model.range(b"a").kvs == [KeyValue(b"a", b"2", 2, 3, 2)]
    assert model.range(b"a", keys_only=True).kvs == [KeyValue(b"a", b"", 2, 3, 2)]
    with pytest.raises(ErrFutureRev, match=r"^etcdserver: mvcc: required revision is a future rev"):
        model.range(*ALL, revision=8)


@pytest.mark.parametrize(
    ("ops", "error"),
    [
        ([Put(b"x", b"1"), Put(b"x", b"2")], ErrDuplicateKey),
        ([Put(b"x", b"1"), DeleteRange(b"w", b"z")], ErrDuplicateKey),
        ([DeleteRange(b"x"), Put(b"x", b"1")], ErrDuplicateKey),
        ([Txn(success=[DeleteRange(b"w", b"z")]), Put(b"x", b"1")], ErrDuplicateKey),
        ([Txn(success=[Put(b"x", b"1")]), Txn(failure=[Put(b"x", b"1")])], ErrDuplicateKey),
        ([Put(b"x", b"1", ignore_value=True)], ErrValueProvided),
        ([Put(b"x", b"", 7, ignore_lease=True)], ErrLeaseProvided),
        ([Txn(success=[Put(b"", b"")])], ErrEmptyKey),
        ([Txn(success=[Range(b"a")] * 64)] * 65, ErrTooManyOps),
        ([Range(b"a")] * 129, ErrTooManyOps),
        ([None], ErrKeyNotFound),
        ([Put(b"x", b"1"), Range(b"a", revision=8)], ErrFutureRev),
    ],
)
@pytest.mark.parametrize("taken", [True, False])
def test_a_refused_transaction_changes_nothing(
    model: Model, ops: list[Op], error: type[EtcdError], taken: bool
) -> None:
    # Each branch is checked whichever is taken, but ranges only where they are done.
    if error is ErrFutureRev and not taken:
        assert model.txn([], [], ops).revision == 7
        return
    with pytest.raises(error):
        model.txn([], ops) if taken else model.txn([], [], ops)
    assert model.revision == 7
    assert model.range(b"x").count == 0


def test_transactions_that_are_in_order(model: Model) -> None:
    assert model.txn([], [DeleteRange(b"x"), DeleteRange(b"x")]) == (
        True, [(7, 0, []), (7, 0, [])], 7,
    )  # fmt: skip
    assert len(model.txn([], [Range(b"a")] * 128).responses) == 128
    assert model.txn([], []) == (True, [], 7)
    assert model.txn([Compare(b"a", "MOD", "EQUAL", 99)], [Put(b"x", b"1")]) == (False, [], 7)
    assert model.txn([], [], [Put(b"x", b""), Put(b"x", b"")][:1]).revision == 7


def test_a_transaction_sees_its_own_writes(model: Model) -> None:
    n1 = KeyValue(b"n1", b"1", 8, 8, 1)
    result = model.txn([], [Put(b"n1", b"1"), Range(b"n1"), DeleteRange(b"e"), Range(*ALL)])
    put, found, deleted, everything = result.responses
    assert put == (8, None)
    assert found == ([n1], False, 1, 8)
    assert deleted == (8, 1, [KeyValue(b"e", b"v", 7, 7, 1)])
    assert keys(everything[0]) == [b"a", b"b", b"c", b"d", b"n1"]  # type: ignore[arg-type]
    assert (result.succeeded, result.revision, model.revision) == (True, 8, 8)
    assert [(e.kind, e.kv.key, e.kv.mod_revision) for e in model.events_at(8)] == [
        ("put", b"n1", 8), ("delete", b"e", 8),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Compare(b"zz", "VALUE", "NOT_EQUAL", b"x"), False),
        (Compare(b"zz", "VALUE", "EQUAL", b""), False),
        (Compare(b"zz", "VERSION", "EQUAL", 0), True),
        (Compare(b"zz", "MOD", "LESS", 1), True),
        (Compare(b"a", "VERSION", "GREATER", 0, b"\0"), True),
        (Compare(b"a", "VERSION", "EQUAL", 2, b"\0"), False),
        (Compare(b"x", "CREATE", "EQUAL", 0, b"z"), True),
        (Compare(b"x", "VALUE", "EQUAL", b"", b"z"), False),
        (Compare(b"a", "VALUE", "EQUAL", b"2"), True),
        (Compare(b"a", "CREATE", "EQUAL", 2), True),
        (Compare(b"a", "MOD", "GREATER", 3), False),
        (Compare(b"a", "VALUE", "LESS", b"3"), True),
    ],
)
def test_compares(model: Model, compare: Compare, holds: bool) -> None:
    assert model.txn([compare], []).succeeded is holds


def test_compares_are_all_needed(model: Model) -> None:
    true, false = Compare(b"a", "MOD", "EQUAL", 3), Compare(b"a", "MOD", "EQUAL", 4)
    assert model.txn([true, true], []).succeeded
    assert not model.txn([true, false], []).succeeded


def test_the_deletes_of_a_range_are_one_revision_in_key_order(model: Model) -> None:
    result = model.delete_range(b"b", b"e")
    assert result.revision == 8
    assert result.deleted == 3
    assert keys(result.prev_kvs) == [b"b", b"c", b"d"]
    tombstones = tuple(Event("delete", KeyValue(key, b"", 0, 8, 0)) for key in (b"b", b"c", b"d"))
    assert model.events_at(8) == tombstones
    assert model.put(b"b", b"again").prev_kv is None
    assert model.range(b"b").kvs == [KeyValue(b"b", b"again", 9, 9, 1)]


def test_keys_of_a_lease_go_at_one_revision_in_key_order(model: Model) -> None:
    assert keys(model.delete_keys([b"d", b"zz", b"a", b"d"]).prev_kvs) == [b"a", b"d"]
    assert model.revision == 8
    assert model.delete_keys([b"zz"]) == (8, 0, [])


def test_compaction(model: Model) -> None:
    for revision in range(8, 11):
        assert model.put(b"z", b"%d" % revision).revision == revision
    with pytest.raises(ErrFutureRev):
        model.compact(11)
    assert model.compact(0) == 10  # accepted once: the compact revision starts at -1
    with pytest.raises(ErrCompacted):
        model.compact(0)
    assert model.compact(9) == 10
    with pytest.raises(ErrCompacted, match=r"^etcdserver: mvcc: required revision has been compac"):
        model.compact(9)
    assert model.range(b"a", revision=9).count == 1
    for revision in (1, 8):
        with pytest.raises(ErrCompacted):
            model.range(b"a", revision=revision)
        with pytest.raises(ErrCompacted):
            model.txn([], [Range(b"a", revision=revision)])
        with pytest.raises(ErrCompacted):
            model.events_at(revision)


def test_a_tombstone_exactly_at_the_compact_revision_stays(model: Model) -> None:
    model.delete_range(b"a")
    model.put(b"a", b"new")
    model.compact(8)
    assert model.events_at(8) == (Event("delete", KeyValue(b"a", b"", 0, 8, 0)),)
    assert model.range(b"a", revision=8).count == 0
    assert model.range(b"a").kvs == [KeyValue(b"a", b"new", 9, 9, 1)]
    model.compact(9)
    assert list(model.events(9, 10)) == [(9, (Event("put", KeyValue(b"a", b"new", 9, 9, 1)),))]


def test_compaction_lets_go_of_old_records(model: Model) -> None:
    for number in range(1000):
        model.txn([], [Put(b"hot", b"%d" % number), Put(b"gone", b""), DeleteRange(b"b")])
        model.delete_range(b"gone")
    model.compact(model.revision)
    assert sum(len(records) for records in model._log.values()) < 12
    model.delete_range(b"\0", b"\0")
    model.put(b"last", b"")
    model.compact(model.revision)
    assert list(model._index) == [b"last"]


def test_prev_kv_is_what_was_there_unless_compacted(model: Model) -> None:
    a1, a2 = KeyValue(b"a", b"1", 2, 2, 1), KeyValue(b"a", b"2", 2, 3, 2)
    assert model.events_at(2, prev_kv=True) == (Event("put", a1),)
    assert model.events_at(3, prev_kv=True) == (Event("put", a2, a1),)
    model.delete_range(b"a")
    (event,) = model.events_at(8, prev_kv=True)
    assert event.prev_kv == a2
    model.compact(8)
    assert model.events_at(8, prev_kv=True) == (Event("delete", event.kv),)


def test_events_of_a_range(model: Model) -> None:
    model.txn([], [Put(b"a", b"3"), Put(b"m", b"1")])
    found = list(model.events(2, 9, b"b", b"n"))
    assert [(revision, [e.kv.key for e in events]) for revision, events in found] == [
        (4, [b"b"]), (5, [b"c"]), (6, [b"d"]), (7, [b"e"]), (8, [b"m"]),
    ]  # fmt: skip
    with pytest.raises(ErrFutureRev):
        model.events_at(9)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a", b"b"), (b"/r/", b"/r0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")],
)
def test_prefix_end(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end
    assert prefix_range(prefix) == (prefix or b"\0", end)


def test_a_scan_survives_writes_and_compactions_between_its_items(model: Model) -> None:
    for reverse in (False, True):
        before = list(model.scan(*ALL, reverse=reverse))
        scan = model.scan(*ALL, reverse=reverse)
        seen = [next(scan)]
        for number in range(200):
            model.put(b"a-%d-%d" % (number, reverse), b"new")
        model.delete_range(b"c", b"d\0")
        seen += scan
        assert seen == before
        model.put(b"c", b"v")
        model.put(b"d", b"v")
    scan = model.scan(*ALL, revision=7)
    next(scan)
    model.compact(8)
    with pytest.raises(ErrCompacted):
        list(scan)


# The rest as etcd 3.4.23 and 3.5.30 answer alike; the differential test compares more of it.


def test_a_put_into_a_deleted_range_without_an_end(model: Model) -> None:
    """etcd doesn't see that one; what comes last counts."""
    assert model.txn([], [DeleteRange(b"a", b"\0"), Put(b"x", b"1")]).revision == 8
    assert keys(model.range(*ALL).kvs) == [b"x"]
    assert model.txn([], [Put(b"y", b"1"), DeleteRange(b"\0", b"\0")]).revision == 9
    assert model.range(*ALL).count == 0
    model.compact(9)
    assert model.range(*ALL).count == 0


@pytest.mark.parametrize("revision", [8, 9])
def test_deleted_and_put_again_at_the_compact_revision(model: Model, revision: int) -> None:
    model.txn([], [DeleteRange(b"a", b"\0"), Put(b"a", b"again")])
    model.put(b"b", b"")
    model.compact(revision)
    assert model.range(b"a").kvs == [KeyValue(b"a", b"again", 8, 8, 1)]
    assert keys(model.range(*ALL, revision=revision).kvs) == [b"a", b"b"][: revision - 7]


def test_a_compaction_at_0_forgets_nothing(model: Model) -> None:
    model.delete_range(b"a")
    model.compact(0)
    assert model.range(b"a", revision=7).kvs == [KeyValue(b"a", b"2", 2, 3, 2)]


def test_older_versions_drop_tombstones_at_the_compact_revision() -> None:
    model = Model(keeps_tombstones=False)
    model.put(b"a", b"")
    model.delete_range(b"a")
    model.put(b"b", b"")
    model.compact(3)
    assert model.records_at(3) == ()
    assert model.range(*ALL, revision=3).count == 0


@pytest.mark.parametrize(
    ("options", "found", "more"),
    [
        ({"sort_order": "DESCEND"}, b"edcba", False),
        ({"sort_order": "DESCEND", "limit": 2}, b"ed", True),
        ({"sort_order": "ASCEND", "sort_target": "MOD", "limit": 5}, b"abcde", False),
        ({"sort_order": "DESCEND", "sort_target": "VERSION"}, b"abcde", False),
        ({"sort_order": "ASCEND", "sort_target": "VERSION", "limit": 1}, b"b", True),
        # In no order by something else than the key: the first keys and one more, then sorted.
        ({"sort_target": "VERSION", "limit": 2}, b"bc", True),
        ({"sort_target": "CREATE"}, b"abcde", False),
        ({"sort_order": "DESCEND", "sort_target": "VALUE", "limit": 1}, b"b", True),
        ({"min_mod_revision": 5, "limit": 2}, b"cd", True),
        ({"max_mod_revision": 5}, b"abc", False),
        ({"min_create_revision": 3, "max_create_revision": 4}, b"b", False),
        ({"max_mod_revision": -1}, b"", False),
        ({"limit": -1}, b"abcde", False),
    ],
)
def test_options_of_a_range(
    model: Model, options: dict[str, Any], found: bytes, more: bool
) -> None:
    result = model.do_range(Range(*ALL, **options))
    assert b"".join(keys(result.kvs)) == found
    assert (result.more, result.count) == (more, 5)


def test_what_a_put_may_keep(model: Model) -> None:
    kept = model.do_put(Put(b"a", b"", ignore_value=True))
    assert kept == (8, KeyValue(b"a", b"2", 2, 3, 2))
    assert model.range(b"a").kvs == [KeyValue(b"a", b"2", 2, 8, 3)]
    assert model.txn([], [Put(b"a", b"new", ignore_lease=True)]).succeeded
    for put in (Put(b"no", b"", ignore_value=True), Put(b"no", b"", ignore_lease=True)):
        for do in (model.do_put, lambda put: model.txn([], [put])):
            with pytest.raises(ErrKeyNotFound):
                do(put)
    both_wrong = Put(b"no", b"", 7, ignore_value=True)
    with pytest.raises(ErrLeaseNotFound):
        model.do_put(both_wrong)
    with pytest.raises(ErrKeyNotFound):  # here etcd looks for the key first
        model.txn([], [both_wrong])
    assert model.revision == 9


def test_a_negative_revision_inside_a_transaction(model: Model) -> None:
    assert model.txn([], [Range(b"a", revision=-1)]).revision == 7
    with pytest.raises(ErrCompacted):
        model.txn([], [Range(b"a", revision=-2)])


def test_compares_inside_see_the_state_before(model: Model) -> None:
    fresh = Compare(b"new", "VERSION", "EQUAL", 0)
    inner = Txn([fresh], [Range(b"new")], [Put(b"other", b"")])
    result = model.txn([], [Put(b"new", b"1"), inner])
    assert result.responses[1] == (True, [([KeyValue(b"new", b"1", 8, 8, 1)], False, 1, 8)], 8)
    nothing = model.txn([fresh], [Put(b"x", b"")], [Txn([fresh], [Put(b"y", b"")])])
    assert (nothing.succeeded, nothing.responses, nothing.revision) == (False, [(False, [], 8)], 8)


def test_who_hangs_on_which_lease(model: Model) -> None:
    calls: list[tuple[str, int, bytes]] = []

    class Lessor:
        def __contains__(self, lease: int) -> bool:
            return lease < 10

        def attach(self, lease: int, key: bytes) -> None:
            calls.append(("attach", lease, key))

        def detach(self, lease: int, key: bytes) -> None:
            calls.append(("detach", lease, key))

    model.lessor = Lessor()
    model.put(b"a", b"1", lease=7)
    model.txn([], [Put(b"a", b"2", lease=8), Put(b"b", b"", lease=8)])
    assert model.txn([Compare(b"a", "LEASE", "EQUAL", 8, b"c")], []).succeeded
    model.put(b"a", b"3")
    model.delete_range(b"b")
    assert calls == [
        ("attach", 7, b"a"),
        ("detach", 7, b"a"),
        ("attach", 8, b"a"),
        ("attach", 8, b"b"),
        ("detach", 8, b"a"),
        ("detach", 8, b"b"),
    ]
    with pytest.raises(ErrLeaseNotFound):
        model.put(b"a", b"4", lease=10)
    with pytest.raises(ErrLeaseNotFound):
        model.txn([], [Put(b"a", b"4", lease=10)])
