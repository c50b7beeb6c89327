"""The Source contract on the simulator, through the feed (without faults) and the truth."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from btreecache.sources.simulated import SimulatedSource
from etcdsim import Simulator
from etcdsim.txn import DeleteRange, Put
from tests.source.contract import PAGE_KEYS, SourceContract


class SimulatedBench:
    """A simulator without traffic: only the test writes."""

    def __init__(self, handle: str) -> None:
        self._simulator = Simulator("churn", seed=1, objects=1)
        self._model = self._simulator.model
        self.source = SimulatedSource(getattr(self._simulator, handle), page_keys=PAGE_KEYS)

    def put(self, key: bytes, value: bytes) -> int:
        return self._model.put(key, value).revision

    def delete(self, key: bytes) -> int | None:
        result = self._model.delete_range(key)
        return result.revision if result.deleted else None

    def txn(self, changes: Sequence[tuple[bytes, bytes] | bytes]) -> int:
        operations = [
            DeleteRange(change) if isinstance(change, bytes) else Put(*change) for change in changes
        ]
        return self._model.txn([], operations).revision

    def compact(self, revision: int) -> None:
        self._simulator.compact(revision)


@pytest.fixture(params=["feed", "truth"])
def bench(request: pytest.FixtureRequest) -> SimulatedBench:
    return SimulatedBench(request.param)


class TestSimulatedSource(SourceContract):
    pass
