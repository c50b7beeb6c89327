"""One cluster and one relay for each client; a namespace for each test; the log is compared."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

import pytest

from tests.interop.clients.cluster import Cluster, Town, running
from tests.interop.clients.recording import Log, Relay
from tests.interop.conftest import etcd_binary

#: The clients, of the extra `interop`, and their tests: `make test` has neither.
CLIENTS: Final = {
    "kr8s": ["test_kr8s.py"],
    "kubernetes": ["test_kubernetes.py", "test_kubernetes_dynamic.py"],
    "kubernetes_asyncio": ["test_kubernetes_asyncio.py"],
    "lightkube": ["test_lightkube.py"],
}

collect_ignore = [
    file for name, files in CLIENTS.items() if find_spec(name) is None for file in files
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(etcd_binary("3.5")) as found:
        yield found


@pytest.fixture(scope="module")
def relay(cluster: Cluster) -> Iterator[Relay]:
    with Relay(cluster.url) as found:
        yield found


@pytest.fixture
def town(cluster: Cluster, request: pytest.FixtureRequest) -> Town:
    """A namespace of the test's own."""
    name: str = request.node.name
    return Town(cluster, name.removeprefix("test_").replace("_", "-"))


@pytest.fixture
def url(relay: Relay, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the client is to go. What it asks there is compared with the log of it."""
    before = relay.begun = len(relay.requests)
    yield relay.url
    log = Log(request.path.stem.removeprefix("test_"))
    if relay.begun > before:
        log.check("at the start", relay.requests[before : relay.begun])
    log.check(request.node.name, relay.requests[relay.begun :])
