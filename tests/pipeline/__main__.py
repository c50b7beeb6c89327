"""`python -m tests.pipeline`: every row, each measurement in a process of its own.

--objects 1000000   also the initial load of as many, which takes some 3 GB for a million
--quick             a sample of everything, in seconds
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.pipeline import measure

ROOT = Path(__file__).parents[2]


def table(row: measure.Row) -> str:
    """A row as one line for each number."""
    lines = [row["row"]]
    lines += [f"    {name:<28}{value:>14,.2f}" for name, value in row.items() if name != "row"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.pipeline")
    parser.add_argument("--objects", type=int, action="append", default=[])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    os.environ["BTREECACHE_VERIFY"] = "0"
    few = 10 if args.quick else 1
    work: list[tuple[Callable[..., measure.Row], tuple[object, ...]]] = [
        (measure.wire_to_window, (100_000 // few, 20_000 // few, per, 5)) for per in (1, 50)
    ]
    work.append((measure.from_simulator, (10_000 // few, 20_000 // few)))
    for form in ("JSON", "protobuf"):
        work.append((measure.kubernetes_to_window, (20_000 // few, 20_000 // few, 5, form)))
    etcds = Path(os.environ.get("BTREECACHE_ETCD_DIR") or ROOT / ".cache" / "etcd")
    for binary in sorted(etcds.glob("3.*/etcd")):
        work.append((measure.from_etcd, (binary, 20_000 // few)))
        work.append((measure.page_at_a_past_revision, (binary, 10_000 // few, 2_000 // few, 200)))
    for objects in [100_000 // few, *args.objects]:
        work.append((measure.load_and_update, (objects, 100_000 // few)))
    rows = []
    for function, arguments in work:
        # A fresh process: peak memory and the collector's young generations start from nothing.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            rows.append(pool.submit(function, *arguments).result())
        sys.stdout.write(table(rows[-1]) + "\n")
        sys.stdout.flush()
    kept = ROOT / ".cache" / "bench"
    kept.mkdir(parents=True, exist_ok=True)
    report = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "rows": rows,
    }
    path = kept / time.strftime("pipeline-%Y%m%dT%H%M%S.json")
    path.write_text(json.dumps(report, indent=2) + "\n")
    sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
