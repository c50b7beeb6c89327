"""Two plots: `python -m tests.bench.plots DIR` writes SVGs, and the figures as JSON beside them.

Cost of an update from 1k to 4M keys: it may grow with log n only. Memory of a window of up to 100k
revisions: it may cost what the revisions changed, no more.

Some 80 s of CPU time and 2 GB in all. The sizes take turns, round by round, so a slow minute hits
all of them, and of each the fastest round counts: what else a machine does can only add to it.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import tracemalloc
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from btreecache.cache import Cache
from btreecache.element import Element
from btreecache.event import Batch, Event
from btreecache.node import seek
from btreecache.window import Bounds
from tests.bench.harness import started
from tests.bench.keys import pod_keys, write_key_file
from tests.bench.rivals import Ours
from tests.bench.table import per_op

SIZES = (1_000, 4_000, 16_000, 64_000, 250_000, 1_000_000, 4_000_000)
WINDOW_KEYS = 100_000
REVISIONS = 100_000
#: Points of the window's line.
POINTS = 20
ROUNDS = 20
OPS = 5_000


def update_costs(
    sizes: tuple[int, ...], rounds: int, rng: Random
) -> list[tuple[int, float, float]]:
    """(keys, µs of an update in the fastest round, in the median one), every snapshot kept."""
    costs: list[list[float]] = [[] for _ in sizes]
    with (
        tempfile.TemporaryDirectory() as folder,
        started([Ours.name] * len(sizes)) as (workers, _),
    ):
        for n, worker in zip(sizes, workers, strict=True):
            file = Path(folder) / "keys"
            write_key_file(file, n, 1, rng)
            worker.ask({"do": "load", "file": str(file), "n": n})
        for turn in range(rounds):
            for n, worker, cost in zip(sizes, workers, costs, strict=True):
                keys = [rng.randrange(n) for _ in range(OPS)]
                reply = worker.ask(
                    {"do": "put", "keys": keys, "stamp": 10**9 + turn * 10**6, "budget_s": 1.0}
                )
                cost.append(1e6 * per_op(reply))
    return [(n, min(cost), median(cost)) for n, cost in zip(sizes, costs, strict=True)]


def window_memory(
    keys: int, revisions: int, points: int, rng: Random
) -> list[tuple[int, float, float]]:
    """(revisions in the window, MB that it holds more than its first snapshot, MB changed).

    A real window, filled by `Cache.apply` with a batch of one update for each revision. What a
    revision changed is counted object by object: the nodes on the written path, the element with
    its value, event, batch and tree, and nothing else.
    """
    cache = Cache(b"/registry/", bounds=Bounds(age_s=None))
    names = pod_keys(keys, rng)
    versions = [1] * keys
    cache.replace(1, (Element(key, b"%016d" % i, 1, 1, 1) for i, key in enumerate(names)))
    figures = [(1, 0.0, 0.0)]
    tracemalloc.start()
    try:
        for revision in range(2, revisions + 1):
            at = rng.randrange(keys)
            versions[at] += 1
            value = b"%016d" % (10**9 + revision)
            element = Element(names[at], value, revision, 1, versions[at])
            cache.apply(Batch(revision, (Event(names[at], element),)))
            if revision * points % revisions < points:
                window = cache.state.window
                assert window is not None
                batch = window.batch_after(revision - 1)
                assert batch is not None
                path, leaf, _, _ = seek(window.newest._root, names[at])
                parts = [*[node for node, _ in path], leaf, element, value, revision, batch]
                parts += [batch.events, batch.events[0], window.newest]
                changed = sum(map(sys.getsizeof, parts))
                held = tracemalloc.get_traced_memory()[0]
                figures.append((len(window), held / 1e6, len(window) * changed / 1e6))
    finally:
        tracemalloc.stop()
    return figures


def draw(figures: dict[str, Any], folder: Path) -> None:
    """The two SVGs. Each has zero at its lower edge, so that a slope is no trick of the axis."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "btreecache"
    mpl.rcParams["svg.fonttype"] = "none"  # Text stays text: small files that can be searched.
    from matplotlib import pyplot as plt

    for name, points, labels, x, y in (
        ("update-cost", figures["updates"], ("fastest round", "median round"),
         "keys", "µs of an update, snapshot kept"),
        ("window-memory", figures["window"], ("held by the window", "changed by its revisions"),
         "revisions in the window", "MB"),
    ):  # fmt: skip
        plot, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
        for column, style in ((1, "o-"), (2, "--")):
            line = [(point[0], point[column]) for point in points]
            axes.plot(*zip(*line, strict=True), style, label=labels[column - 1])
        if name == "update-cost":
            axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.3)
        axes.legend()
        plot.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(plot)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    measured = {
        "python": platform.python_version(),
        "updates": update_costs(SIZES, ROUNDS, Random(0)),
        "window_keys": WINDOW_KEYS,
        "window": window_memory(WINDOW_KEYS, REVISIONS, POINTS, Random(1)),
    }
    (target / "plots.json").write_text(json.dumps(measured, indent=1) + "\n")
    draw(measured, target)
