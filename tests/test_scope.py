"""Scopes: which live scopes a batch touches, what they note, what eviction costs them."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from btreecache.scope import SWEEP_MIN, Scopes
from tests.fakes import batch, put

KEYS = st.sampled_from([b"", b"/", b"a", b"a/", b"a/b", b"a/b/", b"a/b/c", b"a/bc", b"ab", b"b/a"])


def prefixes(scopes: Scopes, *keys: bytes, revision: int = 5) -> list[tuple[bytes, bool]]:
    touched = scopes.note(batch(revision, *(put(key, b"", revision) for key in keys)))
    return sorted((scope.prefix, scope.exact) for scope in touched)


@given(st.sets(st.tuples(KEYS, st.booleans())), st.lists(KEYS, min_size=1, max_size=4, unique=True))
def test_a_batch_touches_exactly_the_scopes_that_contain_one_of_its_keys(
    live: set[tuple[bytes, bool]], keys: list[bytes]
) -> None:
    scopes = Scopes()
    held = [scopes.enter(prefix, exact=exact, since=0) for prefix, exact in live]
    wanted = sorted(
        (prefix, exact)
        for prefix, exact in live
        if any(key == prefix if exact else key.startswith(prefix) for key in keys)
    )
    assert prefixes(scopes, *keys) == wanted
    for scope in held:
        assert any(key in scope for key in keys) == ((scope.prefix, scope.exact) in wanted)
        assert scope.revisions == ([5] if (scope.prefix, scope.exact) in wanted else [])


def test_one_scope_for_all_who_watch_the_same() -> None:
    scopes = Scopes()
    first = scopes.enter(b"a/", exact=False, since=3)
    assert scopes.enter(b"a/", exact=False, since=9) is first
    assert first.since == 3, "it notes more than the second asks for"
    assert scopes.enter(b"a/", exact=True, since=9) is not first


def test_next_after_and_eviction() -> None:
    scopes = Scopes()
    scope = scopes.enter(b"a/", exact=False, since=0)
    batches = [batch(revision, put(b"a/x", b"", revision)) for revision in (2, 4, 7, 9)]
    quiet = batch(5, put(b"b/x", b"", 5))
    for one in batches:
        scopes.note(one)
    scopes.note(quiet)
    assert [scope.next_after(position) for position in (0, 2, 3, 8, 9)] == [2, 4, 4, 9, None]
    for one in batches[:3]:
        scopes.forget(one)
    scopes.forget(quiet)
    assert scope.floor == 7
    assert scope.next_after(7) == 9
    assert len(scope.revisions) <= 2, "what was evicted takes no memory"


def test_a_scope_that_nobody_holds_is_forgotten() -> None:
    scopes = Scopes()
    held = scopes.enter(b"kept", exact=False, since=0)
    for number in range(10 * SWEEP_MIN):
        scopes.enter(b"n%d" % number, exact=number % 2 == 0, since=0)
    gc.collect()
    assert len(scopes) <= 2 * SWEEP_MIN + 2
    assert list(scopes) == [held]
    assert prefixes(scopes, b"n1", b"kept/x") == [(b"kept", False)]


def test_waking_is_for_the_touched_scope_only_and_survives_a_waiter_that_leaves() -> None:
    scopes = Scopes()
    one, other = (scopes.enter(prefix, exact=False, since=0) for prefix in (b"a/", b"b/"))
    heard = []

    def leave() -> None:
        heard.append("leave")
        one.waiters.discard(leave)

    one.waiters.add(leave)
    other.waiters.add(lambda: heard.append("other"))
    for scope in scopes.note(batch(2, put(b"a/x", b"", 2))):
        scope.wake()
        scope.wake()
    assert heard == ["leave"]
