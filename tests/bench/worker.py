"""One rival in a process of its own: a JSON request a line on stdin, a JSON reply on stdout.

    python -m tests.bench.worker NAME FOLDER [--tree PATH]

Keys are indices into the file of keys named by `load`. What an operation is given (new values,
probes) is made before the clock starts; what it leaves behind is freed after the clock stopped.
The garbage collector runs as it would for a user. `--tree`: measure the btreecache of that path.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.keys import read_key_file
from tests.bench.rivals import RIVALS, Rival

Request = dict[str, Any]
Reply = dict[str, Any]

#: No piece is timed that holds more: the budget is looked at in between.
PIECE_MAX = 4096


def timed(n: int, budget_s: float, op: Callable[[int, int], Any]) -> Reply:
    """Run `op(from, to)` over ever larger pieces of `n` operations until the budget is spent."""
    gc.collect()
    spent, done, piece = 0.0, 0, 1
    while done < n and spent < budget_s:
        to = min(n, done + piece)
        began = time.perf_counter()
        op(done, to)
        spent += time.perf_counter() - began
        done, piece = to, min(PIECE_MAX, piece * 2)
    return {"ops": done, "seconds": spent}


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Worker:
    """Answers requests for one rival."""

    def __init__(self, rival: Rival) -> None:
        self.rival = rival
        self.keys: list[bytes] = []
        self.past: Any = None
        self.pairs: dict[int, tuple[Any, Any]] = {}

    def _new(self, request: Request) -> list[tuple[bytes, bytes]]:
        """The keys of the request, each with a value that nobody has had before."""
        stamp = request["stamp"]
        return [(self.keys[k], b"%016d" % (stamp + i)) for i, k in enumerate(request["keys"])]

    def answer(self, request: Request) -> Reply:
        """Do one request."""
        if request["do"] in ("page", "count", "diff") and not hasattr(self.rival, request["do"]):
            return {"lacks": request["do"]}
        return getattr(self, f"do_{request['do']}")(request)

    def do_hello(self, _: Request) -> Reply:
        return {"version": f"{platform.python_implementation()} {platform.python_version()}"}

    def do_load(self, request: Request) -> Reply:
        self.keys = read_key_file(Path(request["file"]))
        n = request["n"]
        pairs = [(key, b"%016d" % i) for i, key in enumerate(self.keys[:n])]
        reply = timed(1, 1e9, lambda _, __: self.rival.load(pairs))
        self.past = self.rival.snapshot()
        return reply | {"ops": n}

    def do_put(self, request: Request) -> Reply:
        pairs, kept = self._new(request), []  # type: ignore[var-annotated]
        return timed(len(pairs), request["budget_s"], lambda a, b: self.rival.put(pairs[a:b], kept))

    def do_delete(self, request: Request) -> Reply:
        keys, kept = [self.keys[k] for k in request["keys"]], []  # type: ignore[var-annotated]
        return timed(
            len(keys), request["budget_s"], lambda a, b: self.rival.delete(keys[a:b], kept)
        )

    def do_slide(self, request: Request) -> Reply:
        """`put` with a window that is full: with each snapshot taken the oldest is dropped."""
        pairs, filled = self._new(request), []  # type: ignore[var-annotated]
        # What copies everything could not fill the window in hours, nor hold it: then a small one.
        size = timed(
            request["window"],
            5 * request["budget_s"],
            lambda a, b: self.rival.put(pairs[a:b], filled),
        )["ops"]
        kept, rest = deque(filled, maxlen=size), pairs[size:]
        filled.clear()
        reply = timed(len(rest), request["budget_s"], lambda a, b: self.rival.put(rest[a:b], kept))
        return reply | {"window": size}

    def do_get(self, request: Request) -> Reply:
        keys, found = [self.keys[k] for k in request["keys"]], []  # type: ignore[var-annotated]
        reply = timed(
            len(keys),
            request["budget_s"],
            lambda a, b: found.append(self.rival.get(self.past, keys[a:b])),
        )
        return reply | {"answer": sum(value is not None for part in found for value in part)}

    def do_page(self, request: Request) -> Reply:
        starts, limit = [self.keys[k] for k in request["keys"]], request["limit"]
        page, past, read = self.rival.page, self.past, []  # type: ignore[attr-defined]
        reply = timed(
            len(starts),
            request["budget_s"],
            lambda a, b: read.extend([len(page(past, start, limit)) for start in starts[a:b]]),
        )
        return reply | {"answer": sum(read)}

    def do_scan(self, request: Request) -> Reply:
        def scan(a: int, b: int) -> None:
            for _ in range(a, b):
                deque(self.rival.items(self.past), maxlen=0)

        return timed(request["n"], request["budget_s"], scan)

    def do_count(self, request: Request) -> Reply:
        ends = [self.keys[k] for k in request["keys"]]
        ranges = list(zip(ends[::2], ends[1::2], strict=True))
        count, past, counted = self.rival.count, self.past, []  # type: ignore[attr-defined]
        reply = timed(
            len(ranges),
            request["budget_s"],
            lambda a, b: counted.extend([count(past, *ends) for ends in ranges[a:b]]),
        )
        return reply | {"answer": sum(counted)}

    def do_diff(self, request: Request) -> Reply:
        apart = request["apart"]
        if apart not in self.pairs:
            old = self.rival.snapshot()
            self.rival.advance(self._new(request))
            self.pairs[apart] = old, self.rival.snapshot()
        old, new = self.pairs[apart]
        differ: list[int] = []
        diff = self.rival.diff  # type: ignore[attr-defined]
        reply = timed(
            request["n"],
            request["budget_s"],
            lambda a, b: differ.extend([diff(old, new) for _ in range(a, b)]),
        )
        return reply | {"answer": differ[0]}

    def do_retained(self, request: Request) -> Reply:
        """Bytes of one retained snapshot: growth of the resident set, and traced where it can."""
        pairs, kept = self._new(request), []  # type: ignore[var-annotated]
        gc.collect()
        disk, resident = self.rival.disk_bytes(), resident_bytes()
        reply = timed(
            len(pairs), request["budget_s"], lambda a, b: self.rival.put(pairs[a:b], kept)
        )
        done = reply["ops"]
        gc.collect()
        reply["rss_bytes"] = (resident_bytes() - resident) / done
        if disk is not None:
            reply["disk_bytes"] = ((self.rival.disk_bytes() or 0) - disk) / done
        elif self.rival.traced:
            kept.clear()
            tracemalloc.start()
            some = self._new(request | {"keys": request["keys"][:done], "stamp": -1})
            live, _ = tracemalloc.get_traced_memory()
            self.rival.put(some, kept)
            gc.collect()
            reply["live_bytes"] = (tracemalloc.get_traced_memory()[0] - live) / done
            tracemalloc.stop()
        return reply


def main() -> None:
    parser = argparse.ArgumentParser(description="one rival, driven over stdin and stdout")
    parser.add_argument("name", choices=list(RIVALS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tree", type=Path, help="where the btreecache to measure is")
    args = parser.parse_args()
    if args.tree:
        sys.path.insert(0, str(args.tree.resolve()))
        import btreecache

        assert Path(btreecache.__file__).is_relative_to(args.tree.resolve()), btreecache.__file__
    worker = Worker(RIVALS[args.name](args.folder))
    for line in sys.stdin:
        try:
            reply = worker.answer(json.loads(line))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
    worker.rival.close()


if __name__ == "__main__":
    main()
