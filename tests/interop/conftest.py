"""Real etcds for the tests: found in $BTREECACHE_ETCD_DIR (default .cache/etcd), one per version.

`.ci/install-etcd` puts them there. A test that needs one is skipped where it is missing, but fails
when CI=true: a run in CI that silently tested nothing would be worse than none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.etcd_server import EtcdServer, Writer, directory_in_memory

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.4", "3.5")


def etcd_binary(version: str) -> Path:
    """The etcd of a release line, or the end of the test that wants it."""
    directory = Path(os.environ.get("BTREECACHE_ETCD_DIR") or ROOT / ".cache" / "etcd")
    binary = directory / version / "etcd"
    if not binary.exists():
        message = f"no etcd {version} in {directory}: run .ci/install-etcd"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return binary


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with directory_in_memory() as path:
        yield path


@pytest.fixture(params=VERSIONS)
def etcd(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[EtcdServer]:
    """A fresh server of each version."""
    with EtcdServer(etcd_binary(request.param), data_dir) as server:
        yield server


@pytest.fixture
def writer(etcd: EtcdServer) -> Iterator[Writer]:
    with Writer(etcd.endpoint) as client:
        yield client
