"""kubectl: what its users see."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.interop.clients.cluster import TIMEOUT_S, Cluster, Town, briefs
from tests.interop.clients.kubectl import Kubectl, Lines
from tests.interop.clients.recording import Relay

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, relay: Relay) -> Path:
    """With discovery in its cache: of what a command asks, only what is its own is left."""
    path = tmp_path_factory.mktemp("home")
    Kubectl(relay.url, path).run("api-resources")
    return path


@pytest.fixture
def kubectl(home: Path, url: str) -> Kubectl:
    return Kubectl(url, home)


def test_discovery(cluster: Cluster, url: str, tmp_path: Path) -> None:
    """From nothing, as at its first command."""
    kubectl = Kubectl(url, tmp_path)
    rows = kubectl.run("api-resources", "-o", "name").split()
    assert {"pods", "nodes", "deployments.apps", "cats.pets.io"} <= set(rows)
    assert {"v1", "apps/v1", "pets.io/v1"} <= set(kubectl.run("api-versions").split())
    assert "Server Version: v1." in kubectl.run("version")
    assert kubectl.run("get", "--raw", "/readyz") == "ok"


def test_get(kubectl: Kubectl, town: Town) -> None:
    town.some(3)
    here = "-n", town.namespace
    lines = kubectl.run("get", "pods", *here).splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["NAME", "READY", "STATUS", "RESTARTS"],
        *([f"p{index}", "0/1", "Running", "0"] for index in range(3)),
    ]
    assert kubectl.names("pods", *here) == ["pod/p0", "pod/p1", "pod/p2"]
    assert f"namespace/{town.namespace}" in kubectl.names("ns")
    assert kubectl.names("po,cm", *here) == ["pod/p0", "pod/p1", "pod/p2"]
    assert kubectl.names("all", *here) == ["pod/p0", "pod/p1", "pod/p2"]
    assert kubectl.names("deployments.apps", *here) == []
    missing = kubectl.run("get", "pod", "no", *here, code=1)
    assert missing == 'Error from server (NotFound): pods "no" not found\n'


def test_forms_of_output(kubectl: Kubectl, town: Town) -> None:
    written, here = town.some(2), ("-n", town.namespace)
    one = json.loads(kubectl.run("get", "pod", "p0", *here, "-o", "json"))
    assert (one["kind"], one["spec"]["nodeName"]) == ("Pod", "n1")
    both = json.loads(kubectl.run("get", "pods", *here, "-o", "json"))
    assert briefs(both["items"]) == written
    assert [item["kind"] for item in both["items"]] == ["Pod"] * 2
    shown = kubectl.run("get", "pod", "p0", *here, "-o", "yaml")
    assert shown.startswith("apiVersion: v1\nkind: Pod\nmetadata:\n")
    assert f'resourceVersion: "{written[0].revision}"' in shown
    wide = kubectl.run("get", "pods", *here, "-o", "wide").splitlines()
    assert ("NODE" in wide[0], "n1" in wide[1]) == (True, True)
    names = "{.items[*].metadata.name}"
    assert kubectl.run("get", "pods", *here, "-o", f"jsonpath={names}") == "p0 p1"
    template = "go-template={{range .items}}{{.spec.nodeName}} {{end}}"
    assert kubectl.run("get", "pods", *here, "-o", template) == "n1 n2 "
    columns = "custom-columns=A:.metadata.labels.app"
    assert kubectl.run("get", "pods", *here, "-o", columns).split() == ["A", "web", "db"]
    assert "app=web" in kubectl.run("get", "pods", *here, "--show-labels")


def test_custom_objects(kubectl: Kubectl, cluster: Cluster) -> None:
    body = {"apiVersion": "pets.io/v1", "kind": "Cat", "metadata": {"name": "tom"}, "legs": 4}
    cluster.put("pets.io/cats/tom", body)
    assert kubectl.names("cats") == ["cat.pets.io/tom"]
    assert json.loads(kubectl.run("get", "cats", "tom", "-o", "json"))["legs"] == 4


def test_selectors(kubectl: Kubectl, town: Town) -> None:
    town.some(5)
    here = "-n", town.namespace
    assert kubectl.names("pods", *here, "-l", "app=web") == ["pod/p0", "pod/p2", "pod/p4"]
    assert kubectl.names("pods", *here, "-l", "app in (db),app") == ["pod/p1", "pod/p3"]
    on_node = "--field-selector", "spec.nodeName=n2"
    assert kubectl.names("pods", *here, *on_node) == ["pod/p1", "pod/p4"]
    assert kubectl.names("pods", *here, "-l", "app=web", *on_node) == ["pod/p4"]
    wrong = kubectl.run("get", "pods", *here, "--field-selector", "spec.no=1", code=1)
    assert "field label not supported: spec.no" in wrong


def test_chunks(kubectl: Kubectl, town: Town) -> None:
    town.some(5)
    here = "-n", town.namespace
    whole = kubectl.run("get", "pods", *here, "-o", "json")
    assert kubectl.run("get", "pods", *here, "-o", "json", "--chunk-size=2") == whole
    table = kubectl.run("get", "pods", *here, "--chunk-size=2")
    assert [line.split()[0] for line in table.splitlines()] == [
        "NAME",
        *(f"p{n}" for n in range(5)),
    ]


def test_exact(kubectl: Kubectl, town: Town) -> None:
    town.some(2)
    town.put("p0", node="n9")
    town.delete("p1")
    path = f"/api/v1/namespaces/{town.namespace}/pods?resourceVersionMatch=Exact&resourceVersion="
    for revision, pods in town.states:
        assert kubectl.pods(f"{path}{revision}") == pods


def test_watch(kubectl: Kubectl, town: Town) -> None:
    town.some(2)
    watching = kubectl.start(
        "get", "pods", "-n", town.namespace, "--watch", "--output-watch-events"
    )
    with Lines(watching) as lines:
        assert [line.split()[1] for line in lines.wait_for(3)] == ["NAME", "p0", "p1"]
        town.put("new")
        town.put("p0", node="n9")
        town.delete("new")
        found = [line.split()[:2] for line in lines.wait_for(6)[3:]]
        assert found == [["ADDED", "new"], ["MODIFIED", "p0"], ["DELETED", "new"]]


def test_a_watch_outlives_a_restart_of_etcd(kubectl: Kubectl, town: Town) -> None:
    town.put("x")
    with Lines(kubectl.start("get", "pods", "-n", town.namespace, "-w", "-o", "name")) as lines:
        lines.wait_for(1)
        town.cluster.etcd.restart()
        town.put("after")
        assert lines.wait_for(2) == ["pod/x", "pod/after"]


def test_expired(kubectl: Kubectl, town: Town) -> None:
    """What is gone is said to be; a watch of it says so as its last event."""
    old = town.put("x").revision - 1
    town.put("y")
    town.cluster.compact(town.revision)
    path = f"/api/v1/namespaces/{town.namespace}/pods?resourceVersion={old}"
    said = kubectl.run("get", "--raw", f"{path}&resourceVersionMatch=Exact", code=1)
    assert "(Expired)" in said
    event = json.loads(kubectl.run("get", "--raw", f"{path}&watch=true"))
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert kubectl.names("pods", "-n", town.namespace) == ["pod/x", "pod/y"]


def test_wait(kubectl: Kubectl, town: Town, relay: Relay) -> None:
    here = "-n", town.namespace, "--timeout=20s"
    town.put("x")
    town.put("gone")
    done = "pod/x condition met\n"
    assert kubectl.run("wait", "--for=condition=Ready", "pod/x", *here) == done
    town.put("slow", phase="Pending")
    asked = len(relay.requests)
    waiting = kubectl.start("wait", "--for=condition=Ready", "pod/slow", *here)
    for_gone = kubectl.start("wait", "--for=delete", "pod/gone", *here)
    until_watched(relay, asked, 2)
    town.put("slow")
    town.delete("gone")
    assert waiting.communicate(timeout=TIMEOUT_S) == ("pod/slow condition met\n", "")
    assert for_gone.communicate(timeout=TIMEOUT_S) == ("pod/gone condition met\n", "")
    late = kubectl.run(
        "wait", "--for=condition=Ready=False", "pod/x", *here[:2], "--timeout=1s", code=1
    )
    assert "timed out waiting for the condition" in late


def until_watched(relay: Relay, since: int, count: int) -> None:
    """Until so many watches have been asked for."""
    arrived = threading.Event()
    for _ in range(int(TIMEOUT_S * 100)):
        if sum("watch=true" in one for one in relay.requests[since:]) >= count:
            return
        arrived.wait(0.01)
    raise AssertionError(relay.requests[since:])


def test_describe_and_events(kubectl: Kubectl, town: Town) -> None:
    """Protobuf is what these ask for first."""
    town.put("x")
    event = {
        "kind": "Event", "apiVersion": "v1",
        "metadata": {"name": "x.1", "namespace": town.namespace},
        "involvedObject": {"kind": "Pod", "namespace": town.namespace, "name": "x", "uid": "uid-x"},
        "reason": "Scheduled", "message": "to n1", "type": "Normal", "count": 1,
        "source": {"component": "scheduler"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    town.cluster.put(f"events/{town.namespace}/x.1", event)
    here = "-n", town.namespace
    shown = kubectl.run("describe", "pod", "x", *here)
    assert ("Node:" in shown, "Scheduled" in shown) == (True, True)
    assert kubectl.names("events", *here) == ["event/x.1"]
    assert "Scheduled" in kubectl.run("events", *here)


def test_refusals(kubectl: Kubectl, town: Town, tmp_path: Path) -> None:
    """Whatever writes is told why it doesn't."""
    town.put("x")
    here = "-n", town.namespace
    manifest = tmp_path / "pod.json"
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "z"}}))
    for command in (
        ("delete", "pod", "x", "--wait=false"),
        ("create", "--validate=false", "-f", str(manifest)),
        ("label", "pod", "x", "a=b"),
        ("annotate", "pod", "x", "a=b"),
        ("create", "configmap", "c"),
    ):
        refused = kubectl.run(*command, *here, code=1)
        assert "this server is read-only: method not allowed" in refused, command
    assert [pod.name for pod in town.pods] == ["x"]
    assert kubectl.names("pods", *here) == ["pod/x"]


def test_explain(kubectl: Kubectl, cluster: Cluster) -> None:
    """Names and types of all fields, without a word about them."""
    shown = kubectl.run("explain", "pods.spec.containers")
    assert re.search(r"^  image\s+<string>$", shown, re.M)
    assert re.search(r"^  env\s+<\[\]EnvVar>$", shown, re.M)
    assert "metadata" in kubectl.run("explain", "cats")


def test_custom_resources_follow_their_definitions(cluster: Cluster, tmp_path: Path) -> None:
    """How often it asks before they are there, nobody knows: without a log."""
    kubectl = Kubectl(cluster.url, tmp_path)
    names = {"plural": "dogs", "singular": "dog", "kind": "Dog", "shortNames": ["dg"]}
    columns = [{"name": "Legs", "type": "integer", "jsonPath": ".spec.legs"}]
    versions = [
        {"name": name, "served": True, "storage": name == "v1", "additionalPrinterColumns": columns}
        for name in ("v1", "v1alpha1")
    ]
    defined = "apiextensions.k8s.io/customresourcedefinitions/dogs.pets.org"
    body = {
        "kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "dogs.pets.org"},
        "spec": {"group": "pets.org", "scope": "Cluster", "names": names, "versions": versions},
        "status": {"acceptedNames": names, "conditions": [
            {"type": "Established", "status": "True"}]},
    }  # fmt: skip
    cluster.put(defined, body)
    for name, version in (("rex", "v1"), ("bello", "v1alpha1")):
        dog = {"apiVersion": f"pets.org/{version}", "kind": "Dog", "metadata": {"name": name}}
        cluster.put(f"pets.org/dogs/{name}", dog | {"spec": {"legs": 4}})
    until_group(cluster, "pets.org", 200)
    shown = [line.split() for line in kubectl.run("get", "dg").splitlines()]
    assert shown == [["NAME", "LEGS"], ["bello", "4"], ["rex", "4"]]
    older = kubectl.run("get", "dogs.v1alpha1.pets.org", "rex", "-o", "jsonpath={.apiVersion}")
    assert older == "pets.org/v1alpha1"
    with Lines(kubectl.start("get", "dogs", "-w", "-o", "name")) as lines:
        lines.wait_for(2)
        cluster.writer.delete(f"/registry/{defined}".encode())
        until_group(cluster, "pets.org", 404)
    assert "dogs" not in kubectl.run("api-resources", "--cached=false", "-o", "name")


def until_group(cluster: Cluster, group: str, status: int) -> None:
    for _ in range(int(TIMEOUT_S * 50)):
        if httpx.get(f"{cluster.url}/apis/{group}").status_code == status:
            return
        time.sleep(0.02)
    raise AssertionError(group)
