"""The profiles: one revision a step, a population that stays, and the shape that each promises."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from btreecache.codec.transcode import json_of
from etcdsim.model import KeyValue
from etcdsim.simulator import Simulator
from etcdsim.traffic import PROFILES

ALL = (b"\0", b"\0")


def ran(profile: str, objects: int, writes: int, seed: int = 0) -> Simulator:
    simulator = Simulator(profile, seed=seed, objects=objects)
    simulator.load()
    for _ in range(writes):
        simulator.step()
    return simulator


def changes(simulator: Simulator, first: int) -> list[list[KeyValue]]:
    model = simulator.model
    return [list(model.records_at(r)) for r in range(first, model.revision + 1)]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("objects", [1, 2, 3, 7, 40, 500])
def test_load_is_one_put_per_object_and_a_step_is_one_revision(profile: str, objects: int) -> None:
    simulator = Simulator(profile, seed=objects, objects=objects)
    simulator.load()
    assert simulator.model.revision == 1 + objects
    assert simulator.model.range(*ALL).count == objects
    before = simulator.clock.now_ms
    for _ in range(400):
        simulator.step()
    assert simulator.model.revision == 401 + objects
    assert simulator.clock.now_ms > before
    several = sum(len(records) > 1 for records in changes(simulator, 2 + objects))
    assert several >= 4, "split needs revisions of several events"
    assert all(kv.key.startswith(b"/registry/") for kv in simulator.model.scan(*ALL))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_population_stays_near_the_number_of_objects(profile: str) -> None:
    simulator = Simulator(profile, objects=1000, seed=3)
    simulator.load()
    counts = []
    for _ in range(60):
        for _ in range(100):
            simulator.step()
        counts.append(simulator.model.range(*ALL, count_only=True).count)
    assert 850 < min(counts) <= max(counts) < 1050
    assert 930 < sum(counts) // len(counts) < 1030


def test_kubernetes_looks_like_a_cluster() -> None:
    simulator = ran("kubernetes", 2000, 8000)
    sizes: dict[bytes, list[int]] = {}
    for kv in simulator.model.scan(*ALL):
        stored = kv.value.startswith(b"k8s\0")
        assert stored == (b"example.com" not in kv.key), "custom resources alone are JSON"
        body = json.loads(json_of(kv.value) if stored else kv.value)
        *_, name = kv.key.decode().split("/")
        assert {"apiVersion", "kind", "metadata"} <= set(body)
        assert body["metadata"]["name"] == name
        assert body["metadata"].get("namespace", name).encode() in kv.key
        assert {"uid", "creationTimestamp"} <= set(body["metadata"])
        sizes.setdefault(kv.key.split(b"/")[2], []).append(len(kv.value))
    bounds = {
        b"pods": (1500, 2500), b"minions": (4800, 8500), b"leases": (200, 300),
        b"events": (350, 500), b"configmaps": (200, 140_000), b"secrets": (200, 140_000),
        b"example.com": (300, 140_000),
    }  # fmt: skip
    assert set(sizes) == set(bounds)
    for sort, (least, most) in bounds.items():
        assert least <= min(sizes[sort]), sort
        assert max(sizes[sort]) <= most, sort
    assert max(sizes[b"secrets"] + sizes[b"configmaps"]) > 8000  # the long tail
    writes = Counter(kv.key.split(b"/")[2] for kvs in changes(simulator, 2002) for kv in kvs)
    assert writes[b"leases"] > 0.35 * 8000
    assert writes[b"pods"] > writes[b"events"] > writes[b"minions"] > 0
    deleted = Counter(
        kv.key.split(b"/")[2] for kvs in changes(simulator, 2002) for kv in kvs if not kv.version
    )
    assert set(deleted) == {b"pods", b"events", b"configmaps", b"secrets", b"example.com"}
    assert any(len(kvs) > 12 for kvs in changes(simulator, 2002)), "a namespace is emptied at once"


def test_churn_creates_deletes_and_is_not_only_utf8() -> None:
    simulator = ran("churn", 200, 4000)
    records = [kv for kvs in changes(simulator, 202) for kv in kvs]
    assert len({kv.key for kv in records}) > 380  # of 400
    recreated = [kv for kv in records if kv.version == 1]
    assert len(recreated) > 800
    several = [kvs for kvs in changes(simulator, 202) if len(kvs) > 1]
    assert 300 < len(several) < 500
    assert all(2 <= len(kvs) <= 8 for kvs in several)
    assert any({bool(kv.version) for kv in kvs} == {True, False} for kvs in several)
    for texts in ([kv.key for kv in records], [kv.value for kv in records]):
        odd = sum(not is_utf8(text) for text in texts)
        assert 0.01 * len(texts) < odd < 0.3 * len(texts)
    assert any(kv.version and not kv.value for kv in records)


def is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_hot_key_has_hot_keys() -> None:
    simulator = ran("hot_key", 1000, 3000)
    records = Counter(kv.key for kvs in changes(simulator, 1002) for kv in kvs)
    assert sum(count for _, count in records.most_common(4)) > 0.9 * records.total()


def test_lease_storm_deletes_many_keys_at_once() -> None:
    simulator = ran("lease_storm", 2000, 6000)
    storms = [kvs for kvs in changes(simulator, 2002) if not kvs[0].version]
    assert len(storms) > 20
    assert max(map(len, storms)) > 100
    for kvs in storms:
        assert [kv.key for kv in kvs] == sorted(kv.key for kv in kvs)


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"^unknown profile 'nomad': known profiles are kubernetes, churn, hot_key, ",
    ):
        Simulator("nomad")
    with pytest.raises(ValueError, match="at least 1 object"):
        Simulator("churn", objects=0)
