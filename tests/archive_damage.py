"""A small archive whose file ends at any byte, or is wrong in any byte.

    python -m tests.archive_damage

takes all of them, which takes minutes; `tests/archive/test_damage.py` some.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

from btreecache import Store
from btreecache.archive import Archive
from btreecache.archive.verify import Verification
from btreecache.digest import recompute
from btreecache.errors import BtreecacheError

#: By revision.
Digests = dict[int, int]


class Small(NamedTuple):
    """The file; how large it was when which revision had become durable; what revisions hold."""

    path: Path
    whole: bytes
    ends: list[tuple[int, int]]
    states: Digests


def made(directory: Path) -> Small:
    """Four groups of three revisions."""
    path, ends, rng = directory / "archive", [], Random(0)
    with Archive.open(str(path)) as archive:
        store = Store(archive=archive.history())
        states = {store.revision: 0}
        for first in range(4):
            for key in range(first, first + 3):
                store.put(b"/k/%d" % key, rng.randbytes(20))
                states[store.revision] = recompute(store.snapshot(), "values")
            assert archive.flush()
            ends.append((path.stat().st_size, store.durable_revision))
    path.with_name("archive.index").unlink()
    return Small(path, path.read_bytes(), ends, states)


def archived(archive: Archive) -> Digests:
    """Of every revision that can be read; nothing where there is no history."""
    if not archive.prefixes():
        return {}
    with archive.reading() as reading:
        return {
            at: recompute(reading.snapshot(at), "values")
            for at in range(reading.oldest, min(reading.newest, 1_000) + 1)
        }


def problems(archive: Archive) -> list[str]:
    """As `archive verify` finds them."""
    found = [damage] if (damage := archive.damage()) else []
    with archive.reading(b"") as walk, archive.reading(b"") as replay:
        return [*found, *map(str, Verification(walk, replay).problems())]


def torn(small: Small, sizes: Iterable[int]) -> Counter[str]:
    """Whatever the last write left of itself: a prefix with all that was durable before."""
    counts: Counter[str] = Counter()
    for size in sizes:
        small.path.write_bytes(small.whole[:size])
        end, durable = max(known for known in small.ends if known[0] <= size)
        with Archive.open(str(small.path), read_only=True) as archive:
            found = archived(archive)
            assert found.items() <= small.states.items()
            assert max(found) == durable
            assert not problems(archive), f"a torn tail of {size - end} bytes is no damage"
        said = Said()
        with said, Archive.open(str(small.path)) as archive:
            assert archived(archive) == found
        assert small.path.stat().st_size == end
        dropped = [line for line in said.lines if f"dropped bytes={size - end} " in line]
        assert len(dropped) == (size > end), said.lines
        assert not [*small.path.parent.glob("*.tr*")]
        counts["torn"] += size > end
    return counts


def flipped(small: Small, places: Iterable[int], masks: Iterable[int]) -> Counter[str]:
    """A damaged byte is found, or does no harm: then all is there and as it was. But for one that
    promises that nothing came for longer than it is known."""
    counts: Counter[str] = Counter()
    masks = [*masks]
    for place in places:
        for mask in masks:
            damaged = bytearray(small.whole)
            damaged[place] ^= mask
            small.path.write_bytes(damaged)
            small.path.with_name("archive.index").unlink(missing_ok=True)
            try:
                with Archive.open(str(small.path), read_only=True) as archive:
                    found, there = problems(archive), {}
                    if not found:
                        there = archived(archive)
                        known = {at: there.get(at) for at in small.states}
                        assert known == small.states, f"byte {place} ^ {mask}"
                # How far a history is said to be complete is a number that nothing vouches for.
                beyond = "promises more" if there.keys() - small.states.keys() else "harmless"
                counts["found" if found else beyond] += 1
            except BtreecacheError:
                counts["refused"] += 1
    return counts


class Said(logging.Handler):
    """What an archive logs meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> Said:
        logging.getLogger("btreecache.archive").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("btreecache.archive").removeHandler(self)


def main() -> int:
    """All sizes of the last transaction, all bytes of the file in three ways."""
    warnings.simplefilter("ignore", ResourceWarning)  # ZODB leaves what it can't read open.
    with tempfile.TemporaryDirectory() as directory:
        small = made(Path(directory))
        counts = torn(small, range(small.ends[-2][0], len(small.whole) + 1))
        counts += flipped(small, range(4, len(small.whole)), (0x01, 0x80, 0xFF))
    sys.stdout.write(f"{len(small.whole)} bytes: {dict(counts)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
