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
the writing. So all that is ever unpickled are strings, numbers and records (`allowed`). With the
string goes its CRC, since no storage of ZODB checks what it reads.

Format 1 had neither CRCs nor served elements (`StoredElement`). It is read as well; what is added
to such an archive is of format 2.
"""

from __future__ import annotations

from io import BytesIO
from pickle import Unpickler, UnpicklingError
from typing import Any, ClassVar, NamedTuple, TypeAlias, cast
from zlib import crc32

import msgspec
from BTrees.LOBTree import LOBTree
from persistent import Persistent

from btreecache.errors import ArchiveError

#: Of what the records mean. An archive with a higher one is refused.
FORMAT = 2


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
        packed = _pack(plain)
        return packed, references, crc32(packed)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = self.unpacked(state)

    @classmethod
    def unpacked(cls, state: tuple[Any, ...]) -> tuple[Any, ...]:
        """`state` of what is written."""
        packed, references, *crc = state
        _check(packed, crc)
        plain = cls.decoder.decode(packed)
        at = cls.references
        return (*plain[:at], references, *plain[at:])


def _check(packed: bytes, crc: list[int]) -> None:
    if crc and crc[0] != crc32(packed):
        raise ArchiveError("the archive is damaged: a record isn't as it was written")


_pack = msgspec.msgpack.Encoder().encode


class StoredElement(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An element, as the source holds it or as it is served.

    source_digest   Element.source_digest: empty, unless a transform has dropped part of the value
    check           `check_of` its digest, by which a tree is found to be the one that was written
                    without hashing its values; None in format 1
    labels          None: `value` is the source's, and what follows says nothing
    fields, undo    as Element has them, like `value` and `labels`, where it was made by the codec
                    of the run's recipe
    """

    key: bytes
    value: bytes
    mod_revision: int
    create_revision: int
    version: int
    source_digest: bytes
    check: int | None = None
    labels: tuple[str, ...] | None = None
    fields: tuple[str, ...] = ()
    undo: bytes = b""


def check_of(digest: int) -> int:
    """What of a digest is kept with each element: sums of these are that of the sum."""
    return digest & (1 << 64) - 1


_unpack_run = msgspec.msgpack.Decoder(tuple[StoredElement, ...]).decode


class Run(Record):
    """Elements. `recipe`: Codec.recipe of the codec that has made those that are served."""

    __slots__ = ("recipe",)

    def __init__(self, state: tuple[StoredElement, ...], recipe: bytes = b"") -> None:
        super().__init__(state)
        self.recipe = recipe

    def __getstate__(self) -> tuple[Any, ...]:
        packed = _pack(self.state)
        return packed, self.recipe, crc32(packed)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.recipe, self.state = self.unpacked(state)

    @classmethod
    def unpacked(cls, state: tuple[Any, ...]) -> tuple[bytes, tuple[StoredElement, ...]]:
        """`recipe` and `state` of what is written."""
        packed, recipe, *crc = state if len(state) > 1 else (*state, b"")
        _check(packed, crc)
        return recipe, _unpack_run(packed)


def contents_of(run: Run) -> tuple[bytes, tuple[StoredElement, ...]]:
    """The recipe and the state of a run that needn't stay in memory. Raises what a storage raises.

    No method of Run, since to look one up would load the run.
    """
    if run._p_changed is not None:  # It is here already.
        return run.recipe, cast(tuple[StoredElement, ...], run.state)
    recipe, elements = loaded(run._p_jar._storage, (run._p_oid, Run))
    return recipe, elements


#: What a record says of another one: its oid and its class.
Reference: TypeAlias = tuple[bytes, Any]


def loaded(storage: Any, reference: Reference) -> tuple[Any, ...]:
    """What a record `unpacked` is, with References to others. Raises what a storage raises.

    By way of the storage: what a connection does to make an object of a record, and one of each
    that it refers to, takes several times as long as reading it.
    """
    oid, kind = reference
    data, _ = storage.load(oid)
    unpickler = _Unpickler(BytesIO(data))
    if unpickler.load() is not kind:
        raise UnpicklingError(f"not a {kind.__name__.lower()}")
    return cast(tuple[Any, ...], kind.unpacked(unpickler.load()))


class _Unpickler(Unpickler):
    """Reads what ZODB writes for a record of a tree: its class, then its state."""

    def find_class(self, module: str, name: str) -> Any:
        kind = _OF_TREES.get((module, name))
        if kind is None:
            raise UnpicklingError(f"not a record of a tree: {module}.{name}")
        return kind

    def persistent_load(self, reference: Any) -> Reference:
        return reference  # type: ignore[no-any-return]


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

    An event is a key that was deleted, or (key, run, index, is_new) of what was put, which is
    runs[run].state[index]; format 1 didn't say whether it was new. `digest`: of all that was put,
    as `GroupState.digest`; what was superseded inside a group is in no checkpoint.
    """

    __slots__ = ()
    references = 0
    decoder = msgspec.msgpack.Decoder(
        tuple[
            tuple[tuple[int, float, bool, tuple[bytes | tuple[bytes | int, ...], ...]], ...], bytes
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

_OF_TREES = {(kind.__module__, kind.__name__): kind for kind in (Run, Leaf, Branch)}
_ALLOWED: dict[tuple[str, str], Any] = {
    **_OF_TREES,
    **{(kind.__module__, kind.__name__): kind for kind in (Log, Group, Groups, History, Root)},
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
