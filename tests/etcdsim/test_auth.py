"""Who may do what: the rules alone, without a server. `tests/interop/test_etcdsim_stories.py` holds
them against a real etcd, over the wire."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from etcdsim import auth as auths
from etcdsim.auth import READ, READWRITE, WRITE, Auth, Permission, hash_password
from etcdsim.errors import (
    ErrAuthFailed,
    ErrAuthNotEnabled,
    ErrInvalidAuthMgmt,
    ErrInvalidAuthToken,
    ErrNoPasswordUser,
    ErrPermissionDenied,
    ErrRootRoleNotExist,
    ErrRootUserNotExist,
    ErrUserEmpty,
    EtcdError,
)

KEYS = [b"a", b"b", b"c", b"d"]


def new_auth() -> Auth:
    """With root, and ann who has no rights yet; on."""
    auth = Auth(itertools.count(1 << 40).__next__)
    auth.add_user("root", hash_password("pwd", b"1"))
    auth.grant_role("root", "root")
    auth.add_user("ann", hash_password("secret", b"2"))
    auth.add_role("reader")
    auth.grant_role("ann", "reader")
    auth.enable()
    return auth


def login(auth: Auth, name: str, password: str) -> str:
    token = auth.authenticate(name, password)
    auth.admit(token, name)
    return token


@pytest.fixture(scope="module", autouse=True)
def _cheap() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auths, "_ROUNDS", 1)
        yield


def is_allowed(check: Callable[[], None]) -> bool:
    try:
        check()
    except ErrPermissionDenied:
        return False
    return True


def test_ranges_are_covered_by_permissions_together() -> None:
    """Every pair of permissions on four keys, and every range: as key by key."""
    ends = [b"", *KEYS, auths.ENDLESS]
    ranges = list(itertools.product(KEYS, ends))
    probes = [key + tail for key in KEYS for tail in (b"", b"\0", b"z")]

    def holds(key: bytes, range_end: bytes, probe: bytes) -> bool:
        if not range_end:
            return probe == key
        return key <= probe and (range_end == auths.ENDLESS or probe < range_end)

    checked = 0
    for first, second in itertools.combinations(ranges, 2):
        auth = new_auth_of(first, second)
        for key, range_end in ranges:
            asked = [probe for probe in probes if holds(key, range_end, probe)] or [key]
            expected = all(holds(*first, probe) or holds(*second, probe) for probe in asked)
            allowed = is_allowed(lambda: auth.check("ann", READ, key, range_end))
            assert allowed == expected, (first, second, key, range_end)
            checked += allowed
    assert checked > 500


def new_auth_of(*ranges: tuple[bytes, bytes]) -> Auth:
    auth = Auth(itertools.count(1).__next__)
    auth.users["ann"] = auths.User(roles=["reader"])
    auth.roles["reader"] = [Permission(*held, READ) for held in ranges]
    auth.enabled = True
    return auth


def test_reading_is_not_writing() -> None:
    auth = new_auth()
    for key, kind in ((b"r", READ), (b"w", WRITE), (b"x", READWRITE)):
        auth.grant_permission("reader", Permission(key, b"", kind))
    allowed = {
        (key, kind): is_allowed(lambda: auth.check("ann", kind, key))
        for key in (b"r", b"w", b"x", b"other")
        for kind in (READ, WRITE)
    }
    assert {asked for asked, is_so in allowed.items() if is_so} == {
        (b"r", READ), (b"w", WRITE), (b"x", READ), (b"x", WRITE),
    }  # fmt: skip
    auth.check("root", WRITE, b"", auths.ENDLESS)


def test_nobody_is_asked_while_it_is_off() -> None:
    auth = Auth(itertools.count(1).__next__)
    auth.check(None, WRITE, b"k")
    auth.check_admin(None)
    with pytest.raises(ErrAuthNotEnabled):
        auth.authenticate("root", "pwd")
    with pytest.raises(ErrRootUserNotExist):
        auth.enable()
    auth.add_user("root", "")
    with pytest.raises(ErrRootRoleNotExist):
        auth.enable()
    auth.grant_role("root", "root")
    auth.enable()
    for check in (lambda: auth.check(None, READ, b"k"), lambda: auth.check_admin(None)):
        with pytest.raises(ErrUserEmpty):
            check()


def test_tokens_end() -> None:
    auth = new_auth()
    tokens = [login(auth, "ann", "secret") for _ in range(3)]
    root = login(auth, "root", "pwd")
    assert len({*tokens, root}) == 4
    assert {len(token) for token in tokens} == {16}
    assert [auth.user_of(token) for token in (*tokens, root)] == ["ann"] * 3 + ["root"]
    auth.change_password("ann", hash_password("new", b"3"))
    for token in (*tokens, ""):
        with pytest.raises(ErrInvalidAuthToken):
            auth.user_of(token)
    for password in ("secret", ""):
        with pytest.raises(ErrAuthFailed):
            auth.authenticate("ann", password)
    again = login(auth, "ann", "new")
    auth.delete_user("ann")
    with pytest.raises(ErrInvalidAuthToken):
        auth.user_of(again)
    assert auth.user_of(root) == "root"
    auth.disable()
    auth.enable()
    with pytest.raises(ErrInvalidAuthToken):
        auth.user_of(root)


def test_who_has_no_password_gets_none_by_a_change() -> None:
    auth = new_auth()
    auth.add_user("open", "")
    auth.change_password("open", hash_password("x", b"4"))
    with pytest.raises(ErrNoPasswordUser):
        auth.authenticate("open", "x")


def test_root_stays() -> None:
    auth = new_auth()
    auth.add_role("root")
    refused: list[Callable[[], None]] = [
        lambda: auth.delete_user("root"),
        lambda: auth.revoke_role("root", "root"),
        lambda: auth.delete_role("root"),
    ]
    revision = auth.revision
    for change in refused:
        with pytest.raises(ErrInvalidAuthMgmt):
            change()
    assert auth.revision == revision
    auth.disable()
    for change in refused[1:]:
        change()
    assert auth.revision == revision + 3


def test_every_change_is_a_revision_and_no_failure_is() -> None:
    auth = new_auth()
    auth.revision = 1
    changes: list[tuple[Callable[[], None], int]] = [
        (lambda: auth.add_user("bob", ""), 1), (lambda: auth.add_user("bob", ""), 0),
        (lambda: auth.grant_role("bob", "reader"), 1),
        (lambda: auth.grant_role("bob", "reader"), 0),
        (lambda: auth.grant_role("bob", "none"), 0), (lambda: auth.revoke_role("bob", "root"), 0),
        (lambda: auth.grant_permission("reader", Permission(b"b", b"", READ)), 1),
        (lambda: auth.grant_permission("reader", Permission(b"a", b"", READ)), 1),
        (lambda: auth.grant_permission("reader", Permission(b"b", b"", WRITE)), 1),
        (lambda: auth.revoke_permission("reader", b"a", b"b"), 0),
        (auth.enable, 0),
    ]  # fmt: skip
    for change, grown in changes:
        before = auth.revision
        try:
            change()
        except EtcdError:
            assert not grown
        assert auth.revision == before + grown
    assert [(one.key, one.kind) for one in auth.role("reader")] == [(b"a", READ), (b"b", WRITE)]
    auth.delete_role("reader")
    assert [auth.user(name).roles for name in ("ann", "bob")] == [[], []]
