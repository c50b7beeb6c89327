"""`python -m tests.bench.memory [--plot FILE]`: what concurrent lists cost in memory.

1. A server of 10,000 objects of 100 KB, 1 GB, and 10 clients that list all of it at once, every
   second one of them slowly: how far the server's resident memory rises above what it is idle.
   Upstream's figures for this: 70 to 80 GB before lists were streamed, 3 GB since.
2. Streamed and in one piece side by side: 10 lists of 100 MB, each way in a server process of its
   own under the same hard limit of memory. In one piece is the gate off: the same encoder, whose
   chunks are collected before the first is sent. Once more without a limit, for what it takes.

Resident memory is read every 20 ms; its peak is the kernel's own count, which misses nothing. What
a server has to give back to the system was given back before it is called idle.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, NamedTuple

from tests.bench.serving import PATHS, Answer, Served, download, started

KIND = "configmaps"
LISTS = 10
LARGE_OBJECTS, LARGE_BYTES = 10_000, 100_000
BOUNDED_OBJECTS = 1_000
#: What a server may have altogether, and what lists of 1 GB may cost.
LIMIT_BYTES = 512 << 20
TARGET_BYTES = 100_000_000
SAMPLE_S = 0.02
#: How long a server may take to answer again.
RECOVER_S = 3.0
#: How fast a slow client reads; those of the bounded runs, so that all of them overlap.
SLOW_BYTES_PER_S = 80e6
GATE_OFF = "StreamingCollectionEncodingToJSON=false"
STREAMED, ONE_PIECE = "streamed", "in one piece"


class Burst(NamedTuple):
    """What came of lists at the same time.

    idle_bytes, peak_bytes   resident memory of the server before, and the highest of the burst
    samples                  seconds since its start, bytes above idle
    survived                 whether the server answers afterwards
    """

    way: str
    idle_bytes: int
    peak_bytes: int
    seconds: float
    samples: tuple[tuple[float, int], ...]
    answers: tuple[Answer, ...]
    survived: bool

    @property
    def above_idle(self) -> int:
        return self.peak_bytes - self.idle_bytes

    @property
    def whole(self) -> int:
        """How many of the answers were complete."""
        return sum(one.whole for one in self.answers)

    @property
    def refused(self) -> int:
        """How many came to an end with another status than 200."""
        return sum(one.status not in (0, 200) for one in self.answers)

    def __str__(self) -> str:
        size = sum(one.size for one in self.answers)
        first = max(one.first_s for one in self.answers)
        count = len(self.answers)
        text = (
            f"{self.way}: {self.whole} of {count} lists complete, {size / 1e9:.2f} GB in"
            f" {self.seconds:.1f} s, the last first byte after {first:.2f} s;"
            f" idle {_mb(self.idle_bytes)}, peak {_mb(self.above_idle)} above that"
        )
        if self.whole < count:
            cut = count - self.whole - self.refused
            text += f"; {self.refused} refused, {cut} cut off or never answered"
        return text if self.survived else text + "; the server answers no more"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def resident(pid: int) -> int:
    """Bytes of a process in memory; 0 if it is gone."""
    return _status(pid, "VmRSS")


def _status(pid: int, name: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) << 10
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


@contextmanager
def sampled(pid: int, above: int, into: list[tuple[float, int]]) -> Iterator[None]:
    """Samples of a process in the meantime."""
    done, began = threading.Event(), perf_counter()

    def watch() -> None:
        while not done.is_set():
            if size := resident(pid):
                into.append((perf_counter() - began, size - above))
            done.wait(SAMPLE_S)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def burst(server: Served, way: str, lists: int, paces: Sequence[float]) -> Burst:
    """`lists` lists at the same time, their clients reading at `paces` in turn (0: at once)."""
    pid, samples = server.process.pid, list[tuple[float, int]]()
    assert server.text("/bench/idle") == b"idle"
    idle = resident(pid)
    # The kernel's highest count is from here on (proc(5), clear_refs).
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    together = threading.Barrier(lists)

    def one(at: int) -> Answer:
        connection = server.connection()
        try:
            connection.connect()
            together.wait()
            return download(connection, PATHS[KIND], bytes_per_s=paces[at % len(paces)])
        finally:
            connection.close()

    began = perf_counter()
    with sampled(pid, idle, samples), ThreadPoolExecutor(lists) as clients:
        answers = tuple(clients.map(one, range(lists)))
        seconds = perf_counter() - began
    peak = max(_status(pid, "VmHWM"), idle + max((size for _, size in samples), default=0))
    return Burst(way, idle, peak, seconds, tuple(samples), answers, _answers(server))


def _answers(server: Served) -> bool:
    """Whether it does within a few seconds: what it was doing may have to end first."""
    deadline = perf_counter() + RECOVER_S
    while server.process.poll() is None and perf_counter() < deadline:
        try:
            if server.text("/livez") == b"ok":
                return True
        except (OSError, HTTPException):
            pass
        sleep(0.1)
    return False


def large(objects: int, object_bytes: int, lists: int) -> Burst:
    """Streamed lists of everything, every second client slow; no limit."""
    with started(KIND, objects, object_bytes) as server:
        return burst(server, STREAMED, lists, (0.0, SLOW_BYTES_PER_S))


def bounded(objects: int, object_bytes: int, lists: int, limit_bytes: int) -> list[Burst]:
    """The two ways under the same limit, and the second without."""
    found = []
    for way, gates, limit in (
        (STREAMED, "", limit_bytes), (ONE_PIECE, GATE_OFF, limit_bytes),
        (f"{ONE_PIECE}, no limit", GATE_OFF, 0),
    ):  # fmt: skip
        with started(KIND, objects, object_bytes, gates=gates, limit_bytes=limit) as server:
            found.append(burst(server, way, lists, (SLOW_BYTES_PER_S,)))
    return found


def draw(one: Burst, two: Sequence[Burst], titles: Sequence[str], file: Path) -> None:
    """The SVG: resident memory above idle over time, a panel for each of the two parts."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "btreecache"
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as plt

    plot, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for panel, bursts, title in zip(axes, ([one], two[:2]), titles, strict=True):
        for found, style in zip(bursts, ("-", "--"), strict=False):
            line = [(seconds, size / 1e6) for seconds, size in found.samples]
            panel.plot(*zip(*line, strict=True), style, label=found.way)
        panel.set_title(title, fontsize="medium")
        panel.set_xlabel("seconds")
        panel.set_ylabel("MB above idle")
        panel.grid(alpha=0.3)
    axes[0].axhline(TARGET_BYTES / 1e6, color="gray", linestyle=":", label="target")
    room = (LIMIT_BYTES - two[0].idle_bytes) / 1e6
    axes[1].axhline(room, color="gray", linestyle=":", label="limit, about")
    for panel in axes:
        panel.set_ylim(bottom=0)
        panel.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    plot.savefig(file, metadata={"Date": None})
    plt.close(plot)


def main() -> int:
    """0 if all streamed lists came whole within the target, and those in one piece did not fit."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--objects", type=int, default=LARGE_OBJECTS, help="of the first part")
    parser.add_argument("--object-bytes", type=int, default=LARGE_BYTES)
    parser.add_argument("--lists", type=int, default=LISTS)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the figures there as JSON")
    asked = parser.parse_args()
    titles = []
    one = large(asked.objects, asked.object_bytes, asked.lists)
    size = asked.objects * asked.object_bytes
    titles.append(f"{asked.lists} lists of {size / 1e9:.2g} GB")
    print(f"{titles[0]}, no limit:\n    {one}", flush=True)
    two = bounded(BOUNDED_OBJECTS, LARGE_BYTES, asked.lists, LIMIT_BYTES)
    titles.append(f"{asked.lists} lists of 100 MB, server limited to {LIMIT_BYTES >> 20} MiB")
    print(f"{titles[1]}:", *(f"\n    {found}" for found in two))
    if asked.plot:
        draw(one, two, titles, asked.plot)
    if asked.keep:
        figures: list[dict[str, Any]] = [found._asdict() for found in (one, *two)]
        asked.keep.write_text(json.dumps(figures, indent=1) + "\n")
    fits = one.above_idle < TARGET_BYTES and one.whole == two[0].whole == asked.lists
    return 0 if fits and two[1].whole < asked.lists else 1


if __name__ == "__main__":
    sys.exit(main())
