"""`etcdsim drive` on real etcds: what is there at the end is what the simulator has."""

from __future__ import annotations

import time

import pytest

from etcdsim import wire
from etcdsim.calls import Calls
from etcdsim.drive import Driver
from etcdsim.simulator import Simulator
from etcdsim.traffic import PROFILES
from tests.interop.etcd_server import EtcdServer, Writer

pytestmark = pytest.mark.interop


def test_the_contents_are_the_simulators(etcd: EtcdServer, writer: Writer) -> None:
    for profile in PROFILES:
        prefix = b"/" + profile.encode()
        driver = Driver(
            Calls(etcd.endpoint), profile, seed=3, prefix=prefix, clock=time.monotonic,
            wait=lambda _: False, compact=200,
        )  # fmt: skip
        driver.run(100, 500, None)
        simulator = Simulator(profile, seed=3, objects=100)
        simulator.load()
        for _ in range(500):
            simulator.step()
        wanted = {prefix + kv.key: kv.value for kv in simulator.model.range(b"\0", b"\0").kvs}
        request = wire.RangeRequest(key=prefix + b"/", range_end=prefix + b"0")
        found = {kv.key: kv.value for kv in writer.ask(wire.RANGE, request).kvs}
        assert found == wanted, profile
        assert (driver.failures, driver.conflicts, driver.writes) == (0, 0, 500)
