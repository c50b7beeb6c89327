"""Records: what an archive consists of. Each is an object of ZODB whose state is plain values.

    Root -> History, one for each prefix -> Groups: last revision -> Group
    Group -> the tree at its last revision: Branch, Leaf -> Run: elements
          -> Log: the batches since the group before -> Run

Records of trees never change once they are committed, and a new tree shares with the one before
whatever is the same in both, as trees in memory do. So a group costs what its batches changed. All
that is retained hangs on the root of the *current* state: ZODB's own history isn't used, and a pack
keeps exactly what retention keeps.

Where a state has many values they are packed as one string, its references beside it: to pickle
costs a call for each value, since ZODB asks of each whether it is a reference, and that was most of
the writing. So all that is ever unpickled are strings, numbers and records (`allowed`).
"""

from __future__ import annotations

from io import BytesIO
from pickle import Unpickler, UnpicklingError
from typing import Any, ClassVar, NamedTuple, TypeAlias, cast

import msgspec
from BTrees.LOBTree import LOBTree
from persistent import Persistent

#: Of what the records mean. An archive with a higher one is refused.
FORMAT = 1


class Record(Persistent):  # type: ignore[misc]  # persistent has no types
    """An object of ZODB that is a tuple, loaded when `state` is first read."""

    __slots__ = ("state",)

    def __init__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def __getstate__(self) -> tuple[Any, ...]:
        return self.state

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class Packed(Record):
    """A record whose state is written as MessagePack, beside the records that are a part of it.

    `references` is the place of those in the state, a tuple.
    """

    __slots__ = ()
    references: ClassVar[int]
    decoder: ClassVar[msgspec.msgpack.Decoder[Any]]

    def __getstate__(self) -> tuple[Any, ...]:
        plain = [*self.state]
        references = plain.pop(self.references)
        return _pack(plain), references

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        packed, references = state
        plain = self.decoder.decode(packed)
        at = self.references
        self.state = (*plain[:at], references, *plain[at:])


_pack = msgspec.msgpack.Encoder().encode

#: An element: key, value, mod_revision, create_revision, version, Element.source_digest; the last
#: is empty, unless a transform has dropped part of the value.
StoredElement: TypeAlias = tuple[bytes, bytes, int, int, int, bytes]

_unpack_run = msgspec.msgpack.Decoder(tuple[StoredElement, ...]).decode


class Run(Record):
    """Elements."""

    __slots__ = ()

    def __getstate__(self) -> tuple[Any, ...]:
        return (_pack(self.state),)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        (packed,) = state
        self.state = _unpack_run(packed)


def elements_of(run: Run) -> tuple[StoredElement, ...]:
    """The state of a run that needn't stay in memory. Raises what a storage raises.

    By way of the storage: most records are runs, and what a connection does to make an object of
    one takes several times as long. No method of Run, since to look one up would load the run.
    """
    if run._p_changed is not None:  # It is here already.
        return cast(tuple[StoredElement, ...], run.state)
    data, _ = run._p_jar._storage.load(run._p_oid)
    unpickler = _RunUnpickler(BytesIO(data))
    unpickler.load()
    (packed,) = unpickler.load()
    return _unpack_run(packed)


class _RunUnpickler(Unpickler):
    """Reads what ZODB writes for a run, its class and its state, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) != (Run.__module__, Run.__name__):
            raise UnpicklingError(f"not a run: {module}.{name}")
        return Run


class Leaf(Packed):
    """Items of a tree in key order: (prefix, suffixes, runs, sizes, places).

    A key is `prefix` and a suffix. Item i is runs[places[2 * i]].state[places[2 * i + 1]]. `sizes`:
    of the runs in bytes.
    """

    __slots__ = ()
    references = 2
    decoder = msgspec.msgpack.Decoder(
        tuple[bytes, tuple[bytes, ...], tuple[int, ...], tuple[int, ...]]
    )


class Branch(Packed):
    """Children in key order: (height, keys, children, counts), the fields of a node in memory."""

    __slots__ = ()
    references = 2
    decoder = msgspec.msgpack.Decoder(tuple[int, tuple[bytes, ...], tuple[int, ...]])


class Log(Packed):
    """Batches: (runs, batches, digest), each batch (revision, arrived_s, synthetic, events).

    An event is a key that was deleted, or (key, run, index) of what was put, which is
    runs[run].state[index]. `digest`: of all that was put, as `GroupState.digest`; what was
    superseded inside a group is in no checkpoint.
    """

    __slots__ = ()
    references = 0
    decoder = msgspec.msgpack.Decoder(
        tuple[
            tuple[tuple[int, float, bool, tuple[bytes | tuple[bytes, int, int], ...]], ...], bytes
        ]
    )


class Group(Record):
    """What one commit adds to a history: `GroupState`."""

    def read(self) -> GroupState:
        return GroupState(*self.state)


class GroupState(NamedTuple):
    """A group and its checkpoint.

    base        the revision whose state the log continues, of the group before; None where the
                group is a list, or where only its checkpoint is retained
    revision    of the last batch or list, and of the checkpoint
    complete    up to here nothing came after `revision`; higher only where a gap follows
    first_s     when the first batch arrived, seconds since 1970
    last_s      when the last did
    root        the root of the tree at `revision`: Leaf or Branch
    elements    how many the tree has
    digest      of the source's elements at `revision`, mode `values`, 32 bytes big-endian
    log         None where `base` is
    batches     how many the group had
    size_bytes  written for it: elements, nodes and log, as they are in memory
    """

    base: int | None
    revision: int
    complete: int
    first_s: float
    last_s: float
    root: Any
    elements: int
    digest: bytes
    log: Any
    batches: int
    size_bytes: int


class Groups(LOBTree):  # type: ignore[misc]  # BTrees has no types
    """Last revision -> Group. The sizes are pinned: they are part of the format."""

    max_leaf_size: ClassVar[int] = 60
    max_internal_size: ClassVar[int] = 500


class History(Record):
    """The history of one prefix: `HistoryState`. Changes with every commit."""

    def read(self) -> HistoryState:
        return HistoryState(*self.state)


class HistoryState(NamedTuple):
    """groups    Groups
    complete     how far the history is known to be complete: the last group's revision or higher
    complete_s   when that became known, seconds since 1970
    gaps         (after, revision, reason, at_s): revisions between these are not known, ascending
    writer       a number that each writer draws at its start: a second one can't go unnoticed
    listed       the revision of the last list: what a feed fault after it can't have touched
    tail         the root of the tree that was written last, which the next one shares with: held
                 here, as a group that was distrusted doesn't hold it any more
    turns        the groups that came when the clock had gone back, ascending
    """

    groups: Any
    complete: int
    complete_s: float
    gaps: tuple[tuple[int, int, str, float], ...]
    writer: int
    listed: int
    tail: Any
    turns: tuple[int, ...]


class Root(Record):
    """(format, {prefix: History}) of an archive, under NAME in ZODB's root."""


NAME = "btreecache"

_ALLOWED: dict[tuple[str, str], Any] = {
    **{(kind.__module__, kind.__name__): kind for kind in (Run, Leaf, Branch, Log, Group)},
    **{(kind.__module__, kind.__name__): kind for kind in (Groups, History, Root)},
}
_ALLOWED_NAMES = {
    ("BTrees.LOBTree", "LOBucket"),
    ("persistent.mapping", "PersistentMapping"),
    ("copy_reg", "_reconstructor"),
    ("copyreg", "_reconstructor"),
}


def allowed(module: str, name: str) -> bool:
    """Whether a class of that name may be unpickled: our records, and what ZODB makes for them."""
    return (module, name) in _ALLOWED or (module, name) in _ALLOWED_NAMES
