"""What a real API server stored as protobuf, in a real etcd: what kubectl and our commands show."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.clients.cluster import TIMEOUT_S, Cluster, running
from tests.interop.clients.kubectl import Kubectl
from tests.interop.conftest import etcd_binary

pytestmark = pytest.mark.interop

DATA = Path(__file__).parents[1]
RECORDED = [
    json.loads(line)
    for name in ("data/kube-objects.jsonl", "schema/kube-objects.jsonl")
    for line in (DATA / name).read_text().splitlines()
]


KINDS = {
    "pods": "Pod", "services": "Service", "secrets": "Secret", "configmaps": "ConfigMap",
    "deployments.apps": "Deployment",
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """All that was recorded, under the keys that it had."""
    with running(etcd_binary("3.5"), "--allow-secrets") as found:
        for one in RECORDED:
            found.writer.put(one["key"].encode(), base64.b64decode(one["etcd_value"]))
        yield found


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    return Kubectl(cluster.url, tmp_path_factory.mktemp("home"))


def recorded(kind: str) -> list[dict[str, Any]]:
    return [json.loads(one["json"]) for one in RECORDED if one["kind"] == kind]


def ours(cluster: Cluster, *arguments: str, code: int = 0) -> str:
    """stdout of one of our commands."""
    command = [str(Path(sys.executable).parent / "btreecache"), *arguments]
    ended = subprocess.run(
        [*command, "--etcd", cluster.etcd.endpoint],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    return ended.stdout


def test_kubectl_shows_what_is_stored_as_protobuf(kubectl: Kubectl) -> None:
    header, *rows = kubectl.run("get", "pods", "-n", "shop").splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert sorted(row.split()[0] for row in rows) == ["bare", "full"]
    wide = kubectl.run("get", "deployments.apps", "-A", "-o", "wide").splitlines()
    assert wide[0].split()[:4] == ["NAMESPACE", "NAME", "READY", "UP-TO-DATE"]
    for resource, kind in KINDS.items():
        found = json.loads(kubectl.run("get", resource, "-n", "shop", "-o", "json"))["items"]
        wanted = {
            one["metadata"]["name"]: one.get("spec", one.get("data"))
            for one in recorded(kind)
            if one["metadata"].get("namespace") == "shop"
        }
        assert wanted
        shown = {one["metadata"]["name"]: one.get("spec", one.get("data")) for one in found}
        assert {name: without_nulls(shown[name]) for name in wanted} == without_nulls(wanted)


def without_nulls(value: Any) -> Any:
    """The recorded server wrote unset times of templates as null, newer ones leave them out."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def test_yaml_and_describe(kubectl: Kubectl) -> None:
    shown = kubectl.run("get", "pod", "full", "-n", "shop", "-o", "yaml")
    assert shown.startswith("apiVersion: v1\nkind: Pod\nmetadata:\n")
    described = kubectl.run("describe", "pod", "full", "-n", "shop").splitlines()
    assert described[0].split() == ["Name:", "full"]


def test_our_commands(cluster: Cluster) -> None:
    names = ours(cluster, "list", "-o", "name").splitlines()
    assert names == sorted(one["key"] for one in RECORDED)
    listed = json.loads(ours(cluster, "list", "-o", "json"))["items"]
    assert len(listed) == len(RECORDED)
    pod = json.loads(ours(cluster, "get", "/registry/pods/shop/full", "-o", "json"))
    (wanted,) = [one for one in recorded("Pod") if one["metadata"]["name"] == "full"]
    assert pod["spec"] == wanted["spec"]
    table = ours(cluster, "list", "--prefix", "/registry/pods/").splitlines()
    assert table[0].split() == ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert ours(cluster, "get", "/registry/pods/shop/no", code=3) == ""


def test_our_watch(cluster: Cluster) -> None:
    revision = json.loads(ours(cluster, "list", "-o", "json", "--prefix", "/none"))["metadata"]
    (one,) = [one for one in RECORDED if one["key"] == "/registry/pods/shop/bare"]
    cluster.writer.delete(one["key"].encode())
    cluster.writer.put(one["key"].encode(), base64.b64decode(one["etcd_value"]))
    said = ours(
        cluster, "watch", "--prefix", "/registry/pods/", "--events", "2", "--for", "20s",
        "-o", "name", "--revision", revision["resourceVersion"],
    )  # fmt: skip
    assert said.splitlines() == [f"DELETED {one['key']}", f"ADDED {one['key']}"]
