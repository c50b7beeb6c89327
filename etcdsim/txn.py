"""Transactions as data: compares, operations, and the checks that come before anything is done.

One level: an operation can't be a transaction, and compares don't look at leases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from etcdsim.errors import ErrDuplicateKey, ErrEmptyKey, ErrKeyNotFound, ErrTooManyOps

if TYPE_CHECKING:
    from etcdsim.model import KeyValue

OPS_MAX = 128  # etcd's --max-txn-ops

Target = Literal["VERSION", "CREATE", "MOD", "VALUE"]
Result = Literal["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]


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
    """Let `key` have `value`."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class DeleteRange:
    """Delete every key of a range; none is no error."""

    key: bytes
    range_end: bytes = b""


@dataclass(frozen=True, slots=True)
class Range:
    """Read a range; sees what the operations before it wrote."""

    key: bytes
    range_end: bytes = b""
    revision: int = 0
    limit: int = 0
    keys_only: bool = False
    count_only: bool = False


Op = Put | DeleteRange | Range


def bounds(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    """The half-open interval that (key, range_end) means; None for no upper end."""
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == b"\0" else range_end


def check_txn(compares: Sequence[Compare], success: Sequence[Op], failure: Sequence[Op]) -> None:
    """Refuse what etcd refuses before it looks at the store, in its order (v3rpc `key.go`)."""
    if max(len(compares), len(success), len(failure)) > OPS_MAX:
        raise ErrTooManyOps
    if not all(compare.key for compare in compares):
        raise ErrEmptyKey
    for op in (*success, *failure):
        if not isinstance(op, Put | DeleteRange | Range):
            raise ErrKeyNotFound
        if not op.key:
            raise ErrEmptyKey
    _check_keys_once(success)
    _check_keys_once(failure)


def _check_keys_once(ops: Iterable[Op]) -> None:
    # A key may be put once, and no put may lie in a deleted range, before or after it.
    puts: set[bytes] = set()
    deleted: list[tuple[bytes, bytes | None]] = []
    for op in ops:
        if isinstance(op, Put):
            if op.key in puts:
                raise ErrDuplicateKey
            puts.add(op.key)
        elif isinstance(op, DeleteRange):
            deleted.append(bounds(op.key, op.range_end))
    for low, high in deleted:
        if any(low <= key and (high is None or key < high) for key in puts):
            raise ErrDuplicateKey


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
