"""The errors of the etcd API: gRPC code name and exact text.

Clients match on the text (etcd `api/v3rpc/rpctypes/error.go`), so it must not change.
"""

from __future__ import annotations


class EtcdError(Exception):
    """What etcd answers instead of a result."""

    def __init__(self, code_name: str, text: str) -> None:
        super().__init__(text)
        self.code_name, self.text = code_name, text


class _InvalidArgument(EtcdError):
    said = ""

    def __init__(self) -> None:
        super().__init__("INVALID_ARGUMENT", f"etcdserver: {self.said}")


class ErrEmptyKey(_InvalidArgument):
    """A request named no key."""

    said = "key is not provided"


class ErrKeyNotFound(_InvalidArgument):
    """`ignore_value` or `ignore_lease` on a key that isn't there; or an operation of a transaction
    was none that etcd knows."""

    said = "key not found"


class ErrValueProvided(_InvalidArgument):
    """A put with `ignore_value` has a value."""

    said = "value is provided"


class ErrLeaseProvided(_InvalidArgument):
    """A put with `ignore_lease` has a lease."""

    said = "lease is provided"


class ErrTooManyOps(_InvalidArgument):
    """A transaction has more than 128 compares, or operations in one branch."""

    said = "too many operations in txn request"


class ErrDuplicateKey(_InvalidArgument):
    """A branch of a transaction puts a key twice, or puts it and deletes it."""

    said = "duplicate key given in txn request"


class ErrInvalidSortOption(_InvalidArgument):
    """A range asks for an order, or a target of it, that doesn't exist (etcd >= 3.6)."""

    said = "invalid sort option"


class ErrRequestTooLarge(_InvalidArgument):
    """A write of more than 1.5 MiB."""

    said = "request is too large"


class ErrUserEmpty(_InvalidArgument):
    """A user needs a name."""

    said = "user name is empty"


class ErrRoleEmpty(_InvalidArgument):
    """A role needs a name."""

    said = "role name is empty"


class ErrPermissionNotGiven(_InvalidArgument):
    """Nothing is to be granted."""

    said = "permission not given"


class ErrInvalidAuthMgmt(_InvalidArgument):
    """A permission for a range that can hold no key."""

    said = "invalid auth management"


class ErrAuthFailed(_InvalidArgument):
    """No such user, or not this password."""

    said = "authentication failed, invalid user ID or password"


class _OutOfRange(EtcdError):
    said = ""

    def __init__(self) -> None:
        super().__init__("OUT_OF_RANGE", f"etcdserver: {self.said}")


class ErrCompacted(_OutOfRange):
    """The revision is below the compact revision."""

    said = "mvcc: required revision has been compacted"


class ErrFutureRev(_OutOfRange):
    """The revision is above the current one."""

    said = "mvcc: required revision is a future revision"


class ErrLeaseTTLTooLarge(_OutOfRange):
    """A lease for more than 9,000,000,000 seconds."""

    said = "too large lease TTL"


class ErrEmptyWatcherRange(EtcdError):
    """A watch whose range can hold no key. etcd says so in the reason of a cancelled watch."""

    def __init__(self) -> None:
        super().__init__("INVALID_ARGUMENT", "mvcc: watcher range is empty")


class ErrDuplicateWatchID(EtcdError):
    """A watch id that the stream has already. etcd says so in the reason of a cancelled watch."""

    def __init__(self) -> None:
        super().__init__("INVALID_ARGUMENT", "mvcc: duplicate watch ID provided on the WatchStream")


class ErrLeaseNotFound(EtcdError):
    """There is no such lease, or not any more."""

    def __init__(self) -> None:
        super().__init__("NOT_FOUND", "etcdserver: requested lease not found")


class ErrMemberNotFound(EtcdError):
    """No member of the cluster has this id."""

    def __init__(self) -> None:
        super().__init__("NOT_FOUND", "etcdserver: member not found")


class _FailedPrecondition(EtcdError):
    said = ""

    def __init__(self) -> None:
        super().__init__("FAILED_PRECONDITION", f"etcdserver: {self.said}")


class ErrLeaseExist(_FailedPrecondition):
    """A lease is asked for under an id that one has already."""

    said = "lease already exists"


class ErrBadLeaderTransferee(_FailedPrecondition):
    """No member but this one could lead."""

    said = "bad leader transferee"


class ErrRootUserNotExist(_FailedPrecondition):
    """Authentication can't be enabled before there is a user `root`."""

    said = "root user does not exist"


class ErrRootRoleNotExist(_FailedPrecondition):
    """Authentication can't be enabled before the user `root` has the role `root`."""

    said = "root user does not have root role"


class ErrAuthNotEnabled(_FailedPrecondition):
    """Authentication is off, and asked for."""

    said = "authentication is not enabled"


class ErrUserAlreadyExist(_FailedPrecondition):
    """There is this user already."""

    said = "user name already exists"


class ErrUserNotFound(_FailedPrecondition):
    """There is no such user."""

    said = "user name not found"


class ErrRoleAlreadyExist(_FailedPrecondition):
    """There is this role already."""

    said = "role name already exists"


class ErrRoleNotFound(_FailedPrecondition):
    """There is no such role."""

    said = "role name not found"


class ErrRoleNotGranted(_FailedPrecondition):
    """The user doesn't have the role that is to be taken away."""

    said = "role is not granted to the user"


class ErrPermissionNotGranted(_FailedPrecondition):
    """The role doesn't have the permission that is to be taken away."""

    said = "permission is not granted to the role"


class ErrPermissionDenied(EtcdError):
    """The user may not do this."""

    def __init__(self) -> None:
        super().__init__("PERMISSION_DENIED", "etcdserver: permission denied")


class ErrInvalidAuthToken(EtcdError):
    """Nobody's token, or not any more."""

    def __init__(self) -> None:
        super().__init__("UNAUTHENTICATED", "etcdserver: invalid auth token")


class ErrNoPasswordUser(EtcdError):
    """A user who has no password can't log in by one."""

    def __init__(self) -> None:
        text = "auth: authentication failed, password was given for no password user"
        super().__init__("UNKNOWN", text)


class ErrNoSpace(EtcdError):
    """The alarm NOSPACE is raised: nothing may be added."""

    def __init__(self) -> None:
        super().__init__("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded")


class ErrTooManyRequests(EtcdError):
    """Too many writes wait to be done."""

    def __init__(self) -> None:
        super().__init__("RESOURCE_EXHAUSTED", "etcdserver: too many requests")


class ErrCorrupt(EtcdError):
    """The alarm CORRUPT is raised: nothing is served."""

    def __init__(self) -> None:
        super().__init__("DATA_LOSS", "etcdserver: corrupt cluster")


class ErrWatchCanceled(EtcdError):
    """The stream of watches ended because its client gave up."""

    def __init__(self) -> None:
        super().__init__("CANCELLED", "etcdserver: watch canceled")


class ErrNoLeader(EtcdError):
    """The member lost its leader."""

    def __init__(self) -> None:
        super().__init__("UNAVAILABLE", "etcdserver: no leader")


class ErrLeaderChanged(EtcdError):
    """The leader changed while the request was on its way."""

    def __init__(self) -> None:
        super().__init__("UNAVAILABLE", "etcdserver: leader changed")


class ErrTimeout(EtcdError):
    """Nobody knows whether the request was done."""

    def __init__(self) -> None:
        super().__init__("UNAVAILABLE", "etcdserver: request timed out")


class DataDirError(Exception):
    """A data directory that can't be used as it was asked for; says so in one line."""


class DamagedLogError(DataDirError):
    """A log that isn't what was once written."""
