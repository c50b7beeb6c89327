"""The seeds of a run that goes on where it stopped: one line of JSON for each that is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path


def remaining(seeds: str, out: Path) -> Iterator[int]:
    """Those of FROM:TO that have no line in the file yet, which may not exist."""
    lines = out.read_text().splitlines() if out.exists() else []
    done = {json.loads(line)["seed"] for line in lines}
    return (seed for seed in range(*map(int, seeds.split(":"))) if seed not in done)
