"""What clients look at: a real etcd, `btreecache serve` over it, and namespaces that a test writes.

Pods are written as API servers that store JSON do; what a client must see of one is a `Brief`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.interop.etcd_server import EtcdServer, Writer, directory_in_memory

TIMEOUT_S = 20.0
COMPACT_KEY = b"compact_rev_key"

Object = dict[str, Any]


class Brief(NamedTuple):
    """A pod, in short."""

    name: str
    revision: int
    app: str
    node: str
    phase: str


def brief(pod: Object) -> Brief:
    metadata = pod["metadata"]
    return Brief(
        metadata["name"],
        int(metadata["resourceVersion"]),
        metadata["labels"]["app"],
        pod["spec"]["nodeName"],
        pod["status"]["phase"],
    )


def briefs(pods: Iterable[Object]) -> list[Brief]:
    return [brief(pod) for pod in pods]


class Cluster:
    """The etcd, a writer to it and the server's URL."""

    def __init__(self, etcd: EtcdServer, writer: Writer, url: str) -> None:
        self.etcd, self.writer, self.url = etcd, writer, url
        self._compactions = 0

    def put(self, path: str, body: Object) -> int:
        return self.writer.put(f"/registry/{path}".encode(), json.dumps(body).encode())

    def compact(self, revision: int) -> None:
        """Compact the etcd, as API servers do it, and wait until the server has heard of it."""
        self._compactions += 1
        self.writer.put(COMPACT_KEY, str(revision).encode())
        self.writer.compact(revision)
        exact = {"resourceVersion": str(revision - 1), "resourceVersionMatch": "Exact"}
        deadline = time.monotonic() + TIMEOUT_S
        while httpx.get(f"{self.url}/api/v1/pods", params=exact).status_code != 410:
            assert time.monotonic() < deadline, "the server never hears of a compaction"
            time.sleep(0.02)


class Town:
    """One namespace, and everything that was written there. Pods by name, in order of keys."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.events: list[tuple[str, Brief]] = []
        self.states: list[tuple[int, list[Brief]]] = []
        self._pods: dict[str, Brief] = {}
        self.created_at = cluster.put(
            f"namespaces/{namespace}",
            {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}},
        )

    @property
    def pods(self) -> list[Brief]:
        return [pod for _, pod in sorted(self._pods.items())]

    @property
    def revision(self) -> int:
        """Of the last write here."""
        return self.states[-1][0] if self.states else self.created_at

    def put(self, name: str, app: str = "web", node: str = "n1", phase: str = "Running") -> Brief:
        ready = "True" if phase == "Running" else "False"
        body = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "uid": f"uid-{name}",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"app": app},
            },
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "i"}]},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }
        revision = self.cluster.put(f"pods/{self.namespace}/{name}", body)
        known = name in self._pods
        self._pods[name] = Brief(name, revision, app, node, phase)
        self._wrote(revision, "MODIFIED" if known else "ADDED", self._pods[name])
        return self._pods[name]

    def delete(self, name: str) -> None:
        revision = self.cluster.writer.delete(f"/registry/pods/{self.namespace}/{name}".encode())
        assert revision is not None
        self._wrote(revision, "DELETED", self._pods.pop(name)._replace(revision=revision))

    def _wrote(self, revision: int, kind: str, pod: Brief) -> None:
        self.events.append((kind, pod))
        self.states.append((revision, self.pods))

    def some(self, count: int) -> list[Brief]:
        """Write so many pods of two apps on two nodes; all there are now."""
        for index in range(count):
            self.put(f"p{index}", ("web", "db")[index % 2], ("n1", "n2")[index % 3 % 2])
        return self.pods


@contextmanager
def running(binary: Path, *flags: str) -> Iterator[Cluster]:
    """All of it on an etcd's binary, with more flags of the server. One that ends with anything
    but 0, or whose log has a traceback, fails."""
    with ExitStack() as stack:
        directory = stack.enter_context(directory_in_memory())
        log = directory / "serve-log"
        etcd = stack.enter_context(EtcdServer(binary, directory))
        writer = stack.enter_context(Writer(etcd.endpoint))
        command = [
            str(Path(sys.executable).parent / "btreecache"), "serve", "--etcd", etcd.endpoint,
            "--listen", "127.0.0.1:0", "--warm", "pods", "--resource", "pets.io/v1/cats:Cat",
            *flags,
        ]  # fmt: skip
        said = stack.enter_context(log.open("w"))
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        assert server.stdout is not None
        stack.enter_context(server.stdout)
        try:
            url = server.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), log.read_text()
            yield Cluster(etcd, writer, url)
            server.terminate()
            assert server.wait(TIMEOUT_S) == 0, log.read_text()
            assert "Traceback" not in log.read_text()
        finally:
            if server.poll() is None:
                server.kill()
                server.wait(TIMEOUT_S)
