"""gzip of lists, assembled from deflate runs that are kept with the tree.

The one idea: deflate is a stream of bits that a full flush brings to a byte's end, and the checksum
of the whole follows from those of its parts (crc.py). So what a part of the tree (parts.py) was
compressed to is good for every list that it is in. A LIST costs what changed since the last one.

A flush ends in a stored block of no bytes. The separator of items is written as that block's
content: one byte more, and a run needs not know whether another follows.

The stream is one gzip member, as clients that stop after the first expect (RFC 1952).

What this module deliberately does not do: no decision whether to compress but for the header's
rule, no watch frames, no threads: who wants a chunk computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from struct import pack
from typing import Final
from weakref import ref
from zlib import DEFLATED, MAX_WBITS, Z_FULL_FLUSH, compressobj, crc32

import msgspec

from btreecache.block import Kind
from btreecache.element import Element
from btreecache.encoding.crc import Checked, joined
from btreecache.encoding.parts import Part, Parts, Strip
from btreecache.tree import Tree

#: What API servers compress with; more costs CPU (docs/performance.md).
LEVEL: Final = 1

#: Chunks are of this size, the first as small as it comes and the last what is left.
CHUNK_BYTES: Final = 64 << 10
CHUNK_BYTES_MAX: Final = 256 << 10

#: What Go's gzip writes at level 1: no name, no time, "fastest", an unknown system.
_HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\4\xff"

#: How a full flush ends: the length of a stored block, 0, and its complement.
_FLUSHED: Final = b"\0\0\xff\xff"

#: What a run takes beside its deflated bytes, and what those of a strip take together, measured.
_RUN_BYTES: Final = 620
_RUNS_BYTES: Final = 360


class Run(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """Items of a part, deflated up to the length of the last, empty, stored block.

    `seed`: elements whose items and separators stand before it wherever it is used. `checked` is of
    the items with a separator before each, the first one too.
    """

    deflated: bytes
    checked: Checked
    seed: tuple[Element, ...]


class Runs(msgspec.Struct, frozen=True, eq=False):
    """The runs of a strip; `pieces` are their deflated bytes, `size` how many."""

    runs: tuple[Run, ...]
    pieces: tuple[bytes, ...]
    size: int
    checked: Checked


class RunKind:
    """A kind of run, one for each form of list: how an element is written, and what stands between.

    `item` must be pure, and may raise: then nothing is kept, and the reader gets the error. Make
    one and keep it, as its identity is what its runs are found by.
    """

    __slots__ = ("item", "joint", "kind", "separator")

    def __init__(self, name: str, item: Callable[[Element], bytes], separator: bytes = b"") -> None:
        """ValueError if the separator is longer than 64 KB."""
        if len(separator) > 0xFFFF:
            raise ValueError(f"a separator of {len(separator)} bytes is too long")
        self.item = item
        self.separator = separator
        self.joint: Final = pack("<HH", len(separator), len(separator) ^ 0xFFFF) + separator
        self.kind: Kind[Strip, Runs] = Kind(name, self.runs, _runs_bytes)

    def runs(self, strip: Strip) -> Runs:
        """Deflate a strip. O(its bytes), but for what is known of its parts. Raises as `item`."""
        runs: list[Run] = []
        seed = strip.seed
        for part in strip.parts:
            known = part.made and part.made.get(self)
            run: Run | None = known() if known else None
            if run is None or run.seed != seed:
                run = self._run(part, seed)
                # One assignment. Two threads may undo each other's: work done twice.
                part.made = {**(part.made or {}), self: ref(run)}
            runs.append(run)
            seed = part.tail
        pieces = tuple([run.deflated for run in runs])
        checked = joined([run.checked for run in runs])
        return Runs(tuple(runs), pieces, sum(map(len, pieces)), checked)

    def _run(self, part: Part, seed: tuple[Element, ...]) -> Run:
        item, separator = self.item, self.separator
        text = separator.join(map(item, part.elements()))
        before = b"".join([item(element) + separator for element in seed])
        return Run(_flushed(text, before), Checked.of(separator, text), seed)


def gzip_list(
    parts: Parts,
    run_kind: RunKind,
    tree: Tree[bytes, Element],
    head: bytes,
    foot: bytes,
    start: bytes | None = None,
    stop: bytes | None = None,
) -> Iterator[bytes]:
    """The gzip stream of head + items of a range + foot, in chunks. Lazy, in constant memory.

    O(parts), and what has to be compressed: the parts that no list of this kind had before or that
    fell out of the budget, and what the bounds, start <= key < stop, cut off a part.
    """
    get, kind, joint = parts.blocks.get, run_kind.kind, run_kind.joint
    lead = _HEADER + _flushed(head) + _FLUSHED
    queue: list[bytes] = []
    body, size, begun = Checked(), 0, False
    for strips, sums in parts.walk(tree, start, stop):
        known = None if sums is None else sums.get(run_kind)
        checks: list[Checked] = []
        for strip in strips:
            runs = run_kind.runs(strip) if strip.fleeting else get(strip, kind)
            queue += runs.pieces
            size += runs.size
            if known is None:
                checks.append(runs.checked)
            if size >= CHUNK_BYTES or not begun:
                yield from _chunks(lead + joint.join(queue))
                queue.clear()
                lead, size, begun = joint, 0, True
        if known is None:
            known = joined(checks)
            if sums is not None:
                sums[run_kind] = known
        body += known
    total = Checked.of(head)
    if begun:
        # The first run counts a separator before it, and there is none.
        total = total.less(Checked.of(run_kind.separator)) + body
        lead = lead + joint.join(queue) + _FLUSHED if queue else _FLUSHED
    total += Checked.of(foot)
    yield from _chunks(lead + _deflated(foot) + _trailer(total.crc, total.length))


def gzip_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The gzip stream of any chunks, for what isn't kept: selected lists, tables. Lazy."""
    deflate = compressobj(LEVEL, DEFLATED, -MAX_WBITS)
    crc = length = 0
    queue, size = [_HEADER], 0
    for chunk in chunks:
        crc, length = crc32(chunk, crc), length + len(chunk)
        for i in range(0, len(chunk), CHUNK_BYTES_MAX):
            queue.append(deflate.compress(memoryview(chunk)[i : i + CHUNK_BYTES_MAX]))
            size += len(queue[-1])
            if size >= CHUNK_BYTES:
                yield from _chunks(b"".join(queue))
                queue, size = [], 0
    yield from _chunks(b"".join(queue) + deflate.flush() + _trailer(crc, length))


def should_compress(accept_encoding: str | None) -> bool:
    """Whether a request's Accept-Encoding takes gzip, as an API server reads it.

    One of the tokens between the commas has to be exactly "gzip": "gzip;q=1" isn't, nor is "*".
    """
    return any(token.strip() == "gzip" for token in (accept_encoding or "").split(","))


def _flushed(text: bytes, before: bytes = b"") -> bytes:
    """Deflate to the length of the empty block that ends a flush. `before`: what stands there."""
    if before:
        deflate = compressobj(LEVEL, DEFLATED, -MAX_WBITS, zdict=before)
    else:
        deflate = compressobj(LEVEL, DEFLATED, -MAX_WBITS)
    deflated = deflate.compress(text) + deflate.flush(Z_FULL_FLUSH)
    assert deflated.endswith(_FLUSHED)
    return deflated[: -len(_FLUSHED)]


def _deflated(text: bytes) -> bytes:
    """Deflate to the end of the stream."""
    deflate = compressobj(LEVEL, DEFLATED, -MAX_WBITS)
    return deflate.compress(text) + deflate.flush()


def _trailer(crc: int, length: int) -> bytes:
    return pack("<II", crc, length & 0xFFFFFFFF)


def _chunks(data: bytes) -> Iterator[bytes]:
    """In one piece if it isn't too large, else in equal ones."""
    size = -(-len(data) // -(-len(data) // CHUNK_BYTES_MAX))
    return (data[i : i + size] for i in range(0, len(data), size))


def _runs_bytes(runs: Runs) -> int:
    return runs.size + _RUN_BYTES * len(runs.runs) + _RUNS_BYTES
