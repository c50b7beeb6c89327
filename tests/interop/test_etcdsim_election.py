"""Elections on a real etcd and on etcdsim: the same leaders, and the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.etcdsim import election_calls, hostile
from tests.interop.conftest import etcd_binary
from tests.interop.etcd_server import EtcdServer
from tests.interop.etcdsim_server import EtcdsimServer

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("version", ["3.4.23", "3.5.30"])
def test_an_election_goes_the_same_way(version: str, data_dir: Path) -> None:
    with (
        EtcdServer(etcd_binary(version[:3]), data_dir) as etcd,
        EtcdsimServer(f"--emulated-version={version}") as etcdsim,
        hostile.connect(etcd.endpoint) as real,
        hostile.connect(etcdsim.endpoint) as simulated,
    ):
        answers = zip(election_calls.story(real), election_calls.story(simulated), strict=True)
        for number, (expected, answer) in enumerate(answers):
            assert answer == expected, number
