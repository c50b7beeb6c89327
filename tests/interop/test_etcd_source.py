"""The Source contract on real etcds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from btreecache.sources.etcd import EtcdSource
from tests.interop.etcd_server import EtcdServer, Writer
from tests.source.contract import PAGE_KEYS, SourceContract

pytestmark = pytest.mark.interop


class EtcdBench(Writer):
    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.source = EtcdSource(endpoint, page_keys=PAGE_KEYS)


@pytest.fixture
def bench(etcd: EtcdServer) -> Iterator[EtcdBench]:
    with EtcdBench(etcd.endpoint) as bench:
        yield bench
        bench.source.close()


class TestEtcdSource(SourceContract):
    pass
