"""A real etcd behind a Target. Imported only where a test runs with one."""

from __future__ import annotations

from collections.abc import Sequence

from btreecache.source import Source
from btreecache.sources.etcd import EtcdSource
from tests.interop.etcd_server import EtcdServer, Writer


class EtcdBackend:
    """A server that several targets share, each below a root of its own: revisions are common."""

    def __init__(self, server: EtcdServer) -> None:
        self._writer = Writer(server.endpoint)
        self.source: Source = EtcdSource(server.endpoint)
        self.put = self._writer.put
        self.delete = self._writer.delete
        self.compact = self._writer.compact

    def txn(self, changes: Sequence[tuple[bytes, bytes | None]]) -> int:
        return self._writer.txn([key if value is None else (key, value) for key, value in changes])

    def close(self) -> None:
        self.source.close()
        self._writer.__exit__()
