"""Authentication: who may do what, and what is said to who may not, on a real etcd and etcdsim."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.etcdsim import auth_calls, hostile
from tests.interop.conftest import etcd_binary
from tests.interop.etcd_server import EtcdServer
from tests.interop.etcdsim_server import EtcdsimServer

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("version", ["3.4.23", "3.5.30"])
def test_every_call_of_every_user_ends_the_same_way(version: str, data_dir: Path) -> None:
    with (
        # Passwords as cheap as bcrypt makes them.
        EtcdServer(etcd_binary(version[:3]), data_dir, "--bcrypt-cost=4") as etcd,
        EtcdsimServer(f"--emulated-version={version}") as etcdsim,
        hostile.connect(etcd.endpoint) as real,
        hostile.connect(etcdsim.endpoint) as simulated,
    ):
        pairs = zip(auth_calls.story(real), auth_calls.story(simulated), strict=True)
        for (row, expected), (_, answer) in pairs:
            assert answer == expected, row
