"""`python -m tests.bench.archive`: an archive beside OOBTree in ZODB, and beside a real etcd.

    bytes     of the file, for each byte of keys and values that were put
    writing   what a cache pays for having an archive, and the archive's own thread
    reading   pages of 500 decoded objects of random revisions, in fresh processes, right after open
    starting  a window taken up again, beside a list of the same objects from etcd over loopback

Contenders take turns, each a process of its own; a ratio is the median over pairs of rounds.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

from tests.bench.__main__ import conditions
from tests.bench.archive_workers import (
    LISTED,
    Ask,
    CacheWriter,
    Load,
    Read,
    TreeWriter,
    Written,
    once,
    process,
    read_archive,
    read_tree,
    relisting,
    warm_start,
)
from tests.bench.harness import ROOT
from tests.bench.table import duration, ratio_text, size

ALONE, ARCHIVE = "cache alone", "cache with archive"
#: An OOBTree in ZODB -> what it holds, whether a commit for each revision, and of how many of the
#: updates: a bucket with its values, 60 KB, is written for each, and each commit waits for a disk.
TREES = {
    "OOBTree, a commit for each group": ("values", False, 5),
    "OOBTree of records, a commit for each group": ("records", False, 5),
    "OOBTree of records, a commit for each revision": ("records", True, 20),
}


class Scale(NamedTuple):
    """objects, updates and those in a group; rounds of writing, of readers and starts of a kind;
    the windows that are taken up again."""

    objects: int
    updates: int
    group: int
    rounds: int
    reads: int
    starts: int
    windows: tuple[int, ...]


FULL = Scale(100_000, 100_000, 1_000, 5, 8, 3, (1_000, 10_000))
QUICK = Scale(2_000, 2_000, 100, 2, 2, 1, (100,))

Row = tuple[str, str, str]
Say = Callable[[list[Row]], None]


def in_turn(names: Sequence[str], rounds: int, one: Callable[[str], Any]) -> dict[str, list[Any]]:
    """What `one` gives for each name, round by round, in another order each time."""
    rng, given = Random(1), {name: list[Any]() for name in names}
    for _ in range(rounds):
        for name in rng.sample(names, len(names)):
            given[name].append(one(name))
    return given


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def writing(scale: Scale, folder: Path, rows: list[Row]) -> dict[str, list[tuple[int, bytes]]]:
    """Rows of writing; the commits of each tree. The archive stays at folder / "archive"."""
    with ExitStack() as stack:

        def start(*args: Any) -> Ask:
            return stack.enter_context(process(*args))

        asks = {
            ALONE: start(CacheWriter, scale.objects, None, scale.group),
            ARCHIVE: start(CacheWriter, scale.objects, folder / "archive", scale.group),
        }
        shares = {ALONE: 1, ARCHIVE: 1}
        for name, (kind, single, share) in TREES.items():
            group = 1 if single else scale.group
            asks[name] = start(TreeWriter, scale.objects, folder / name, group, kind)
            shares[name] = share
        per_round = scale.updates // scale.rounds

        def one(name: str) -> Written:
            return Written(*asks[name]("update", per_round // shares[name]))

        written = in_turn([*asks], scale.rounds, one)
        commits = {name: asks[name]("commits") for name in TREES}
        took, before, after = asks[ARCHIVE]("pack")
    for name in (ARCHIVE, *TREES):
        done = written[name]
        amplified = sum(w.bytes for w in done) / sum(w.changed_bytes for w in done)
        whole = [(w.seconds + w.flush_s) / w.updates for w in done]
        rows.append((name, "bytes written, a byte changed", f"{amplified:.2f}"))
        rows.append((name, "an update, until it is on the disk", duration(median(whole))))
    ours, alone = written[ARCHIVE], written[ALONE]
    telling = [w.cpu_s / w.updates for w in ours], [w.cpu_s / w.updates for w in alone]
    clock = [w.seconds / w.updates for w in ours], [w.seconds / w.updates for w in alone]
    slowest = [w.slowest_s for w in ours], [w.slowest_s for w in alone]
    for what, (mine, theirs) in (
        ("an update, CPU of the cache's thread", telling),
        ("the same by the clock, at full speed", clock),
        ("the same, 99.9 %", slowest),
    ):
        rows.append((ALONE, what, duration(median(theirs))))
        rows.append(
            (ARCHIVE, what, f"{duration(median(mine))} ({ratio_text(paired(mine, theirs))})")
        )
    cpu = median(w.writer_cpu_s / w.updates for w in ours)
    rows.append((ARCHIVE, "an update, CPU of the recorder's thread", duration(cpu)))
    rows.append((ARCHIVE, "pack", f"{duration(took)}, {size(before)} to {size(after)}"))
    return commits


def reading(
    scale: Scale, folder: Path, commits: dict[str, list[tuple[int, bytes]]], rows: list[Row]
) -> None:
    """Rows of reading. What two of them read of one revision must be the same."""
    rng, load = Random(2), Load(scale.objects)
    inside, at_checkpoint = "archive, inside a group", "archive, at a checkpoint"

    def archived(revision: int, start: bytes) -> Read:
        return Read(*once(read_archive, folder / "archive", revision, start))

    def one(name: str) -> Read:
        start = load.elements[rng.randrange(scale.objects - 500)].key
        group = LISTED + scale.group * rng.randrange(scale.updates // scale.group)
        if name in commits:
            revision, tid = rng.choice(commits[name])
            found = Read(*once(read_tree, folder / name, tid, start))
            if archived(revision, start).crc != found.crc:
                raise RuntimeError(f"{name}: other objects at {revision} from {start!r}")
            return found
        return archived(group + (rng.randrange(1, scale.group) if name == inside else 0), start)

    found = in_turn([inside, at_checkpoint, *commits], scale.reads, one)
    for name, reads in found.items():
        for what, seconds in (
            ("open", [r.open_s for r in reads]),
            ("first page of 500", [r.first_s for r in reads]),
            ("another page", [r.again_s for r in reads]),
            ("all objects", [r.scan_s for r in reads]),
        ):
            rows.append(
                (name, what, f"{duration(median(seconds))}, at most {duration(max(seconds))}")
            )
        rows.append((name, "memory of that", size(median(r.scan_bytes for r in reads))))


def starting(scale: Scale, folder: Path, etcd: Path, rows: list[Row]) -> None:
    """Rows of starting."""
    from tests.interop.etcd_server import EtcdServer

    memory = Path("/dev/shm")
    data = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        with EtcdServer(etcd, data) as server:
            fill(server.endpoint, scale.objects)
            names = ["etcd", *[f"a window of {revisions:,}" for revisions in scale.windows]]

            def one(name: str) -> tuple[float, float]:
                if name == "etcd":
                    took: tuple[float, float] = once(relisting, server.endpoint, scale.objects)
                else:
                    window = scale.windows[names.index(name) - 1]
                    took = once(warm_start, folder / "archive", window, scale.objects)
                return took

            took = in_turn(names, scale.starts, one)
    finally:
        shutil.rmtree(data)
    for at, what in enumerate(("start, by the clock", "start, CPU")):
        theirs = [pair[at] for pair in took["etcd"]]
        for name, pairs in took.items():
            mine = [pair[at] for pair in pairs]
            text = duration(median(mine))
            rows.append(
                (
                    name,
                    what,
                    text if name == "etcd" else f"{text} ({ratio_text(paired(mine, theirs))})",
                )
            )


def fill(endpoint: str, count: int) -> None:
    """Put the objects into an etcd."""
    from tests.interop.etcd_server import Writer

    with Writer(endpoint) as writer:
        elements = Load(count).elements
        for first in range(0, count, 100):
            writer.txn([(e.key, e.value) for e in elements[first : first + 100]])


def measure(scale: Scale, folder: Path, etcd: Path | None, say: Say) -> list[Row]:
    """Every row: who, what, how much."""
    rows: list[Row] = []
    commits = writing(scale, folder, rows)
    say(rows)
    if etcd:
        starting(scale, folder, etcd, rows)
        say(rows)
    reading(scale, folder, commits, rows)
    say(rows)
    return rows


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The rows as Markdown, by what was measured."""
    yield "| what | | |"
    yield "|---|---|---|"
    for what in dict.fromkeys(row[1] for row in rows):
        for name, _, text in (row for row in rows if row[1] == what):
            yield f"| {what} | {name} | {text} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.archive", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of everything, in seconds")
    parser.add_argument("--objects", type=int, default=FULL.objects, help="and so many updates")
    parser.add_argument("--etcd", type=Path, help="its program; without it starts are left out")
    args = parser.parse_args()
    about = conditions()
    full = FULL._replace(objects=args.objects, updates=args.objects)
    scale = QUICK if args.quick else full
    with tempfile.TemporaryDirectory(prefix="btreecache-bench-") as folder:
        rows = measure(scale, Path(folder), args.etcd, progress)
    kept = ROOT / ".cache/bench" / f"archive-{about['commit']}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(about | {"scale": scale, "rows": rows}, indent=1))
    print(" · ".join(f"{key} {value}" for key, value in about.items()))
    print(*table(rows), sep="\n")


def progress(rows: list[Row]) -> None:
    print(f"{len(rows)} rows, the last: {' '.join(rows[-1])}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
