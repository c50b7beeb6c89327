"""Two plots: `python -m tests.bench.plots DIR` writes SVGs, and the figures as JSON beside them.

Cost of an update from 1k to 4M keys: it may grow with log n only. Memory of a window of up to 100k
revisions: it may cost what the revisions changed, no more.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from tests.bench.harness import started
from tests.bench.keys import write_key_file
from tests.bench.rivals import Ours
from tests.bench.table import per_op

SIZES = (1_000, 4_000, 16_000, 64_000, 250_000, 1_000_000, 4_000_000)
WINDOWS = (1_000, 5_000, 20_000, 50_000, 100_000)
WINDOW_KEYS = 100_000
ROUNDS = 5


def measure(sizes: tuple[int, ...], windows: tuple[int, ...], keys: int) -> dict[str, Any]:
    """(keys, µs of an update) and (revisions, MB of their window over `keys` keys)."""
    rng, updates, memory = Random(0), [], []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder, started([Ours.name]) as ([ours], _):
            load(ours, Path(folder) / "keys", n, rng)
            rounds = [
                ours.ask({"do": "put", "keys": picks(rng, n, 20_000), "stamp": 10**9 + turn * 10**6,
                          "budget_s": 0.5})
                for turn in range(ROUNDS)
            ]  # fmt: skip
            updates.append((n, 1e6 * median(per_op(reply) for reply in rounds)))
    for count in windows:
        with tempfile.TemporaryDirectory() as folder, started([Ours.name]) as ([ours], _):
            load(ours, Path(folder) / "keys", keys, rng)
            reply = ours.ask({"do": "retained", "keys": picks(rng, keys, count), "stamp": 10**9,
                              "budget_s": 60})  # fmt: skip
            memory.append((reply["ops"], reply["ops"] * reply["live_bytes"] / 1e6))
    return {"updates": updates, "window_keys": keys, "window": memory}


def load(ours: Any, file: Path, n: int, rng: Random) -> None:
    write_key_file(file, n, 1, rng)
    ours.ask({"do": "load", "file": str(file), "n": n})


def picks(rng: Random, n: int, count: int) -> list[int]:
    return [rng.randrange(n) for _ in range(count)]


def draw(figures: dict[str, Any], folder: Path) -> None:
    """The two SVGs. Each has zero at its lower edge, so that a slope is no trick of the axis."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "btreecache"
    from matplotlib import pyplot as plt

    for name, points, x, y in (
        ("update-cost", figures["updates"], "keys", "µs of an update, snapshot kept"),
        ("window-memory", figures["window"], "revisions in the window", "MB"),
    ):
        plot, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
        axes.plot(*zip(*points, strict=True), marker="o")
        if name == "update-cost":
            axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.3)
        plot.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(plot)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    measured = measure(SIZES, WINDOWS, WINDOW_KEYS)
    (target / "plots.json").write_text(json.dumps(measured, indent=1) + "\n")
    draw(measured, target)
