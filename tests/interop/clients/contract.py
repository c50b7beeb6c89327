"""What every client must see: one class of tests, and what a client has to be able to do for it.

A test module subclasses `ClientContract` and gives a fixture `client`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice

import pytest

from tests.interop.clients.cluster import Brief, Object, Town, brief, briefs

Event = tuple[str, Object]


class Client(ABC):
    """A client, its answers as the JSON that they mean, parameters by their names on the wire.

    errors   what it raises when it is refused something
    """

    errors: type[Exception]

    @abstractmethod
    def get(self, namespace: str, name: str) -> Object:
        """A pod."""

    @abstractmethod
    def list(self, namespace: str, **parameters: str) -> Object:
        """One request for pods."""

    @abstractmethod
    def chunks(self, namespace: str, limit: int) -> Iterator[list[Object]]:
        """All pods, a page at a time, in the client's own way."""

    @abstractmethod
    def watch(self, namespace: str, revision: int, **parameters: str) -> Iterator[Event]:
        """What happens to pods. `close()` ends it."""

    @abstractmethod
    def delete(self, namespace: str, name: str) -> None:
        """Delete a pod."""

    @abstractmethod
    def cats(self) -> list[Object]:
        """The custom objects, which no client knows beforehand."""

    @abstractmethod
    def refusal(self, error: Exception) -> tuple[int, str]:
        """Status and message of an error, as the client tells them."""


def seen(event: Event) -> tuple[str, Brief]:
    return event[0], brief(event[1])


def take(watch: Iterator[Event], count: int) -> list[tuple[str, Brief]]:
    return [seen(event) for event in islice(watch, count)]


class ReadContract:
    """Objects and lists, now and then, whole and in part."""

    def test_get(self, client: Client, town: Town) -> None:
        wanted = town.put("x", node="n7")
        assert brief(client.get(town.namespace, "x")) == wanted

    def test_list(self, client: Client, town: Town) -> None:
        written = town.some(5)
        found = client.list(town.namespace)
        assert briefs(found["items"]) == written
        assert int(found["metadata"]["resourceVersion"]) >= town.revision
        assert client.list("nowhere")["items"] == []

    def test_chunks(self, client: Client, town: Town) -> None:
        written = town.some(7)
        pages = client.chunks(town.namespace, limit=3)
        found = [briefs(next(pages))]
        town.put("p9")  # Not there when it began.
        town.delete("p6")
        found += map(briefs, pages)
        assert [len(page) for page in found] == [3, 3, 1]
        assert [pod for page in found for pod in page] == written

    def test_selectors(self, client: Client, town: Town) -> None:
        written = town.some(6)

        def names(**parameters: str) -> list[Brief]:
            return briefs(client.list(town.namespace, **parameters)["items"])

        web = [pod for pod in written if pod.app == "web"]
        assert names(labelSelector="app=web") == web
        assert names(labelSelector="app notin (web),app") == [
            pod for pod in written if pod not in web
        ]
        on_n1 = [pod for pod in written if pod.node == "n1"]
        assert 0 < len(on_n1) < len(written)
        assert names(fieldSelector="spec.nodeName=n1") == on_n1
        assert names(fieldSelector="spec.nodeName=n1", labelSelector="app=web") == [
            pod for pod in on_n1 if pod.app == "web"
        ]

    def test_custom_objects(self, client: Client, town: Town) -> None:
        body = {"apiVersion": "pets.io/v1", "kind": "Cat", "metadata": {"name": "tom"}, "legs": 4}
        town.cluster.put("pets.io/cats/tom", body)
        (cat,) = client.cats()
        assert (cat["metadata"]["name"], cat["legs"]) == ("tom", 4)

    def test_refusals(self, client: Client, town: Town) -> None:
        town.put("x")
        with pytest.raises(client.errors) as missing:
            client.get(town.namespace, "no")
        assert client.refusal(missing.value) == (404, 'pods "no" not found')
        with pytest.raises(client.errors) as refused:
            client.delete(town.namespace, "x")
        status, message = client.refusal(refused.value)
        assert (status, "read-only" in message) == (405, True)
        with pytest.raises(client.errors) as wrong:
            client.list(town.namespace, fieldSelector="spec.no=1")
        assert client.refusal(wrong.value)[0] == 400
        assert brief(client.get(town.namespace, "x")) == town.pods[0]


class ExactContract:
    """Any revision that is kept."""

    def test_exact(self, client: Client, town: Town) -> None:
        town.some(3)
        town.put("p1", node="n9")
        town.delete("p0")
        for revision, pods in town.states:
            found = client.list(
                town.namespace, resourceVersion=str(revision), resourceVersionMatch="Exact"
            )
            assert briefs(found["items"]) == pods
            assert found["metadata"]["resourceVersion"] == str(revision)

    def test_exact_expires(self, client: Client, town: Town) -> None:
        exact = {"resourceVersion": str(town.put("x").revision), "resourceVersionMatch": "Exact"}
        town.put("x", node="n9")
        town.cluster.compact(town.revision)
        with pytest.raises(client.errors) as expired:
            client.list(town.namespace, **exact)
        assert client.refusal(expired.value)[0] == 410


class WatchContract:
    """What happens, in order, each once."""

    def test_watch(self, client: Client, town: Town) -> None:
        town.some(2)
        began = client.list(town.namespace)
        before = len(town.events)
        watch = client.watch(town.namespace, int(began["metadata"]["resourceVersion"]))
        town.put("a")
        first = seen(next(watch))
        town.put("p0", node="n9")
        town.delete("a")
        town.put("a", app="db")
        town.delete("p1")
        assert [first, *take(watch, 4)] == town.events[before:]
        watch.close()  # type: ignore[attr-defined]

    def test_watch_selected(self, client: Client, town: Town) -> None:
        """What comes to match is added, what no longer does is deleted."""
        town.put("x", app="db")
        watch = client.watch(town.namespace, town.revision, labelSelector="app=web")
        town.put("y", app="db")
        came = town.put("x", app="web")
        went = town.put("x", app="db")
        assert take(watch, 2) == [
            ("ADDED", came),
            ("DELETED", came._replace(revision=went.revision)),
        ]
        watch.close()  # type: ignore[attr-defined]

    def test_watch_expires(self, client: Client, town: Town) -> None:
        """A watch that comes too late is told, and goes on from a new list."""
        old = town.put("x").revision - 1
        town.put("y")
        town.cluster.compact(town.revision)
        watch = client.watch(town.namespace, old)
        with pytest.raises(client.errors) as expired:
            next(watch)
        assert client.refusal(expired.value)[0] == 410
        self.recovers(client, town)

    def recovers(self, client: Client, town: Town) -> None:
        found = client.list(town.namespace)
        assert briefs(found["items"]) == town.pods
        watch = client.watch(town.namespace, int(found["metadata"]["resourceVersion"]))
        town.put("z")
        assert take(watch, 1) == town.events[-1:]
        watch.close()  # type: ignore[attr-defined]


class ClientContract(ReadContract, ExactContract, WatchContract):
    """All of it."""
