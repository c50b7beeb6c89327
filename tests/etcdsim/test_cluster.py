"""The `cluster` profile: whenever one looks, it makes sense."""

from __future__ import annotations

import json
from typing import Any

import pytest

from etcdsim import Simulator

#: How often the cluster is looked at, and after how many steps each time.
LOOKS, STEPS = 12, 90


def objects_in(simulator: Simulator, path: str) -> list[Any]:
    """The objects below a path, as they are stored."""
    prefix = f"/registry/{path}/".encode()
    found = simulator.model.range(prefix, prefix[:-1] + b"0").kvs
    return [json.loads(one.value) for one in found]


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    made = Simulator("cluster", seed=5, objects=60)
    made.load()
    return made


def check(simulator: Simulator) -> None:
    """Whatever is named is there; what deployments and replica sets say of their pods is true."""
    namespaces = {one["metadata"]["name"] for one in objects_in(simulator, "namespaces")}
    nodes = objects_in(simulator, "minions")
    deployments = objects_in(simulator, "deployments")
    sets = objects_in(simulator, "replicasets")
    pods = objects_in(simulator, "pods")
    leases = objects_in(simulator, "leases")
    events = objects_in(simulator, "events")
    uids = {
        (one["kind"], one["metadata"]["name"], one["metadata"]["uid"])
        for one in (*nodes, *deployments, *sets)
    }
    for one in (*sets, *pods, *leases):
        (owner,) = one["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) in uids
    for one in (*deployments, *sets, *pods, *leases, *events):
        assert one["metadata"]["namespace"] in namespaces
    names = {one["metadata"]["name"] for one in nodes}
    for pod in pods:
        assert pod["spec"].get("nodeName", "node-1") in names
        assert (pod["status"]["phase"] == "Running") == ("podIP" in pod["status"])
    for one in deployments:
        status, wanted = one["status"], one["spec"]["replicas"]
        assert 0 <= status["readyReplicas"] <= status["replicas"] <= 2 * wanted + 6
        assert status["updatedReplicas"] <= status["replicas"]
    per_app: dict[tuple[str, str], int] = {}
    for one in sets:
        name = one["metadata"]["ownerReferences"][0]["name"], one["metadata"]["namespace"]
        per_app[name] = per_app.get(name, 0) + 1
    # The last ones, the new one, and one that is about to be forgotten.
    assert max(per_app.values()) <= 4
    assert len(events) <= 201


def test_it_makes_sense_whenever_one_looks(simulator: Simulator) -> None:
    images: set[str] = set()
    restarts, terminating, waiting = 0, 0, 0
    for _ in range(LOOKS):
        check(simulator)
        for pod in objects_in(simulator, "pods"):
            images.add(pod["spec"]["containers"][0]["image"])
            terminating += "deletionTimestamp" in pod["metadata"]
            waiting += pod["status"]["phase"] == "Pending"
            for one in pod["status"].get("containerStatuses", ()):
                restarts = max(restarts, one["restartCount"])
        for _ in range(STEPS):
            simulator.step()
    assert len(images) > len(objects_in(simulator, "deployments"))
    assert min(restarts, terminating, waiting) > 0


def test_a_seed_is_a_cluster() -> None:
    def digest(seed: int) -> list[tuple[bytes, bytes]]:
        made = Simulator("cluster", seed=seed, objects=20)
        made.load()
        for _ in range(200):
            made.step()
        return [(one.key, one.value) for one in made.model.range(b"/", b"0").kvs]

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_the_smallest_one() -> None:
    made = Simulator("cluster", objects=1)
    made.load()
    for _ in range(300):
        made.step()
    check(made)
