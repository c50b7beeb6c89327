"""The load of the benchmark is the load that it says."""

from __future__ import annotations

import pytest

from etcdsim import wire
from tests.bench.etcdsim import CLIENTS, put_all, put_request
from tests.bench.h2_client import Connection
from tests.etcdsim.served import Served


@pytest.mark.parametrize("clients", [1, CLIENTS])
def test_every_request_is_answered_once(clients: int) -> None:
    with Served() as served:
        put_all(served.endpoint, [put_request(number) for number in range(20)], clients)
        assert served.member.model.revision == 21
        with Connection(served.endpoint) as connection:
            everything = wire.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString()
            answer = wire.RangeResponse.FromString(connection.ask(wire.RANGE.path, everything))
            assert answer.count == 20
            with pytest.raises(RuntimeError, match="refused"):
                connection.ask(wire.RANGE.path, b"")
