"""What lists cost: `make bench-reads`.

A walk through 150,000 objects in pages of 500 beside one list of everything, and its page 299
beside its page 1, in turns in one process. Upstream, before it read pages from snapshots, answered
page 299 of such a list 80 times slower than page 1 (KEP-4988: 1.74 s, 20 ms).
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import gc
import json
from statistics import median
from time import perf_counter

from btreecache import ListOptions, Put, Store
from btreecache.codec import Kubernetes
from btreecache.reader import Reader

PREFIX = b"/registry/pods/"
OBJECTS, PAGE, ROUNDS, NAMESPACES = 150_000, 500, 7, 100


def filled(objects: int) -> Reader:
    """A reader of pods, read through the codec, spread over the namespaces."""
    codec = Kubernetes()
    store = Store(codec=codec)
    writes = []
    for at in range(objects):
        metadata = {"name": f"pod-{at:06}", "namespace": f"ns-{at % NAMESPACES:03}"}
        pod = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}
        key = PREFIX + f"{metadata['namespace']}/{metadata['name']}".encode()
        writes.append(Put(key, json.dumps(pod).encode()))
    store.txn(writes)
    return Reader(store, codec=codec)


def whole_s(reader: Reader, objects: int) -> float:
    """Seconds of one list of everything."""
    began = perf_counter()
    page = reader.list(ListOptions(), PREFIX)
    took = perf_counter() - began
    assert len(page.elements) == objects
    return took


def walk_s(reader: Reader, objects: int) -> list[float]:
    """Seconds of every page of a chain through everything."""
    token, pages, count = "", [], 0
    while token or not pages:
        began = perf_counter()
        page = reader.list(ListOptions(limit=PAGE, continue_token=token), PREFIX)
        token = page.meta.continue_token
        pages.append(perf_counter() - began)
        count += len(page.elements)
    assert count == objects
    return pages


def measure(objects: int, rounds: int) -> dict[str, float]:
    """Ratios of the medians of rounds that take turns."""
    reader = filled(objects)
    gc.freeze()
    whole_s(reader, objects)  # what is kept with nodes is counted by the first list
    wholes, walks = [], []
    for _ in range(rounds):
        wholes.append(whole_s(reader, objects))
        walks.append(walk_s(reader, objects))
    first, last = (median(walk[at] for walk in walks) for at in (1, -2))
    whole, walk = median(wholes), median(map(sum, walks))
    return {
        "whole_ms": 1e3 * whole,
        "walk_ms": 1e3 * walk,
        "walk_per_whole": walk / whole,
        "second_page_us": 1e6 * first,
        "last_but_one_us": 1e6 * last,
        "last_per_second": last / first,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.reads", description=__doc__)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    for name, value in measure(asked.objects, asked.rounds).items():
        print(f"{name:16} {value:10,.2f}")


if __name__ == "__main__":
    main()
