"""Cells to one table: medians, and ratios of paired rounds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

Cell = dict[str, Any]
DASH = "\N{EN DASH}"


def per_op(reply: dict[str, Any]) -> float:
    """Seconds of one operation of a round."""
    return reply["seconds"] / reply["ops"]


def duration(seconds: float) -> str:
    """Three digits and a unit: 812 ns, 5.31 µs, 1.20 s."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale * 0.9995:
            return f"{_digits(seconds / scale)} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def size(number: float) -> str:
    """Three digits and a unit: 1,622 B, 4.10 MB."""
    return f"{number:,.0f} B" if number < 1e5 else f"{_digits(number / 1e6)} MB"


def _digits(number: float) -> str:
    if number >= 99.95:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Ours over theirs: the median over rounds that ran side by side; below 1 ours is better."""
    return median(a / b for a, b in zip(ours, theirs, strict=False))


def ratio_text(number: float) -> str:
    """Two digits where they matter: 0.0031, 0.52, 1.48, 210."""
    if number >= 9.95:
        return f"{number:,.0f}"
    return f"{number:.2f}" if number >= 0.095 else f"{number:.2g}"


def bytes_of(reply: dict[str, Any]) -> tuple[float, str]:
    """Bytes of one retained snapshot, the best measure there is, and which: live, rss or disk."""
    for kind in ("live", "disk", "rss"):
        if value := reply.get(f"{kind}_bytes"):
            return value, kind
    return 0.0, "rss"


def cell_text(cell: Cell, ours: Cell | None) -> str:
    """`5.31 µs (0.82)`; few operations are said: `n=3`."""
    rounds = cell["rounds"]
    if not rounds or rounds == [{}]:
        return DASH
    if cell["row"].startswith("bytes"):
        value, kind = bytes_of(rounds[0])
        text = f"{size(value)} {kind}"
        if ours and value and ours["rounds"]:
            same = ours["rounds"][0].get(f"{kind}_bytes") or bytes_of(ours["rounds"][0])[0]
            text += f" ({ratio_text(same / value)})"
        return text
    times = [per_op(reply) for reply in rounds]
    text = duration(median(times))
    if ours and ours["rounds"] and ours["rounds"] != [{}]:
        text += f" ({ratio_text(ratio([per_op(r) for r in ours['rounds']], times))})"
    operations = sum(reply["ops"] for reply in rounds)
    return text if operations >= 20 else f"{text} n={operations}"


def table(
    cells: Sequence[Cell], names: Sequence[str], absent: dict[str, str], first: str
) -> list[str]:
    """A Markdown table: a line for each row and size, a column for each of `names`.

    In brackets: the time (or bytes) of `first` divided by this rival's. A rival that could not be
    started has its column too.
    """
    found = {(c["size"], c["row"], c["rival"]): c for c in cells}
    lines = ["| keys | what | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for at, row in dict.fromkeys((c["size"], c["row"]) for c in cells):
        ours = found.get((at, row, first))
        texts = []
        for name in names:
            cell = found.get((at, row, name))
            texts.append(
                "missing" if cell is None else cell_text(cell, None if name == first else ours)
            )
        lines.append(f"| {at:,} | {row} | " + " | ".join(texts) + " |")
    return lines + [f"missing: {name}: {why}" for name, why in absent.items()]
