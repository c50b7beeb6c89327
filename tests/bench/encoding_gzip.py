"""`python -m tests.bench.encoding_gzip`: gzip of a LIST of 10,000 pods of 2.6 KB, after changes.

Each round changes some pods at random, lists, and compresses the same body whole with zlib at level
1, in this process. CPU time of one thread; the ratio is the median over rounds.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import gzip
import zlib
from collections.abc import Callable
from itertools import islice
from random import Random
from statistics import median
from time import process_time
from typing import NamedTuple

import msgspec

from btreecache.block import Blocks
from btreecache.codec.transcode import json_of
from btreecache.element import Element
from btreecache.encoding.deflate import LEVEL, RunKind, gzip_list
from btreecache.encoding.parts import Parts
from btreecache.tree import Tree
from etcdsim.clock import VirtualClock
from etcdsim.kubernetes import Kubernetes
from etcdsim.model import Model
from etcdsim.prng import Prng
from tests.bench.table import duration

OBJECTS = 10_000
OBJECT_BYTES = 2_600
HEAD = b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":['
FOOT = b"]}\n"
#: How a pod begins as it is stored; an item of a list is without.
STORED = b'{"apiVersion":"v1","kind":"Pod",'
#: What of the pods changes between two lists, and how many times cheaper a LIST is to be then.
TARGETS = ((0.0, 50), (0.001, 15), (0.01, 6))


class Measured(NamedTuple):
    """One row: seconds of CPU, medians; ours against the whole body compressed anew.

    `ratio` is to zlib.compress, as the design's target says, `gzip_ratio` to what would be sent,
    with a CRC instead of an Adler checksum. `first_s`: the list that finds nothing kept.
    """

    changed: float
    first_s: float
    ours_s: float
    zlib_s: float
    ratio: float
    gzip_ratio: float
    size_ratio: float
    runs: float


def item(element: Element) -> bytes:
    """A pod in a list: no kind, no apiVersion."""
    return b"{" + element.value[len(STORED) :]


def pods(seed: int) -> Tree[bytes, Element]:
    """The simulator's pods, with as many environment variables as fit OBJECT_BYTES."""
    model = Model()
    Kubernetes(Prng(seed), VirtualClock()).load(model, OBJECTS * 5 // 2)
    stored = model.range(b"/registry/pods/", b"/registry/pods0").kvs
    elements = [
        Element(kv.key, _fitted(kv.value), kv.mod_revision, kv.create_revision, kv.version)
        for kv in islice(stored, OBJECTS)
    ]
    assert len(elements) == OBJECTS
    return Tree.from_sorted((element.key, element) for element in elements)


def _fitted(value: bytes) -> bytes:
    pod = {"apiVersion": "v1", "kind": "Pod"} | msgspec.json.decode(json_of(value))
    container = pod["spec"]["containers"][0]
    for probe in ("livenessProbe", "readinessProbe"):
        del container[probe]
    variables = container["env"]
    while variables and len(msgspec.json.encode(pod)) > OBJECT_BYTES:
        variables.pop()
    return msgspec.json.encode(pod)


def touched(element: Element, revision: int) -> Element:
    """The pod after it was restarted."""
    value = element.value.replace(b'"restartCount":', b'"restartCount":%d' % (revision % 9 + 1))
    return Element(element.key, value, revision, element.create_revision, element.version + 1)


def edited(
    tree: Tree[bytes, Element], share: float, rng: Random, base: int
) -> Tree[bytes, Element]:
    """Each change a revision of its own, as on a real cluster."""
    for rank in rng.sample(range(len(tree)), round(share * len(tree))):
        base += 1
        key, element = tree.select(rank)
        tree = tree.set(key, touched(element, base))
    return tree


def _timed(work: Callable[[], int]) -> tuple[float, int]:
    begin = process_time()
    result = work()
    return process_time() - begin, result


def measure(tree: Tree[bytes, Element], share: float, rounds: int, rng: Random) -> Measured:
    """Lists after changes of `share` of the pods."""
    parts = Parts(Blocks(256 << 20))
    form = RunKind("pods", item, b",")
    seconds, whole, zipped, sizes, runs = [], [], [], [], []
    for round_ in range(rounds + 1):
        before = parts.blocks.stats().computed
        ours_s, ours = _timed(lambda: sum(map(len, gzip_list(parts, form, tree, HEAD, FOOT))))
        body = HEAD + b",".join(map(item, tree.values())) + FOOT
        zlib_s, theirs = _timed(lambda: len(zlib.compress(body, LEVEL)))
        seconds.append(ours_s)
        whole.append(zlib_s)
        zipped.append(_timed(lambda: len(zlib.compress(body, LEVEL, 16 + zlib.MAX_WBITS)))[0])
        sizes.append(ours / theirs)
        runs.append(parts.blocks.stats().computed - before)
        old = tree
        tree = edited(tree, share, rng, round_ << 20)
    assert gzip.decompress(b"".join(gzip_list(parts, form, old, HEAD, FOOT))) == body
    first_s, *seconds = seconds
    return Measured(
        share,
        first_s,
        median(seconds),
        median(whole[1:]),
        median(b / a for a, b in zip(seconds, whole[1:], strict=True)),
        median(b / a for a, b in zip(seconds, zipped[1:], strict=True)),
        median(sizes),
        median(runs[1:]),
    )


def rows(rounds: int = 15, seed: int = 1) -> list[Measured]:
    """The rows of TARGETS."""
    tree, rng = pods(seed), Random(seed)
    return [measure(tree, share, rounds, rng) for share, _ in TARGETS]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.encoding_gzip", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for row, (_, target) in zip(rows(args.rounds, args.seed), TARGETS, strict=True):
        print(
            f"{row.changed:6.1%} changed: {duration(row.ours_s)}, {duration(row.first_s)} at first;"
            f" zlib {duration(row.zlib_s)}: {row.ratio:.1f}x (target {target}x),"
            f" as gzip {row.gzip_ratio:.1f}x; size {row.size_ratio - 1:+.1%};"
            f" blocks computed {row.runs:.0f}"
        )


if __name__ == "__main__":
    main()
