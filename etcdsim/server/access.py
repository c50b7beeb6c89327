"""Access: whether the user of a call may make it, while authentication is on.

What is asked for differs by version: up to 2026 etcd let anybody call much of Lease, Maintenance
and Cluster, and looked neither into transactions inside others nor at what a put in one reads or
hangs itself on. 3.4.44, 3.5.30 and 3.6.11 and what comes later don't.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from etcdsim import services, wire
from etcdsim.auth import READ, WRITE
from etcdsim.errors import ErrEmptyKey, ErrInvalidAuthToken, EtcdError
from etcdsim.lease import Lessor
from etcdsim.model import ALL, prefix_range
from etcdsim.server.electing import check_leader
from etcdsim.server.member import Member
from etcdsim.server.messages import put_of, range_of, txn_of
from etcdsim.txn import check_put, check_range, check_txn

_User = str | None  # None: the call came without a token
_Check = Callable[[_User, Any], None]

#: Whose errors etcd doesn't translate.
_UNTRANSLATED = {
    method.path
    for method in (services.DEFRAGMENT, services.HASH, services.HASH_KV, services.SNAPSHOT)
}
#: What a client inside the server does: its errors are text to it.
_BY_CLIENT = {
    method.path
    for method in (
        *(services.LOCK, services.UNLOCK, services.CAMPAIGN, services.PROCLAIM),
        *(services.RESIGN, services.LEADER),
    )
}
_ADMIN = (
    *(services.AUTH_ENABLE, services.AUTH_DISABLE, services.AUTH_STATUS),
    *(services.USER_ADD, services.USER_LIST, services.USER_DELETE),
    *(services.USER_CHANGE_PASSWORD, services.USER_GRANT_ROLE, services.USER_REVOKE_ROLE),
    *(services.ROLE_ADD, services.ROLE_LIST, services.ROLE_DELETE),
    *(services.ROLE_GRANT_PERMISSION, services.ROLE_REVOKE_PERMISSION),
    *(services.DEFRAGMENT, services.HASH, services.HASH_KV, services.SNAPSHOT),
    *(services.MEMBER_ADD, services.MEMBER_REMOVE, services.MEMBER_UPDATE),
)


class Access:
    """Knows who may do what on a member. `lessor`: the one of its model."""

    def __init__(self, member: Member, lessor: Lessor) -> None:
        self._member, self._auth, self._lessor = member, member.auth, lessor
        version = member.version
        self._strict = version >= (3, 6)
        self._wide = version >= (3, 6, 11) or (
            (3, 4, 44) <= version < (3, 5) or (3, 5, 30) <= version < (3, 6)
        )
        self._checks = self._by_path()

    def _by_path(self) -> dict[str, _Check]:
        checks: dict[wire.Method, _Check] = {
            **dict.fromkeys(_ADMIN, self._admin),
            wire.RANGE: self._range,
            services.RANGE_STREAM: self._range,
            wire.PUT: self._put,
            wire.DELETE_RANGE: self._delete_range,
            wire.TXN: self._txn,
            wire.COMPACT: self._with_token,
            wire.WATCH: self._watch,
            services.LEASE_GRANT: self._with_token,
            services.LEASE_REVOKE: self._revoke,
            services.ALARM: self._with_token,
            services.USER_GET: self._user_get,
            services.ROLE_GET: self._role_get,
            services.LOCK: self._lock,
            services.UNLOCK: self._delete_range,
            services.CAMPAIGN: self._lock,
            services.PROCLAIM: self._lead,
            services.RESIGN: self._lead,
            services.LEADER: self._leader,
        }
        if self._wide:
            checks |= {
                **dict.fromkeys((wire.COMPACT, wire.STATUS, services.MOVE_LEADER), self._admin),
                **dict.fromkeys((services.LEASE_GRANT, services.MEMBER_LIST), self._known),
                services.LEASE_TIME_TO_LIVE: self._time_to_live,
                services.LEASE_LEASES: self._leases,
                services.LEASE_KEEP_ALIVE: self._revoke,
                services.ALARM: self._alarm,
            }
        return {method.path: check for method, check in checks.items()}

    def check(self, method: wire.Method, request: Any, metadata: Mapping[str, str]) -> None:
        """Raises what etcd answers to who may not make this call. For Watch `request` is that for
        one watch."""
        check = self._checks.get(method.path)
        token = metadata.get("token") or metadata.get("authorization")
        # 3.4 looks at a token also when it asks for none.
        if check is None or not (self._auth.enabled or (token and self._member.version < (3, 5))):
            return
        try:
            self._check_shape(method, request)
            check(self._auth.user_of(token) if token else None, request)
        except EtcdError as error:
            raw = method is services.ALARM and isinstance(error, ErrInvalidAuthToken)
            if method.path in _UNTRANSLATED or (raw and not self._wide):
                text = error.text.replace("etcdserver", "auth", 1)
                raise EtcdError("UNKNOWN", text) from None
            if method.path in _BY_CLIENT:
                raise EtcdError("UNKNOWN", error.text) from None
            raise

    def _check_shape(self, method: wire.Method, request: Any) -> None:
        """What makes a request invalid whoever sends it comes first."""
        if method is wire.RANGE:
            check_range(range_of(request, self._strict))
        elif method is wire.PUT:
            check_put(put_of(request))
        elif method is wire.TXN:
            check_txn(txn_of(request, self._strict))
        elif method in (wire.DELETE_RANGE, services.UNLOCK) and not request.key:
            raise ErrEmptyKey
        elif method in (services.PROCLAIM, services.RESIGN):
            check_leader(request)

    def _with_token(self, user: _User, request: Any) -> None:
        """Anybody whose token is one."""

    def _known(self, user: _User, request: Any) -> None:
        self._auth.check_known(user)

    def _admin(self, user: _User, request: Any) -> None:
        self._auth.check_admin(user)

    # KV and Watch

    def _range(self, user: _User, request: Any) -> None:
        self._auth.check(user, READ, request.key, request.range_end)

    def _put(self, user: _User, request: Any) -> None:
        self._auth.check(user, WRITE, request.key)
        self._revoke_of(user, request.lease)
        if request.prev_kv:
            self._auth.check(user, READ, request.key)

    def _delete_range(self, user: _User, request: Any) -> None:
        self._auth.check(user, WRITE, request.key, getattr(request, "range_end", b""))
        if getattr(request, "prev_kv", False):
            self._range(user, request)

    def _txn(self, user: _User, request: Any) -> None:
        for compare in request.compare:
            self._range(user, compare)
        for op in (*request.success, *request.failure):
            match op.WhichOneof("request"):
                case "request_range":
                    self._range(user, op.request_range)
                case "request_put" if self._wide:
                    self._put(user, op.request_put)
                case "request_put":
                    self._auth.check(user, WRITE, op.request_put.key)
                case "request_delete_range":
                    self._delete_range(user, op.request_delete_range)
                case "request_txn" if self._wide:
                    self._txn(user, op.request_txn)

    def _watch(self, user: _User, request: Any) -> None:
        # A watch without an end is only asked for its first key (etcd's GHSA-xg4h-6gfc-h4m8).
        range_end = b"" if request.range_end == ALL else request.range_end
        self._auth.check(user, READ, request.key or ALL, range_end)

    # Leases: who ends one deletes what hangs on it.

    def _revoke_of(self, user: _User, lease: int) -> None:
        for key in self._lessor.keys_on(lease):
            self._auth.check(user, WRITE, key)

    def _revoke(self, user: _User, request: Any) -> None:
        if self._wide:
            self._auth.check_known(user)
        self._revoke_of(user, request.ID)

    def _time_to_live(self, user: _User, request: Any) -> None:
        self._auth.check_known(user)
        if request.keys:
            self._read_of(user, request.ID)

    def _read_of(self, user: _User, lease: int) -> None:
        for key in self._lessor.keys_on(lease):
            self._auth.check(user, READ, key)

    def _leases(self, user: _User, request: Any) -> None:
        self._auth.check_known(user)
        for lease in self._lessor.leases():
            self._read_of(user, lease.lease_id)

    # Others

    def _alarm(self, user: _User, request: Any) -> None:
        if request.action:
            self._auth.check_admin(user)
        self._auth.check_known(user)

    def _user_get(self, user: _User, request: Any) -> None:
        if user != request.name:
            self._auth.check_admin(user)

    def _role_get(self, user: _User, request: Any) -> None:
        known = self._auth.users.get(user or "")
        if known is None or request.role not in known.roles:
            self._auth.check_admin(user)

    # What etcd's own client does for Lock and Election

    def _lock(self, user: _User, request: Any) -> None:
        self._leader(user, request)
        self._auth.check(user, WRITE, request.name + b"/")

    def _leader(self, user: _User, request: Any) -> None:
        self._auth.check(user, READ, *prefix_range(request.name + b"/"))

    def _lead(self, user: _User, request: Any) -> None:
        for kind in (READ, WRITE) if request.leader.key else ():
            self._auth.check(user, kind, request.leader.key)
