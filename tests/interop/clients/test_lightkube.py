"""lightkube. It has no way to say at which revision a list is to be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightkube
import pytest
from lightkube.config.kubeconfig import KubeConfig
from lightkube.generic_resource import create_global_resource
from lightkube.resources.core_v1 import Pod

from tests.interop.clients.cluster import Object, Town, brief, briefs
from tests.interop.clients.contract import Client, Event, ReadContract, WatchContract

pytestmark = pytest.mark.interop

NAMES = {"labelSelector": "labels", "fieldSelector": "fields"}


class Lightkube(Client):
    errors = lightkube.ApiError

    def __init__(self, url: str) -> None:
        self.client = lightkube.Client(_config(url), trust_env=False)

    def get(self, namespace: str, name: str) -> Object:
        found: Object = self.client.get(Pod, name, namespace=namespace).to_dict()
        return found

    def list(self, namespace: str, **parameters: str) -> Object:
        pods = self.client.list(Pod, namespace=namespace, **_selectors(parameters))
        items = [pod.to_dict() for pod in pods]
        return {"items": items, "metadata": {"resourceVersion": pods.resourceVersion}}

    def chunks(self, namespace: str, limit: int) -> Iterator[list[Object]]:
        pods = [
            pod.to_dict() for pod in self.client.list(Pod, namespace=namespace, chunk_size=limit)
        ]
        yield pods

    def watch(self, namespace: str, revision: int, **parameters: str) -> Iterator[Event]:
        events = self.client.watch(
            Pod, namespace=namespace, resource_version=str(revision), **_selectors(parameters)
        )
        for kind, pod in events:
            yield kind, pod.to_dict()

    def delete(self, namespace: str, name: str) -> None:
        self.client.delete(Pod, name, namespace=namespace)

    def cats(self) -> list[Object]:
        cats = create_global_resource("pets.io", "v1", "Cat", "cats")
        return [cat.to_dict() for cat in self.client.list(cats)]

    def refusal(self, error: Exception) -> tuple[int, str]:
        assert isinstance(error, lightkube.ApiError)
        return error.status.code or 0, error.status.message or ""


def _config(url: str) -> KubeConfig:
    """It wants a user, if only one without a name."""
    one = {"name": "one", "context": {"cluster": "one", "user": "one"}}
    return KubeConfig.from_dict(
        {
            "current-context": "one",
            "contexts": [one],
            "clusters": [{"name": "one", "cluster": {"server": url}}],
            "users": [{"name": "one", "user": {}}],
        }
    )


def _selectors(parameters: dict[str, str]) -> dict[str, Any]:
    """Selectors as lightkube takes them: of one equation a dict, everything else as it says."""
    found: dict[str, Any] = {}
    for name, text in parameters.items():
        key, _, value = text.partition("=")
        found[NAMES[name]] = {key: value} if value else _not_in(text)
    return found


def _not_in(text: str) -> dict[str, Any]:
    from lightkube import operators

    assert text == "app notin (web),app"
    return {"app": operators.not_in(["web"])}


@pytest.fixture
def client(url: str) -> Iterator[Lightkube]:
    found = Lightkube(url)
    yield found
    found.client.close()


class TestLightkube(ReadContract, WatchContract):
    def test_chunks(self, client: Client, town: Town) -> None:
        """Its pages are its own business; a write meanwhile isn't among them."""
        assert isinstance(client, Lightkube)
        written = town.some(7)
        pods = iter(client.client.list(Pod, namespace=town.namespace, chunk_size=3))
        first = next(pods)
        town.put("p9")
        town.delete("p6")
        assert briefs([first.to_dict(), *(pod.to_dict() for pod in pods)]) == written


def test_wait(client: Lightkube, town: Town) -> None:
    town.put("x")
    pod = client.client.wait(Pod, "x", namespace=town.namespace, for_conditions=["Ready"])
    assert brief(pod.to_dict()) == town.pods[0]
