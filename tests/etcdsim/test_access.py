"""Which methods are open to whom while authentication is on, by version; requests that name no key
of anybody. `tests/interop/test_etcdsim_stories.py` holds the rules against a real etcd."""

from __future__ import annotations

import itertools

import pytest

from etcdsim import services, wire
from etcdsim.errors import EtcdError
from etcdsim.server.serving import Simulation

#: What is told by a method that has another request than an empty one.
REQUESTS = {
    wire.RANGE: {"key": b"k"},
    services.RANGE_STREAM: {"key": b"k"},
    wire.PUT: {"key": b"k"},
    wire.DELETE_RANGE: {"key": b"k"},
    services.USER_GET: {"name": "root"},
    services.ROLE_GET: {"role": "root"},
    services.UNLOCK: {"key": b"k"},
    services.PROCLAIM: {"leader": {"key": b"k"}},
    services.RESIGN: {"leader": {"key": b"k"}},
}
ALWAYS = {"Authenticate", "Check", "Txn", "Observe"}  # the transaction is empty; Observe just ends
BEFORE_2026 = {
    "Alarm", "Compact", "LeaseGrant", "LeaseKeepAlive", "LeaseLeases", "LeaseRevoke",
    "LeaseTimeToLive", "MemberList", "MoveLeader", "Status",
}  # fmt: skip
TO_USERS = BEFORE_2026 - {"Compact", "MoveLeader", "Status"}


def open_to(simulation: Simulation, token: str) -> set[str]:
    """The names of the methods that may be called."""
    allowed = set()
    for method in simulation.handlers.keys() - {services.HEALTH_WATCH}:  # as Check
        request = method.request(**REQUESTS.get(method, {}))
        if method is wire.WATCH:
            request = wire.WatchCreateRequest(key=b"k")
        try:
            simulation.member.permit(method, request, {"token": token} if token else {})
        except EtcdError as error:
            assert error.code_name in (  # noqa: PT017
                "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNKNOWN",
            )  # fmt: skip
        else:
            allowed.add(method.path.rpartition("/")[2])
    return allowed


@pytest.mark.parametrize(
    ("version", "to_anybody", "to_users"),
    [
        ("3.4.23", BEFORE_2026, BEFORE_2026),
        ("3.5.29", BEFORE_2026, BEFORE_2026),
        ("3.5.30", set(), TO_USERS),
        ("3.7.0", set(), TO_USERS),
    ],
)
def test_what_is_open(version: str, to_anybody: set[str], to_users: set[str]) -> None:
    simulation = Simulation(lambda: 0.0, itertools.count(1).__next__, version=version)
    auth = simulation.member.auth
    methods = open_to(simulation, "")
    assert len(methods) > 45
    for name in ("root", "ann"):
        auth.add_user(name, "")
        auth.admit(name, name)
    auth.grant_role("root", "root")
    auth.enable()
    assert open_to(simulation, "root") == methods
    assert open_to(simulation, "") == ALWAYS | to_anybody
    assert open_to(simulation, "ann") == ALWAYS | to_users
    looked_at = {"Alarm", "Compact", "LeaseGrant", "LeaseRevoke", "Txn"}
    assert open_to(simulation, "nobody's") == (ALWAYS | to_anybody) - looked_at
