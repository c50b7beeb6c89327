"""The `kubernetes` package: its typed client and its informer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client as kubernetes
from kubernetes.informer import SharedInformer
from kubernetes.watch import Watch

from tests.interop.clients.cluster import TIMEOUT_S, Object, Town, brief
from tests.interop.clients.contract import Client, ClientContract, Event

pytestmark = pytest.mark.interop

PROTOBUF = "application/vnd.kubernetes.protobuf"

#: Parameters by their names on the wire, and as Python spells them.
NAMES = {
    "labelSelector": "label_selector",
    "fieldSelector": "field_selector",
    "resourceVersion": "resource_version",
    "resourceVersionMatch": "resource_version_match",
}


def spelled(parameters: dict[str, str]) -> dict[str, Any]:
    return {NAMES[name]: value for name, value in parameters.items()}


class Typed(Client):
    errors = kubernetes.ApiException

    def __init__(self, url: str) -> None:
        self.api = kubernetes.ApiClient(kubernetes.Configuration(host=url))
        self.core = kubernetes.CoreV1Api(self.api)

    def _json(self, thing: Any) -> Any:
        return self.api.sanitize_for_serialization(thing)

    def get(self, namespace: str, name: str) -> Object:
        found: Object = self._json(self.core.read_namespaced_pod(name, namespace))
        return found

    def list(self, namespace: str, **parameters: str) -> Object:
        pods = self.core.list_namespaced_pod(namespace, **spelled(parameters))
        found: Object = self._json(pods)
        return found

    def chunks(self, namespace: str, limit: int) -> Iterator[list[Object]]:
        token: str | None = None
        while token != "":
            pods = self.core.list_namespaced_pod(namespace, limit=limit, _continue=token)
            yield self._json(pods.items)
            token = pods.metadata._continue or ""

    def watch(self, namespace: str, revision: int, **parameters: str) -> Iterator[Event]:
        options = spelled(parameters) | {"resource_version": str(revision)}
        for event in Watch().stream(self.core.list_namespaced_pod, namespace, **options):
            yield event["type"], self._json(event["object"])

    def delete(self, namespace: str, name: str) -> None:
        self.core.delete_namespaced_pod(name, namespace)

    def cats(self) -> list[Object]:
        custom = kubernetes.CustomObjectsApi(self.api)
        found: list[Object] = custom.list_cluster_custom_object("pets.io", "v1", "cats")["items"]
        return found

    def refusal(self, error: Exception) -> tuple[int, str]:
        assert isinstance(error, kubernetes.ApiException)
        return error.status, json.loads(error.body)["message"] if error.body else error.reason


@pytest.fixture
def client(url: str) -> Iterator[Typed]:
    found = Typed(url)
    yield found
    found.api.rest_client.pool_manager.clear()


class TestTyped(ClientContract):
    pass


def test_protobuf(client: Typed, town: Town) -> None:
    """The package can't decode it, but asks for it as any client may."""
    town.put("x")
    answer = client.core.list_namespaced_pod(
        town.namespace, _preload_content=False, _headers={"Accept": PROTOBUF}
    )
    body = answer.read()
    assert answer.headers["content-type"] == PROTOBUF
    assert body.startswith(b"k8s\0")
    assert b"PodList" in body


class Informed:
    """What an informer says, and what it holds."""

    def __init__(self, client: Typed, namespace: str) -> None:
        self._changed = threading.Condition()
        self.said: list[tuple[str, str]] = []
        self.informer = SharedInformer(client.core.list_namespaced_pod, namespace=namespace)
        for kind in ("ADDED", "MODIFIED", "DELETED", "ERROR"):
            self.informer.add_event_handler(kind, lambda thing, kind=kind: self._say(kind, thing))
        self._client = client

    def _say(self, kind: str, thing: Any) -> None:
        with self._changed:
            named = isinstance(thing, Exception)
            self.said.append((kind, str(thing.status) if named else thing.metadata.name))
            self._changed.notify_all()

    def wait_for(self, *said: tuple[str, str]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.said[-len(said) :] == [*said], TIMEOUT_S), (
                self.said
            )

    def holds(self) -> list[Object]:
        pods = self._client.api.sanitize_for_serialization(self.informer.cache.list())
        return sorted(map(brief, pods))


def test_informer(client: Typed, town: Town) -> None:
    town.some(2)
    seen = Informed(client, town.namespace)
    seen.informer.start()
    try:
        seen.wait_for(("ADDED", "p0"), ("ADDED", "p1"))
        town.put("x")
        town.put("p0", node="n9")
        town.delete("p1")
        seen.wait_for(("ADDED", "x"), ("MODIFIED", "p0"), ("DELETED", "p1"))
        assert seen.holds() == town.pods
    finally:
        seen.informer.stop()


def test_informer_expires(client: Typed, town: Town) -> None:
    """Started from a revision that is gone, it lists again and goes on."""
    old = town.put("x").revision - 1
    town.put("y")
    town.cluster.compact(town.revision)
    seen = Informed(client, town.namespace)
    seen.informer._resource_version = str(old)
    seen.informer.start()
    try:
        seen.wait_for(("ERROR", "410"), ("ADDED", "x"), ("ADDED", "y"))
        town.delete("x")
        seen.wait_for(("DELETED", "x"))
        assert seen.holds() == town.pods
    finally:
        seen.informer.stop()
