"""The simulator's two handles: the digests, progress marks, compaction."""

from __future__ import annotations

import ast
import doctest
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import pytest

import etcdsim
from etcdsim.errors import ErrCompacted, ErrFutureRev
from etcdsim.model import Model, prefix_range
from etcdsim.simulator import Simulator
from etcdsim.traffic import PROFILES

ALL = (b"\0", b"\0")


def plain_digest(model: Model, prefix: bytes, with_values: bool, revision: int) -> tuple[int, int]:
    total = 0
    kvs = model.range(*prefix_range(prefix), revision=revision).kvs
    for kv in kvs:
        element = blake2b(digest_size=32)
        element.update(len(kv.key).to_bytes(8, "big"))
        element.update(kv.key)
        element.update(kv.mod_revision.to_bytes(8, "big"))
        if with_values:
            element.update(kv.value)
        total += int.from_bytes(element.digest(), "big")
    return len(kvs), total % 2**256


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("with_values", [False, True])
@pytest.mark.parametrize("early", [False, True])
def test_running_digests_equal_recomputed_ones_at_every_revision(
    profile: str, with_values: bool, early: bool
) -> None:
    simulator = Simulator(profile, seed=4, objects=30)
    prefix = b"/registry/pods/" if profile == "kubernetes" else b"/registry/"
    truth = simulator.truth
    if early:
        truth.track(prefix, with_values)
    simulator.load()
    for _ in range(120):
        simulator.step()
    if not early:
        truth.track(prefix, with_values)
    for revision in range(1, simulator.model.revision + 1):
        at = (truth.count_at(revision), truth.digest_at(revision))
        assert at == truth.recompute_digest(revision)
        assert at == plain_digest(simulator.model, prefix, with_values, revision)


def test_digests_after_a_compaction() -> None:
    simulator = Simulator("churn", objects=30)
    simulator.load()
    for _ in range(100):
        simulator.step()
    simulator.truth.track(b"", with_values=False)
    before = simulator.truth.digest_at(50)
    simulator.compact(100)
    assert simulator.truth.digest_at(50) == before
    with pytest.raises(ErrCompacted):
        simulator.truth.recompute_digest(50)
    simulator.truth.track(b"", with_values=False)
    with pytest.raises(ErrCompacted):
        simulator.truth.digest_at(99)
    with pytest.raises(ErrFutureRev):
        simulator.truth.digest_at(132)
    for revision in range(100, 132):
        at = (simulator.truth.count_at(revision), simulator.truth.digest_at(revision))
        assert at == simulator.truth.recompute_digest(revision)


def test_pages_and_changed_keys_are_of_the_tracked_prefix() -> None:
    simulator = Simulator("kubernetes", objects=100, seed=2)
    truth = simulator.truth
    with pytest.raises(RuntimeError, match="call track"):
        truth.count_at(1)
    truth.track(b"/registry/pods/", with_values=False)
    simulator.load()
    for _ in range(200):
        simulator.step()
    for revision in (50, 101, simulator.model.revision):
        expected = truth.range(*prefix_range(b"/registry/pods/"), revision=revision).kvs
        start, found = None, []
        while True:
            page = truth.page(revision, start, 7)
            found += page.kvs
            if not page.more:
                break
            assert len(page.kvs) == 7
            start = page.kvs[-1].key + b"\0"
        assert found == expected == truth.page(revision).kvs
        assert truth.page(revision, b"").kvs == expected
    for revision in range(102, simulator.model.revision + 1):
        keys = [kv.key for kv in simulator.model.records_at(revision)]
        pods = tuple(key for key in keys if key.startswith(b"/registry/pods/"))
        assert truth.changed_keys(revision) == pods
    assert truth.page(50, b"/registry/zzz").kvs == []
    with pytest.raises(ErrFutureRev):
        truth.page(simulator.model.revision + 1)


def test_marks_on_the_feed_are_at_most_20_revisions_apart_and_one_ends_it() -> None:
    simulator = Simulator("hot_key", objects=10)
    simulator.load()
    stream = simulator.feed.watch(*ALL, 0)
    for _ in range(500):
        simulator.step()
    assert simulator.finish() == 0
    marks = [11] + [r.header_revision for r in iter(stream.poll, None) if r.progress]
    gaps = {later - sooner for sooner, later in pairwise(marks)}
    assert max(gaps) <= 20
    assert len(gaps) > 5
    assert marks[-1] == simulator.model.revision == simulator.feed.current_revision()
    stream.request_progress()
    response = stream.poll()
    assert response is not None
    assert response.progress


def test_a_stream_behind_a_compaction_is_cancelled() -> None:
    simulator = Simulator("hot_key", objects=10)
    simulator.load()
    stream = simulator.feed.watch(*ALL, 0)
    for _ in range(50):
        simulator.step()
    simulator.compact(40)
    response = stream.poll()
    assert response is not None
    assert (response.canceled, response.compact_revision) == (True, 40)
    assert stream.poll() is None
    assert simulator.feed.range(*ALL, revision=40).count > 0


def test_the_seed_decides_and_nothing_else() -> None:
    def final(seed: int, watched: bool = False) -> object:
        simulator = Simulator("kubernetes", seed=seed, objects=50)
        simulator.load()
        if watched:
            simulator.feed.watch(*ALL, 0)
            simulator.truth.track(b"", with_values=True)
        for _ in range(200):
            simulator.step()
        return simulator.model.range(*ALL).kvs, simulator.clock.now_ms

    assert final(1) == final(1) == final(1, watched=True)
    assert final(1) != final(2)


def test_the_example_of_the_package_runs() -> None:
    assert doctest.testmod(etcdsim) == (0, 9)


def test_the_package_stands_alone_and_reads_no_clock() -> None:
    """The truth shares no code with what is checked against it, and depends on its seed only."""
    edge = {"cli.py", "record_etcd.py"}  # a real etcd lives in real time
    for path in Path(etcdsim.__file__).parent.glob("*.py"):
        banned = {"btreecache", "random", "secrets", "uuid"}
        banned |= set() if path.name in edge else {"time", "threading"}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert not banned & {name.split(".")[0] for name in names}, path.name
