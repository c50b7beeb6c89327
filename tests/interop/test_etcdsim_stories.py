"""The same calls to a real etcd and to etcdsim, in order, and the same answers: elections, range
ends that are spelled out empty, and then, with authentication on, who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.etcdsim import auth_calls, election_calls, hostile
from tests.interop.conftest import etcd_binary
from tests.interop.etcd_server import EtcdServer
from tests.interop.etcdsim_server import EtcdsimServer

pytestmark = pytest.mark.interop


class Both(NamedTuple):
    """Channels to two servers."""

    real: Any
    simulated: Any


@pytest.fixture(scope="module", params=["3.4.23", "3.5.30"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    binary = etcd_binary(request.param[:3])
    with (
        # Passwords as cheap as bcrypt makes them.
        EtcdServer(binary, tmp_path_factory.mktemp("etcd"), "--bcrypt-cost=4") as etcd,
        EtcdsimServer(f"--emulated-version={request.param}") as etcdsim,
        hostile.connect(etcd.endpoint) as real,
        hostile.connect(etcdsim.endpoint) as simulated,
    ):
        yield Both(real, simulated)


def test_an_election(both: Both) -> None:
    pairs = zip(*map(election_calls.story, both), strict=True)
    for number, (expected, answer) in enumerate(pairs):
        assert answer == expected, number


def test_an_empty_range_end(both: Both) -> None:
    expected, answers = map(hostile.empty_ends, both)
    assert answers == expected


def test_every_call_of_every_user(both: Both) -> None:
    for (row, expected), (_, answer) in zip(*map(auth_calls.story, both), strict=True):
        assert answer == expected, row
