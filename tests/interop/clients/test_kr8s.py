"""kr8s, its asyncio API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import kr8s
import pytest

from tests.interop.clients.cluster import TIMEOUT_S, Object, Town, brief, briefs
from tests.interop.clients.contract import Client, ClientContract, Event
from tests.interop.clients.recording import Relay

pytestmark = [
    pytest.mark.interop,
    # It knows versions up to 1.35 and says so of every later one.
    pytest.mark.filterwarnings("ignore:Kubernetes version .* is not supported:UserWarning"),
]


class Kr8s(Client):
    errors = kr8s.ServerError, kr8s.NotFoundError  # type: ignore[assignment]

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.api = self.run(kr8s.asyncio.api(url=url))

    def run(self, work: Any) -> Any:
        return self._runner.run(asyncio.wait_for(work, TIMEOUT_S))

    async def _call(self, namespace: str, url: str, method: str, **parameters: str) -> Any:
        async with self.api.call_api(
            method, version="v1", namespace=namespace, url=url, params=parameters
        ) as answer:
            return answer.json()

    def get(self, namespace: str, name: str) -> Object:
        found: Object = self.run(self._call(namespace, f"pods/{name}", "GET"))
        return found

    def list(self, namespace: str, **parameters: str) -> Object:
        found: Object = self.run(self._call(namespace, "pods", "GET", **parameters))
        return found

    def chunks(self, namespace: str, limit: int) -> Iterator[list[Object]]:
        token: str | None = None
        while token != "":
            more = {"continue": token} if token else {}
            found = self.list(namespace, limit=str(limit), **more)
            yield found["items"]
            token = found["metadata"].get("continue", "")

    def watch(self, namespace: str, revision: int, **parameters: str) -> Iterator[Event]:
        events = self.api.watch(
            "pods", namespace=namespace, since=str(revision),
            label_selector=parameters.get("labelSelector"),
        )  # fmt: skip
        try:
            while True:
                kind, pod = self.run(anext(events))
                yield kind, pod.raw
        finally:
            self.run(events.aclose())

    def delete(self, namespace: str, name: str) -> None:
        self.run(self._call(namespace, f"pods/{name}", "DELETE"))

    def cats(self) -> list[Object]:
        return self.all("cats.pets.io")

    def all(self, kind: str, **options: Any) -> list[Object]:
        async def gathered() -> list[Object]:
            return [one.raw async for one in self.api.get(kind, **options)]

        found: list[Object] = self.run(gathered())
        return found

    def refusal(self, error: Exception) -> tuple[int, str]:
        assert isinstance(error, kr8s.ServerError)
        assert error.response is not None
        return error.response.status_code, str(error)


@pytest.fixture
def client(url: str, relay: Relay) -> Iterator[Kr8s]:
    with asyncio.Runner() as runner:
        found = Kr8s(url, runner)
        relay.client_is_ready()
        yield found
        found.run(found.api._session.aclose())


class TestKr8s(ClientContract):
    def test_watch_expires(self, client: Client, town: Town, relay: Relay) -> None:  # type: ignore[override]
        """It never says so: told that the revision is gone, it asks for it again, for ever."""
        assert isinstance(client, Kr8s)
        old = town.put("x").revision - 1
        town.put("y")
        town.cluster.compact(town.revision)
        before = len(relay.requests)

        async def asked_twice() -> None:
            events = client.api.watch("pods", namespace=town.namespace, since=str(old))
            first = asyncio.ensure_future(anext(events))
            while sum("watch=true" in one for one in relay.requests[before:]) < 2:
                assert not first.done()
                await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

        client.run(asked_twice())
        self.recovers(client, town)


def test_objects(client: Kr8s, town: Town) -> None:
    """As its users ask, not by URL."""
    written = town.some(3)
    assert briefs(client.all("pods", namespace=town.namespace)) == written
    pod = client.run(kr8s.asyncio.objects.Pod.get("p1", namespace=town.namespace, api=client.api))
    assert brief(pod.raw) == written[1]
