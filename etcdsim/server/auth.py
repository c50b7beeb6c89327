"""The Auth service: `etcdsim.auth` on the wire."""

from __future__ import annotations

from typing import Any

from etcdsim import services, wire
from etcdsim.auth import ENDLESS, Permission, hash_password
from etcdsim.errors import ErrInvalidAuthMgmt, ErrPermissionNotGiven, EtcdError
from etcdsim.server.member import Handlers, Member, Unary

_PASSWORD_BYTES_MAX = 72  # that bcrypt takes


def auth_handlers(member: Member) -> Handlers:
    """What answers the methods of Auth; AuthStatus from 3.5 on. For those that are
    given a password `keep_passwords` comes first."""
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


def keep_passwords(member: Member, handlers: Handlers) -> Handlers:
    """The same, but what is given a password is handed what is kept of it, and never sees it."""

    def keeping(answer: Any) -> Unary:
        def kept(request: Any) -> Any:
            password = request.password
            if len(password.encode()) > _PASSWORD_BYTES_MAX and member.version >= (3, 5):
                raise EtcdError("UNKNOWN", "bcrypt: password length exceeds 72 bytes")
            request.ClearField("password")
            request.hashedPassword = hash_password(password, member.auth.new_salt())
            return answer(request)

        return kept

    given = (services.USER_ADD, services.USER_CHANGE_PASSWORD)
    return handlers | {method: keeping(handlers[method]) for method in given}


class _Auth:
    def __init__(self, member: Member) -> None:
        self._member = member
        self._auth = member.auth

    def _done(self, method: wire.Method, **fields: Any) -> Any:
        return method.response(header=self._member.header(), **fields)

    def status(self, _: Any) -> Any:
        auth = self._auth
        return self._done(services.AUTH_STATUS, enabled=auth.enabled, authRevision=auth.revision)

    def enable(self, _: Any) -> Any:
        self._auth.enable()
        return self._done(services.AUTH_ENABLE)

    def disable(self, _: Any) -> Any:
        self._auth.disable()
        return self._done(services.AUTH_DISABLE)

    def authenticate(self, request: Any) -> Any:
        letters = self._auth.authenticate(request.name, request.password)
        token = f"{letters}.{self._member.raft_index}"
        self._auth.admit(token, request.name)
        return self._done(wire.AUTHENTICATE, token=token)

    def user_add(self, request: Any) -> Any:
        kept = "" if request.options.no_password else request.hashedPassword
        self._auth.add_user(request.name, kept)
        return self._done(services.USER_ADD)

    def user_get(self, request: Any) -> Any:
        return self._done(services.USER_GET, roles=self._auth.user(request.name).roles)

    def user_list(self, _: Any) -> Any:
        return self._done(services.USER_LIST, users=sorted(self._auth.users))

    def user_delete(self, request: Any) -> Any:
        self._auth.delete_user(request.name)
        return self._done(services.USER_DELETE)

    def user_change_password(self, request: Any) -> Any:
        self._auth.change_password(request.name, request.hashedPassword)
        return self._done(services.USER_CHANGE_PASSWORD)

    def user_grant_role(self, request: Any) -> Any:
        self._auth.grant_role(request.user, request.role)
        return self._done(services.USER_GRANT_ROLE)

    def user_revoke_role(self, request: Any) -> Any:
        self._auth.revoke_role(request.name, request.role)
        return self._done(services.USER_REVOKE_ROLE)

    def role_add(self, request: Any) -> Any:
        self._auth.add_role(request.name)
        return self._done(services.ROLE_ADD)

    def role_get(self, request: Any) -> Any:
        permissions = self._auth.role(request.role)
        perm = [{"permType": p.kind, "key": p.key, "range_end": p.range_end} for p in permissions]
        return self._done(services.ROLE_GET, perm=perm)

    def role_list(self, _: Any) -> Any:
        return self._done(services.ROLE_LIST, roles=sorted(self._auth.roles))

    def role_delete(self, request: Any) -> Any:
        self._auth.delete_role(request.role)
        return self._done(services.ROLE_DELETE)

    def role_grant_permission(self, request: Any) -> Any:
        if not request.HasField("perm"):
            raise ErrPermissionNotGiven  # without it 3.4 crashes
        granted = request.perm
        endless = granted.range_end in (b"", ENDLESS)
        holds_keys = granted.key and (endless or granted.key < granted.range_end)
        if not holds_keys and self._member.version >= (3, 5):
            raise ErrInvalidAuthMgmt
        permission = Permission(granted.key, granted.range_end, granted.permType)
        self._auth.grant_permission(request.name, permission)
        return self._done(services.ROLE_GRANT_PERMISSION)

    def role_revoke_permission(self, request: Any) -> Any:
        self._auth.revoke_permission(request.role, request.key, request.range_end)
        return self._done(services.ROLE_REVOKE_PERMISSION)
