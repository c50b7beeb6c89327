"""Transactions as data: compares, operations, and the checks that come before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from etcdsim.errors import (
    ErrDuplicateKey,
    ErrEmptyKey,
    ErrInvalidSortOption,
    ErrKeyNotFound,
    ErrLeaseProvided,
    ErrTooManyOps,
    ErrValueProvided,
)

if TYPE_CHECKING:
    from etcdsim.model import KeyValue

OPS_MAX = 128  # etcd's --max-txn-ops

Target = Literal["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]
Result = Literal["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]
SortOrder = Literal["NONE", "ASCEND", "DESCEND", "INVALID"]
SortTarget = Literal["KEY", "VERSION", "CREATE", "MOD", "VALUE"]


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition on a key, or with `range_end` on every key of a range.

    `operand` is bytes for the target VALUE, an integer for the others.
    """

    key: bytes
    target: Target
    result: Result
    operand: int | bytes
    range_end: bytes = b""


@dataclass(frozen=True, slots=True)
class Put:
    """Let `key` have `value`, and hang on `lease` (0: on none).

    `ignore_value`, `ignore_lease`: keep the one it has; the key has to be there.
    """

    key: bytes
    value: bytes
    lease: int = 0
    ignore_value: bool = False
    ignore_lease: bool = False


@dataclass(frozen=True, slots=True)
class DeleteRange:
    """Delete every key of a range; none is no error."""

    key: bytes
    range_end: bytes = b""


@dataclass(frozen=True, slots=True)
class Range:
    """Read a range; in a transaction it sees what the operations before it wrote.

    Bounds on revisions are inclusive, 0 for none. Unlike the limit they don't change the count.
    """

    key: bytes
    range_end: bytes = b""
    revision: int = 0
    limit: int = 0
    keys_only: bool = False
    count_only: bool = False
    sort_order: SortOrder = "NONE"
    sort_target: SortTarget = "KEY"
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0

    @property
    def is_filtered(self) -> bool:
        """Whether revisions are bounded."""
        return bool(
            self.min_mod_revision
            or self.max_mod_revision
            or self.min_create_revision
            or self.max_create_revision
        )

    def passes(self, kv: KeyValue) -> bool:
        """Whether the bounds on revisions let a key through."""
        return not (
            (self.min_mod_revision and kv.mod_revision < self.min_mod_revision)
            or (self.max_mod_revision and kv.mod_revision > self.max_mod_revision)
            or (self.min_create_revision and kv.create_revision < self.min_create_revision)
            or (self.max_create_revision and kv.create_revision > self.max_create_revision)
        )


@dataclass(frozen=True, slots=True)
class Txn:
    """A transaction, which may be an operation of another one."""

    compares: Sequence[Compare] = ()
    success: Sequence[Op] = ()
    failure: Sequence[Op] = ()


Op = Put | DeleteRange | Range | Txn


class Lessor(Protocol):
    """Who knows which leases there are; the model tells which keys hang on them."""

    def __contains__(self, lease: int) -> bool:
        """Whether there is this lease."""

    def attach(self, lease: int, key: bytes) -> None:
        """`key` hangs on `lease` now."""

    def detach(self, lease: int, key: bytes) -> None:
        """`key` doesn't hang on `lease` any more; nothing happens if it is gone."""


class NoLeases:
    """A lessor without leases."""

    def __contains__(self, lease: int) -> bool:
        return False

    def attach(self, lease: int, key: bytes) -> None:
        raise AssertionError("a key can't hang on a lease that isn't there")

    def detach(self, lease: int, key: bytes) -> None:
        raise AssertionError("a key can't hang on a lease that isn't there")


def bounds(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    """The half-open interval that (key, range_end) means; None for no upper end."""
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == b"\0" else range_end


def check_txn(txn: Txn) -> None:
    """Refuse what etcd refuses before it looks at the store, in its order (v3rpc `key.go`)."""
    _check_shape(txn, OPS_MAX)
    _check_keys_once(txn.success)
    _check_keys_once(txn.failure)


def _check_shape(txn: Txn, ops_max: int) -> None:
    size = max(len(txn.compares), len(txn.success), len(txn.failure))
    if size > ops_max:
        raise ErrTooManyOps
    if not all(compare.key for compare in txn.compares):
        raise ErrEmptyKey
    for op in (*txn.success, *txn.failure):
        match op:
            case Txn():
                _check_shape(op, ops_max - size)
            case Put():
                check_put(op)
            case Range():
                check_range(op)
            case DeleteRange():
                if not op.key:
                    raise ErrEmptyKey
            case _:
                raise ErrKeyNotFound


def check_range(op: Range) -> None:
    """Refuse a range without a key, or in an order that there isn't (etcd >= 3.6)."""
    if not op.key:
        raise ErrEmptyKey
    if op.sort_order == "INVALID":
        raise ErrInvalidSortOption


def check_put(put: Put) -> None:
    """Refuse a put that contradicts itself."""
    if not put.key:
        raise ErrEmptyKey
    if put.ignore_value and put.value:
        raise ErrValueProvided
    if put.ignore_lease and put.lease:
        raise ErrLeaseProvided


def _check_keys_once(ops: Iterable[Op]) -> tuple[set[bytes], list[DeleteRange]]:
    """A key may be put once, and no put may lie in a deleted range, before or after it -> the keys
    put and the ranges deleted, whichever way the transactions inside go.

    A range without an end never counts: etcd takes the end for the byte 0 here (v3rpc `key.go`
    checkIntervals).
    """
    deleted = [op for op in ops if isinstance(op, DeleteRange)]
    puts: set[bytes] = set()

    def add(keys: Iterable[bytes], allowed: Iterable[bytes] = ()) -> None:
        for key in keys:
            if key in puts and key not in allowed:
                raise ErrDuplicateKey
            if any(op.key <= key < (op.range_end or op.key + b"\0") for op in deleted):
                raise ErrDuplicateKey
            puts.add(key)

    for op in ops:
        if isinstance(op, Txn):
            puts_then, deleted_then = _check_keys_once(op.success)
            puts_else, deleted_else = _check_keys_once(op.failure)
            add(puts_then)
            add(puts_else, allowed=puts_then)  # only one of the branches is taken
            deleted += deleted_then + deleted_else
    for op in ops:
        if isinstance(op, Put):
            add([op.key])
    return puts, deleted


def holds(compare: Compare, kvs: Sequence[KeyValue]) -> bool:
    """Whether `compare` is true of the keys found; of no key at all it compares zeros, and a VALUE
    is false whatever the result asked for (etcd `apply/txn.go` applyCompare)."""
    if not kvs:
        return compare.target != "VALUE" and _relates(0, compare.result, compare.operand)
    return all(_relates(_actual(compare.target, kv), compare.result, compare.operand) for kv in kvs)


def _actual(target: Target, kv: KeyValue) -> int | bytes:
    match target:
        case "VERSION":
            return kv.version
        case "CREATE":
            return kv.create_revision
        case "MOD":
            return kv.mod_revision
        case "VALUE":
            return kv.value
        case "LEASE":
            return kv.lease


def _relates(actual: Any, result: Result, operand: Any) -> bool:
    match result:
        case "EQUAL":
            return bool(actual == operand)
        case "GREATER":
            return bool(actual > operand)
        case "LESS":
            return bool(actual < operand)
        case "NOT_EQUAL":
            return bool(actual != operand)
