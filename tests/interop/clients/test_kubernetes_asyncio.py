"""kubernetes_asyncio: the typed client on asyncio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes_asyncio import client as kubernetes
from kubernetes_asyncio.watch import Watch

from tests.interop.clients.cluster import TIMEOUT_S, Object
from tests.interop.clients.contract import Client, ClientContract, Event
from tests.interop.clients.test_kubernetes import spelled

pytestmark = pytest.mark.interop


class Asyncio(Client):
    errors = kubernetes.ApiException

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.api = self._run(self._made(url))
        self.core = kubernetes.CoreV1Api(self.api)

    async def _made(self, url: str) -> Any:
        return kubernetes.ApiClient(kubernetes.Configuration(host=url))

    async def _watch(self) -> Any:
        return Watch()  # With a session, which needs the loop.

    def _run(self, work: Any) -> Any:
        return self._runner.run(asyncio.wait_for(work, TIMEOUT_S))

    def _json(self, thing: Any) -> Any:
        return self.api.sanitize_for_serialization(thing)

    def close(self) -> None:
        self._run(self.api.close())

    def get(self, namespace: str, name: str) -> Object:
        found: Object = self._json(self._run(self.core.read_namespaced_pod(name, namespace)))
        return found

    def list(self, namespace: str, **parameters: str) -> Object:
        pods = self._run(self.core.list_namespaced_pod(namespace, **spelled(parameters)))
        found: Object = self._json(pods)
        return found

    def chunks(self, namespace: str, limit: int) -> Iterator[list[Object]]:
        options: dict[str, Any] = {"limit": limit}
        while options.get("_continue") != "":
            pods = self._run(self.core.list_namespaced_pod(namespace, **options))
            yield self._json(pods.items)
            options["_continue"] = pods.metadata._continue or ""

    def watch(self, namespace: str, revision: int, **parameters: str) -> Iterator[Event]:
        options = spelled(parameters) | {"resource_version": str(revision)}
        watch = self._run(self._watch())
        events = watch.stream(self.core.list_namespaced_pod, namespace, **options)
        try:
            while True:
                event = self._run(anext(events))
                yield event["type"], self._json(event["object"])
        finally:
            self._run(watch.close())

    def delete(self, namespace: str, name: str) -> None:
        self._run(self.core.delete_namespaced_pod(name, namespace))

    def cats(self) -> list[Object]:
        custom = kubernetes.CustomObjectsApi(self.api)
        answer = self._run(custom.list_cluster_custom_object("pets.io", "v1", "cats"))
        found: list[Object] = answer["items"]
        return found

    def refusal(self, error: Exception) -> tuple[int, str]:
        assert isinstance(error, kubernetes.ApiException)
        return error.status, json.loads(error.body)["message"] if error.body else error.reason


@pytest.fixture
def client(url: str) -> Iterator[Asyncio]:
    with asyncio.Runner() as runner:
        found = Asyncio(url, runner)
        yield found
        found.close()


class TestAsyncio(ClientContract):
    pass
