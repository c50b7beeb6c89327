"""Targets for the tests: fresh ones, and what makes more of them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.conformance.target import (
    Backend,
    Kind,
    Namespace,
    SimulatedBackend,
    Target,
    kinds,
)


class Worlds:
    """Opens targets. Every simulated one has a model of its own; all with etcd share one server,
    but those that compact: they have one to themselves, as compaction is for all of a server."""

    def __init__(self, stack: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._stack = stack
        self._directories = tmp_path_factory
        self._servers: dict[str, Any] = {}
        self._roots = itertools.count(1)

    @contextmanager
    def open(
        self, kind: Kind, *, compacts: bool = False, server: str = "", **options: Any
    ) -> Iterator[Target]:
        """A target with nothing below its root. `compacts`: whether it will be compacted; `server`:
        the name of an etcd that only those share who say it, for one that lives longer than that.
        """
        root = b"/registry-%d" % next(self._roots)
        with ExitStack() as stack:
            backend = self._backend(kind, server or ("compacted" if compacts else "shared"))
            stack.callback(backend.close)
            target = Target(kind, backend, root, **options)
            stack.callback(target.close)
            yield target

    def _backend(self, kind: Kind, server: str) -> Backend:
        if kind.source == "simulated":
            return SimulatedBackend()
        from tests.conformance.etcd_target import EtcdBackend

        return EtcdBackend(self._server(server))

    def _server(self, name: str) -> Any:
        if name not in self._servers:
            from tests.interop.conftest import etcd_binary
            from tests.interop.etcd_server import EtcdServer

            binary = etcd_binary("3.5")
            directory = self._directories.mktemp("etcd")
            self._stack.callback(shutil.rmtree, directory)
            server = EtcdServer(binary, directory)
            self._servers[name] = self._stack.enter_context(server)
        return self._servers[name]


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    with ExitStack() as stack:
        yield Worlds(stack, tmp_path_factory)


@pytest.fixture(params=kinds())
def target(request: pytest.FixtureRequest, worlds: Worlds) -> Iterator[Target]:
    """A fresh target of every kind."""
    with worlds.open(request.param) as made:
        yield made


@pytest.fixture(params=kinds())
def compactable(request: pytest.FixtureRequest, worlds: Worlds) -> Iterator[Target]:
    """A fresh target of every kind, which the test may compact."""
    with worlds.open(request.param, compacts=True) as made:
        yield made


@pytest.fixture(scope="module", params=kinds())
def standing(request: pytest.FixtureRequest, worlds: Worlds) -> Iterator[Target]:
    """A target of every kind, for all the tests of a module."""
    with worlds.open(request.param) as made:
        yield made


@pytest.fixture
def pods(standing: Target) -> Namespace:
    """A new namespace on it."""
    return Namespace(standing)


@pytest.fixture(scope="module", params=kinds())
def aging(request: pytest.FixtureRequest, worlds: Worlds) -> Iterator[Target]:
    """The same, and the tests may compact it."""
    with worlds.open(request.param, server="aging") as made:
        yield made


@pytest.fixture
def old_pods(aging: Target) -> Namespace:
    """A new namespace on it."""
    return Namespace(aging)
