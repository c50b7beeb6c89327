"""The errors of the etcd API that the model raises: gRPC code name and exact text.

Clients match on the text (etcd `api/v3rpc/rpctypes/error.go`), so it must not change.
"""

from __future__ import annotations


class EtcdError(Exception):
    """What etcd answers instead of a result."""

    def __init__(self, code_name: str, text: str) -> None:
        super().__init__(text)
        self.code_name, self.text = code_name, text


class ErrEmptyKey(EtcdError):
    """A request named no key."""

    def __init__(self) -> None:
        super().__init__("INVALID_ARGUMENT", "etcdserver: key is not provided")


class ErrKeyNotFound(EtcdError):
    """An operation of a transaction was none that etcd knows."""

    def __init__(self) -> None:
        super().__init__("INVALID_ARGUMENT", "etcdserver: key not found")


class ErrTooManyOps(EtcdError):
    """A transaction has more than 128 compares, or operations in one branch."""

    def __init__(self) -> None:
        super().__init__("INVALID_ARGUMENT", "etcdserver: too many operations in txn request")


class ErrDuplicateKey(EtcdError):
    """A branch of a transaction puts a key twice, or puts it and deletes it."""

    def __init__(self) -> None:
        super().__init__("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request")


class ErrCompacted(EtcdError):
    """The revision is below the compact revision."""

    def __init__(self) -> None:
        super().__init__("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted")


class ErrFutureRev(EtcdError):
    """The revision is above the current one."""

    def __init__(self) -> None:
        super().__init__("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision")


class ErrEmptyWatcherRange(EtcdError):
    """A watch whose range can hold no key. etcd says so in the reason of a cancelled watch."""

    def __init__(self) -> None:
        super().__init__("INVALID_ARGUMENT", "mvcc: watcher range is empty")
