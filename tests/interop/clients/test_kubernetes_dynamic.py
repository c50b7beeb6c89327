"""The dynamic client of the `kubernetes` package, which asks first what there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as kubernetes
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError

from tests.interop.clients.cluster import Object
from tests.interop.clients.contract import Client, ClientContract, Event
from tests.interop.clients.recording import Relay
from tests.interop.clients.test_kubernetes import spelled

pytestmark = pytest.mark.interop


class Dynamic(Client):
    errors = kubernetes.ApiException, DynamicApiError  # type: ignore[assignment]

    def __init__(self, url: str, cache: Path) -> None:
        self.api = kubernetes.ApiClient(kubernetes.Configuration(host=url))
        self.dynamic = DynamicClient(self.api, cache_file=str(cache))
        self.pods = self.dynamic.resources.get(api_version="v1", kind="Pod")

    def get(self, namespace: str, name: str) -> Object:
        found: Object = self.pods.get(namespace=namespace, name=name).to_dict()
        return found

    def list(self, namespace: str, **parameters: str) -> Object:
        found: Object = self.pods.get(namespace=namespace, **spelled(parameters)).to_dict()
        return found

    def chunks(self, namespace: str, limit: int) -> Iterator[list[Object]]:
        token: str | None = None
        while token != "":
            found = self.pods.get(namespace=namespace, limit=limit, _continue=token).to_dict()
            yield found["items"]
            token = found["metadata"].get("continue", "")

    def watch(self, namespace: str, revision: int, **parameters: str) -> Iterator[Event]:
        options: dict[str, Any] = spelled(parameters) | {"resource_version": str(revision)}
        for event in self.pods.watch(namespace=namespace, **options):
            yield event["type"], event["raw_object"]

    def delete(self, namespace: str, name: str) -> None:
        self.pods.delete(name=name, namespace=namespace)

    def cats(self) -> list[Object]:
        cats = self.dynamic.resources.get(api_version="pets.io/v1", kind="Cat")
        found: list[Object] = cats.get().to_dict()["items"]
        return found

    def refusal(self, error: Exception) -> tuple[int, str]:
        if isinstance(error, DynamicApiError):
            return error.status, error.summary()
        assert isinstance(error, kubernetes.ApiException)
        return error.status, error.reason


@pytest.fixture
def client(url: str, relay: Relay, tmp_path: Path) -> Iterator[Dynamic]:
    found = Dynamic(url, tmp_path / "discovery")
    relay.client_is_ready()
    yield found
    found.api.rest_client.pool_manager.clear()


class TestDynamic(ClientContract):
    pass


def test_what_there_is(client: Dynamic) -> None:
    kinds = {found.kind for found in client.dynamic.resources.search(group="pets.io")}
    assert "Cat" in kinds
    deployments = client.dynamic.resources.get(api_version="apps/v1", kind="Deployment")
    assert (deployments.name, deployments.namespaced) == ("deployments", True)
    with pytest.raises(ResourceNotFoundError):
        client.dynamic.resources.get(api_version="v1", kind="Unicorn")
