"""Auth: users, roles and their permissions, tokens, and who may do what. Pure: no I/O, no clock;
randomness is an argument.

As etcd's simple tokens: a token is its user's name for as long as the server runs, its user has
this password, and authentication stays on. Passwords are kept as salted PBKDF2 digests.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from etcdsim.errors import (
    ErrAuthFailed,
    ErrAuthNotEnabled,
    ErrInvalidAuthMgmt,
    ErrInvalidAuthToken,
    ErrNoPasswordUser,
    ErrPermissionDenied,
    ErrPermissionNotGranted,
    ErrRoleAlreadyExist,
    ErrRoleEmpty,
    ErrRoleNotFound,
    ErrRoleNotGranted,
    ErrRootRoleNotExist,
    ErrRootUserNotExist,
    ErrUserAlreadyExist,
    ErrUserEmpty,
    ErrUserNotFound,
)

READ, WRITE, READWRITE = 0, 1, 2  # of authpb.Permission.Type
ROOT = "root"  # a user; and a role that may do everything, granted without its being added
ENDLESS = b"\0"  # as a range end
_ROUNDS = 10_000  # of PBKDF2: 5 ms of the event loop; what a simulation guards is no secret
_SALT_BYTES = 16
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOKEN_LETTERS = 16


def hash_password(password: str, salt: bytes) -> str:
    """What is kept of a password. O(10,000 hashes)."""
    salt = salt.rjust(_SALT_BYTES, b"\0")[-_SALT_BYTES:]
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
    return b64encode(salt + digest).decode()


def _matches(password: str, kept: str) -> bool:
    salt = b64decode(kept)[:_SALT_BYTES]
    return hmac.compare_digest(hash_password(password, salt), kept)


@dataclass(slots=True)
class User:
    """`password`: as `hash_password` makes it; empty for a user who can't log in by one."""

    password: str = ""
    roles: list[str] = field(default_factory=list)  # sorted


@dataclass(slots=True)
class Permission:
    """What a role may do with the keys of a range. `kind`: READ, WRITE or READWRITE."""

    key: bytes
    range_end: bytes
    kind: int

    def allows(self, kind: int) -> bool:
        """Whether it is for reading, or for writing."""
        return self.kind in (kind, READWRITE)


class Auth:
    """The users and roles of a member, and the tokens that it gave out. One thread.

    `new_number`: a positive int64 at random. Every method but those that ask raises what etcd
    answers; a change adds one to `revision`, which is not the store's.
    """

    def __init__(self, new_number: Callable[[], int]) -> None:
        self._new_number = new_number
        self.users: dict[str, User] = {}
        self.roles: dict[str, list[Permission]] = {}  # by key
        self.revision = 1
        self.enabled = False
        self._tokens: dict[str, str] = {}  # -> the name of a user

    # On and off

    def enable(self) -> None:
        """From now on everybody is asked who they are. That is no change. Raises
        ErrRootUserNotExist, ErrRootRoleNotExist."""
        if ROOT not in self.users:
            raise ErrRootUserNotExist
        if ROOT not in self.users[ROOT].roles:
            raise ErrRootRoleNotExist
        self.enabled = True

    def disable(self) -> None:
        """Ask nobody any more, and forget all tokens."""
        if self.enabled:
            self.enabled = False
            self._tokens.clear()
            self.revision += 1

    def authenticate(self, name: str, password: str) -> str:
        """The letters of a new token. Raises ErrAuthNotEnabled, ErrAuthFailed,
        ErrNoPasswordUser."""
        if not self.enabled:
            raise ErrAuthNotEnabled
        user = self.users.get(name)
        if user is None:
            raise ErrAuthFailed
        if not user.password:
            raise ErrNoPasswordUser
        if not _matches(password, user.password):
            raise ErrAuthFailed
        number, letters = self._new_number() << 63 | self._new_number(), ""
        for _ in range(_TOKEN_LETTERS):
            number, letter = divmod(number, len(_LETTERS))
            letters += _LETTERS[letter]
        return letters

    def admit(self, token: str, name: str) -> None:
        """Take a token for its user from now on."""
        self._tokens[token] = name

    def user_of(self, token: str) -> str:
        """Whose token it is. Raises ErrInvalidAuthToken."""
        if token not in self._tokens:
            raise ErrInvalidAuthToken
        return self._tokens[token]

    def new_salt(self) -> bytes:
        """A salt for a password."""
        return self._new_number().to_bytes(8, "big") + self._new_number().to_bytes(8, "big")

    def _drop_tokens(self, name: str) -> None:
        self._tokens = {token: owner for token, owner in self._tokens.items() if owner != name}

    # Users

    def user(self, name: str) -> User:
        """Raises ErrUserNotFound."""
        if name not in self.users:
            raise ErrUserNotFound
        return self.users[name]

    def add_user(self, name: str, password: str) -> None:
        """`password`: as a User keeps it. Raises ErrUserEmpty, ErrUserAlreadyExist."""
        if not name:
            raise ErrUserEmpty
        if name in self.users:
            raise ErrUserAlreadyExist
        self.users[name] = User(password)
        self.revision += 1

    def delete_user(self, name: str) -> None:
        """Raises ErrInvalidAuthMgmt for root while authentication is on; ErrUserNotFound."""
        if self.enabled and name == ROOT:
            raise ErrInvalidAuthMgmt
        self.user(name)
        del self.users[name]
        self._drop_tokens(name)
        self.revision += 1

    def change_password(self, name: str, password: str) -> None:
        """Who can't log in by a password still can't. Raises ErrUserNotFound."""
        user = self.user(name)
        if user.password:
            user.password = password
        self._drop_tokens(name)
        self.revision += 1

    def grant_role(self, name: str, role: str) -> None:
        """Nothing changes if the user has it. Raises ErrUserNotFound, ErrRoleNotFound."""
        user = self.user(name)
        if role != ROOT:
            self.role(role)
        if role not in user.roles:
            insort(user.roles, role)
            self.revision += 1

    def revoke_role(self, name: str, role: str) -> None:
        """Raises ErrInvalidAuthMgmt for that of root while authentication is on; ErrUserNotFound,
        ErrRoleNotGranted."""
        if self.enabled and name == role == ROOT:
            raise ErrInvalidAuthMgmt
        roles = self.user(name).roles
        if role not in roles:
            raise ErrRoleNotGranted
        roles.remove(role)
        self.revision += 1

    # Roles

    def role(self, name: str) -> list[Permission]:
        """The permissions of a role, by key. Raises ErrRoleNotFound."""
        if name not in self.roles:
            raise ErrRoleNotFound
        return self.roles[name]

    def add_role(self, name: str) -> None:
        """Raises ErrRoleEmpty, ErrRoleAlreadyExist."""
        if not name:
            raise ErrRoleEmpty
        if name in self.roles:
            raise ErrRoleAlreadyExist
        self.roles[name] = []
        self.revision += 1

    def delete_role(self, name: str) -> None:
        """Users who have it have it no more. Raises ErrInvalidAuthMgmt for root's while
        authentication is on; ErrRoleNotFound."""
        if self.enabled and name == ROOT:
            raise ErrInvalidAuthMgmt
        self.role(name)
        del self.roles[name]
        for user in self.users.values():
            if name in user.roles:
                user.roles.remove(name)
        self.revision += 1

    def grant_permission(self, name: str, granted: Permission) -> None:
        """In place of the one that the role has for this very range. Raises ErrRoleNotFound."""
        permissions = self.role(name)
        for permission in permissions:
            if (permission.key, permission.range_end) == (granted.key, granted.range_end):
                permission.kind = granted.kind
                break
        else:
            insort(permissions, granted, key=lambda permission: permission.key)
        self.revision += 1

    def revoke_permission(self, name: str, key: bytes, range_end: bytes) -> None:
        """Raises ErrRoleNotFound, ErrPermissionNotGranted."""
        permissions = self.role(name)
        left = [kept for kept in permissions if (kept.key, kept.range_end) != (key, range_end)]
        if len(left) == len(permissions):
            raise ErrPermissionNotGranted
        self.roles[name] = left
        self.revision += 1

    # Who may do what. Without authentication everybody may; `name` None: nobody has said who.

    def check_known(self, name: str | None) -> None:
        """Raises ErrUserEmpty."""
        if self.enabled and not name:
            raise ErrUserEmpty

    def check_admin(self, name: str | None) -> None:
        """Whether a user has the role root. Raises ErrUserEmpty, ErrPermissionDenied."""
        self.check_known(name)
        if self.enabled and not self._is_root(name):
            raise ErrPermissionDenied

    def check(self, name: str | None, kind: int, key: bytes, range_end: bytes = b"") -> None:
        """Whether a user may READ or WRITE every key of a range. O(permissions of the user).
        Raises as `check_admin`."""
        self.check_known(name)
        if not self.enabled or self._is_root(name):
            return
        assert name is not None
        granted = [
            permission
            for role in (self.users[name].roles if name in self.users else ())
            for permission in self.roles.get(role, ())
            if permission.key and permission.allows(kind)  # without a key, as 3.4 takes it: of none
        ]
        if not _covers(granted, key, range_end):
            raise ErrPermissionDenied

    def _is_root(self, name: str | None) -> bool:
        return name in self.users and ROOT in self.users[name].roles


def _bounds(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    """The first key of a range, and the first behind it; None: there is none."""
    if range_end == ENDLESS:
        return key, None
    return key, range_end or key + b"\0"


def _covers(granted: Iterable[Permission], key: bytes, range_end: bytes) -> bool:
    """Whether the ranges cover another one together; one that can hold no key is covered where
    its first key is."""
    low, high = _bounds(key, range_end)
    if high is not None and high <= low:
        high = low + b"\0"
    for permission in sorted(granted, key=lambda permission: permission.key):
        start, stop = _bounds(permission.key, permission.range_end)
        if start > low:
            return False
        if stop is None:
            return True
        low = max(low, stop)
        if high is not None and low >= high:
            return True
    return False
