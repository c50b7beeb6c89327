"""Auth, as a server answers whose authentication is off; users and roles are kept as data.

Nobody is ever asked for a token: enabling authentication is where the simulation ends.
"""

from __future__ import annotations

from typing import Any

from etcdsim import services, wire
from etcdsim.errors import (
    ErrAuthNotEnabled,
    ErrInvalidAuthMgmt,
    ErrPermissionNotGiven,
    ErrPermissionNotGranted,
    ErrRoleAlreadyExist,
    ErrRoleEmpty,
    ErrRoleNotFound,
    ErrRoleNotGranted,
    ErrRootUserNotExist,
    ErrUserAlreadyExist,
    ErrUserEmpty,
    ErrUserNotFound,
    EtcdError,
)
from etcdsim.server.member import Handlers, Member

_ROOT = "root"  # a role that every user may be granted without its being added


def auth_handlers(member: Member) -> Handlers:
    """What answers the methods of Auth; AuthStatus from 3.5 on."""
    auth = _Auth(member)
    handlers: Handlers = {
        services.AUTH_ENABLE: auth.enable,
        services.AUTH_DISABLE: auth.disable,
        wire.AUTHENTICATE: auth.authenticate,
        services.USER_ADD: auth.user_add,
        services.USER_GET: auth.user_get,
        services.USER_LIST: auth.user_list,
        services.USER_DELETE: auth.user_delete,
        services.USER_CHANGE_PASSWORD: auth.user_change_password,
        services.USER_GRANT_ROLE: auth.user_grant_role,
        services.USER_REVOKE_ROLE: auth.user_revoke_role,
        services.ROLE_ADD: auth.role_add,
        services.ROLE_GET: auth.role_get,
        services.ROLE_LIST: auth.role_list,
        services.ROLE_DELETE: auth.role_delete,
        services.ROLE_GRANT_PERMISSION: auth.role_grant_permission,
        services.ROLE_REVOKE_PERMISSION: auth.role_revoke_permission,
    }
    if member.version >= (3, 5):
        handlers[services.AUTH_STATUS] = auth.status
    return handlers


class _Auth:
    def __init__(self, member: Member) -> None:
        self._member = member
        self._accounts = member.accounts

    def _changed(self, method: wire.Method) -> Any:
        self._accounts.revision += 1
        return self._done(method)

    def _done(self, method: wire.Method, **fields: Any) -> Any:
        return method.response(header=self._member.header(), **fields)

    def _roles_of(self, user: str) -> list[str]:
        if user not in self._accounts.users:
            raise ErrUserNotFound
        return self._accounts.users[user]

    def _permissions_of(self, role: str) -> list[Any]:
        if role not in self._accounts.roles:
            raise ErrRoleNotFound
        return self._accounts.roles[role]

    def status(self, _: Any) -> Any:
        return self._done(services.AUTH_STATUS, authRevision=self._accounts.revision)

    def enable(self, _: Any) -> Any:
        if _ROOT not in self._accounts.users:
            raise ErrRootUserNotExist
        if _ROOT not in self._accounts.users[_ROOT]:
            raise EtcdError("FAILED_PRECONDITION", "etcdserver: root user does not have root role")
        raise EtcdError("UNIMPLEMENTED", "etcdsim: authentication stays off")

    def disable(self, _: Any) -> Any:
        return self._done(services.AUTH_DISABLE)

    def authenticate(self, _: Any) -> Any:
        raise ErrAuthNotEnabled

    def user_add(self, request: Any) -> Any:
        if not request.name:
            raise ErrUserEmpty
        if request.name in self._accounts.users:
            raise ErrUserAlreadyExist
        self._accounts.users[request.name] = []
        return self._changed(services.USER_ADD)

    def user_get(self, request: Any) -> Any:
        return self._done(services.USER_GET, roles=self._roles_of(request.name))

    def user_list(self, _: Any) -> Any:
        return self._done(services.USER_LIST, users=sorted(self._accounts.users))

    def user_delete(self, request: Any) -> Any:
        self._roles_of(request.name)
        del self._accounts.users[request.name]
        return self._changed(services.USER_DELETE)

    def user_change_password(self, request: Any) -> Any:
        """Nobody asks for the password, so nobody keeps it."""
        self._roles_of(request.name)
        return self._changed(services.USER_CHANGE_PASSWORD)

    def user_grant_role(self, request: Any) -> Any:
        roles = self._roles_of(request.user)
        if request.role != _ROOT:
            self._permissions_of(request.role)
        if request.role in roles:
            return self._done(services.USER_GRANT_ROLE)
        self._accounts.users[request.user] = sorted([*roles, request.role])
        return self._changed(services.USER_GRANT_ROLE)

    def user_revoke_role(self, request: Any) -> Any:
        roles = self._roles_of(request.name)
        if request.role not in roles:
            raise ErrRoleNotGranted
        roles.remove(request.role)
        return self._changed(services.USER_REVOKE_ROLE)

    def role_add(self, request: Any) -> Any:
        if not request.name:
            raise ErrRoleEmpty
        if request.name in self._accounts.roles:
            raise ErrRoleAlreadyExist
        self._accounts.roles[request.name] = []
        return self._changed(services.ROLE_ADD)

    def role_get(self, request: Any) -> Any:
        return self._done(services.ROLE_GET, perm=self._permissions_of(request.role))

    def role_list(self, _: Any) -> Any:
        return self._done(services.ROLE_LIST, roles=sorted(self._accounts.roles))

    def role_delete(self, request: Any) -> Any:
        self._permissions_of(request.role)
        del self._accounts.roles[request.role]
        for roles in self._accounts.users.values():
            if request.role in roles:
                roles.remove(request.role)
        return self._changed(services.ROLE_DELETE)

    def role_grant_permission(self, request: Any) -> Any:
        if not request.HasField("perm"):
            raise ErrPermissionNotGiven  # without it 3.4 crashes
        granted = request.perm
        endless = granted.range_end in (b"", b"\0")
        holds_keys = granted.key and (endless or granted.key < granted.range_end)
        if not holds_keys and self._member.version >= (3, 5):
            raise ErrInvalidAuthMgmt
        permissions = self._permissions_of(request.name)
        for permission in permissions:
            if (permission.key, permission.range_end) == (granted.key, granted.range_end):
                permission.permType = granted.permType
                break
        else:
            permissions.append(granted)
            permissions.sort(key=lambda permission: bytes(permission.key))
        return self._changed(services.ROLE_GRANT_PERMISSION)

    def role_revoke_permission(self, request: Any) -> Any:
        permissions = self._permissions_of(request.role)
        revoked = request.key, request.range_end
        left = [kept for kept in permissions if (kept.key, kept.range_end) != revoked]
        if len(left) == len(permissions):
            raise ErrPermissionNotGranted
        self._accounts.roles[request.role] = left
        return self._changed(services.ROLE_REVOKE_PERMISSION)
