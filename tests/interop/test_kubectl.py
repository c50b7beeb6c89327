"""kubectl against `btreecache serve` over a real etcd, on objects that were put there as JSON.

What is compared is what a user sees. Every kubectl has a HOME of its own (it caches discovery for
hours), and a bound in time; every process that is started here is ended by its own pid.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.etcd_server import EtcdServer, Writer

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 30


def kubectl_binary() -> Path:
    """The kubectl that .ci/install-kubectl unpacked, or the end of the test."""
    directory = Path(os.environ.get("BTREECACHE_KUBECTL_DIR") or ROOT / ".cache" / "kubectl")
    if not (directory / "kubectl").exists():
        message = f"no kubectl in {directory}: run .ci/install-kubectl"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return directory / "kubectl"


def pod(namespace: str, name: str, node: str, phase: str = "Running", **labels: str) -> bytes:
    ready = "True" if phase == "Running" else "False"
    return json.dumps(
        {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{name}",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": labels,
            },
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "i"}]},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }
    ).encode()


def pod_key(namespace: str, name: str) -> bytes:
    return f"/registry/pods/{namespace}/{name}".encode()


class Kubectl:
    """Runs kubectl against one server."""

    def __init__(self, binary: Path, url: str, home: Path) -> None:
        self._command = [str(binary), "--server", url]
        self._env = {"HOME": str(home), "KUBECONFIG": "/dev/null", "PATH": os.environ["PATH"]}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._env,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> str:
        """stdout of a command that ends with that code; stderr if it is a failure."""
        ended = subprocess.run(
            [*self._command, *arguments],
            capture_output=True, text=True, env=self._env, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert ended.returncode == code, f"{arguments}: {ended.stdout}{ended.stderr}"
        return ended.stderr if code else ended.stdout

    def names(self, *arguments: str) -> list[str]:
        return self.run("get", *arguments, "-o", "name").split()


class Lines:
    """The lines of a running command, as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def wait_for(self, count: int) -> list[str]:
        """The lines so far, once there are so many."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self._lines) >= count, TIMEOUT_S)
            assert arrived, self._lines
            return list(self._lines)

    def end(self) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT_S)
        self._thread.join(TIMEOUT_S)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def stored(writer: Writer) -> Writer:
    """A writer, and what it wrote: two namespaces, a node, four pods, an event, a custom object."""
    for namespace in ("a", "b"):
        body = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}}
        writer.put(f"/registry/namespaces/{namespace}".encode(), json.dumps(body).encode())
    node = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}}
    writer.put(b"/registry/minions/n1", json.dumps(node).encode())
    for namespace, name, where, app in (
        ("a", "x", "n1", "web"), ("a", "y", "n2", "web"), ("a", "z", "n1", "db"),
        ("b", "w", "n1", "web"),
    ):  # fmt: skip
        writer.put(pod_key(namespace, name), pod(namespace, name, where, app=app))
    event = {
        "kind": "Event", "apiVersion": "v1", "metadata": {"name": "x.1", "namespace": "a"},
        "involvedObject": {"kind": "Pod", "namespace": "a", "name": "x", "uid": "uid-x"},
        "reason": "Scheduled", "message": "to n1", "type": "Normal", "count": 1,
        "source": {"component": "scheduler"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    writer.put(b"/registry/events/a/x.1", json.dumps(event).encode())
    cat = {"apiVersion": "pets.io/v1", "kind": "Cat", "metadata": {"name": "tom"}, "legs": 4}
    writer.put(b"/registry/pets.io/cats/tom", json.dumps(cat).encode())
    return writer


@pytest.fixture
def kubectl(etcd: EtcdServer, stored: Writer, tmp_path: Path) -> Iterator[Kubectl]:
    """kubectl for a server that follows the etcd."""
    binary = kubectl_binary()
    command = [
        str(Path(sys.executable).parent / "btreecache"), "serve", "--etcd", etcd.endpoint,
        "--listen", "127.0.0.1:0", "--warm", "pods", "--resource", "pets.io/v1/cats:Cat",
    ]  # fmt: skip
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), (tmp_path / "log").read_text()
        yield Kubectl(binary, url, tmp_path)
        server.terminate()
        assert server.wait(TIMEOUT_S) == 0, (tmp_path / "log").read_text()
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        if server.poll() is None:
            server.kill()
            server.wait(TIMEOUT_S)
        assert server.stdout is not None
        server.stdout.close()
        log.close()


def test_get(kubectl: Kubectl) -> None:
    lines = kubectl.run("get", "pods", "-A").splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["NAMESPACE", "NAME"], ["a", "x"], ["a", "y"], ["a", "z"], ["b", "w"],
    ]  # fmt: skip
    assert kubectl.names("pods", "-n", "a") == ["pod/x", "pod/y", "pod/z"]
    assert kubectl.names("po,no,ns") == ["node/n1", "namespace/a", "namespace/b"]
    assert kubectl.names("cats") == ["cat.pets.io/tom"]
    assert kubectl.names("deployments.apps", "-A") == []
    missing = kubectl.run("get", "pod", "no", "-n", "a", code=1)
    assert missing == 'Error from server (NotFound): pods "no" not found\n'
    refused = kubectl.run("delete", "pod", "x", "-n", "a", code=1)
    assert "this server is read-only: method not allowed" in refused


def test_forms_of_output(kubectl: Kubectl) -> None:
    one = json.loads(kubectl.run("get", "pod", "x", "-n", "a", "-o", "json"))
    assert (one["kind"], one["spec"]["nodeName"]) == ("Pod", "n1")
    both = json.loads(kubectl.run("get", "pods", "-n", "a", "-o", "json"))
    assert [item["kind"] for item in both["items"]] == ["Pod"] * 3
    shown = kubectl.run("get", "pod", "x", "-n", "a", "-o", "yaml")
    assert shown.startswith("apiVersion: v1\nkind: Pod\nmetadata:\n")
    assert f'resourceVersion: "{one["metadata"]["resourceVersion"]}"' in shown
    path = "jsonpath={.items[*].metadata.name}"
    assert kubectl.run("get", "pods", "-n", "a", "-o", path) == "x y z"
    assert json.loads(kubectl.run("get", "cats", "tom", "-o", "json"))["legs"] == 4


def test_selectors_and_pages(kubectl: Kubectl) -> None:
    assert kubectl.names("pods", "-A", "-l", "app=web") == ["pod/x", "pod/y", "pod/w"]
    assert kubectl.names("pods", "-A", "-l", "app in (db),app") == ["pod/z"]
    on_node = "--field-selector", "spec.nodeName=n1"
    assert kubectl.names("pods", "-A", *on_node) == ["pod/x", "pod/z", "pod/w"]
    assert kubectl.names("pods", "-A", "-l", "app=web", *on_node) == ["pod/x", "pod/w"]
    wrong = kubectl.run("get", "pods", "--field-selector", "spec.no=1", code=1)
    assert "field label not supported: spec.no" in wrong
    log = kubectl.start("get", "pods", "-A", "--chunk-size=2", "-o", "name", "-v=8")
    out, said = log.communicate(timeout=TIMEOUT_S)
    assert out.split() == ["pod/x", "pod/y", "pod/z", "pod/w"]
    assert "limit=2" in said
    assert "continue=" in said


def test_watch(kubectl: Kubectl, stored: Writer) -> None:
    lines = Lines(kubectl.start("get", "pods", "-n", "a", "-w", "--output-watch-events"))
    try:
        assert [line.split()[1] for line in lines.wait_for(4)] == ["NAME", "x", "y", "z"]
        stored.put(pod_key("a", "new"), pod("a", "new", "n1"))
        stored.put(pod_key("b", "elsewhere"), pod("b", "elsewhere", "n1"))
        stored.put(pod_key("a", "x"), pod("a", "x", "n2"))
        stored.delete(pod_key("a", "new"))
        found = [line.split()[:2] for line in lines.wait_for(7)[4:]]
        assert found == [["ADDED", "new"], ["MODIFIED", "x"], ["DELETED", "new"]]
    finally:
        lines.end()


def test_a_watch_outlives_a_restart_of_etcd(
    kubectl: Kubectl, stored: Writer, etcd: EtcdServer
) -> None:
    lines = Lines(kubectl.start("get", "pods", "-n", "b", "-w", "-o", "name"))
    try:
        lines.wait_for(1)
        etcd.restart()
        stored.put(pod_key("b", "after"), pod("b", "after", "n1"))
        assert lines.wait_for(2) == ["pod/w", "pod/after"]
        assert kubectl.names("pods", "-n", "b") == ["pod/after", "pod/w"]
    finally:
        lines.end()


def test_wait(kubectl: Kubectl, stored: Writer) -> None:
    done = "pod/x condition met\n"
    assert kubectl.run("wait", "--for=condition=Ready", "pod/x", "-n", "a", "--timeout=20s") == done
    stored.put(pod_key("a", "slow"), pod("a", "slow", "n1", "Pending"))
    waiting = kubectl.start("wait", "--for=condition=Ready", "pod/slow", "-n", "a", "--timeout=20s")
    for_gone = kubectl.start("wait", "--for=delete", "pod/y", "-n", "a", "--timeout=20s")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1)
    stored.put(pod_key("a", "slow"), pod("a", "slow", "n1"))
    stored.delete(pod_key("a", "y"))
    assert waiting.communicate(timeout=TIMEOUT_S) == ("pod/slow condition met\n", "")
    assert for_gone.communicate(timeout=TIMEOUT_S) == ("pod/y condition met\n", "")
    late = kubectl.run(
        "wait", "--for=condition=Ready=False", "pod/x", "-n", "a", "--timeout=1s", code=1
    )
    assert "timed out waiting for the condition" in late


def test_describe_and_events(kubectl: Kubectl) -> None:
    shown = kubectl.run("describe", "pod", "x", "-n", "a")
    assert "Node:" in shown
    assert "Scheduled" in shown
    assert kubectl.names("events", "-n", "a") == ["event/x.1"]
    assert "Scheduled" in kubectl.run("events", "-n", "a")


def test_discovery(kubectl: Kubectl) -> None:
    rows = kubectl.run("api-resources", "-o", "name").split()
    assert {"pods", "nodes", "deployments.apps", "cats.pets.io"} <= set(rows)
    assert {"v1", "apps/v1", "pets.io/v1"} <= set(kubectl.run("api-versions").split())
    assert "Server Version: v1." in kubectl.run("version")
    assert kubectl.run("get", "--raw", "/readyz") == "ok"
    assert "pod/x" in kubectl.run("get", "all", "-n", "a", "-o", "name")
