"""The admin endpoint of `etcdsim serve`: what it says, and what it refuses."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("grpc")

from etcdsim.server.admin import BODY_BYTES_MAX, HEAD_BYTES_MAX, Admin
from etcdsim.server.listening import Server
from etcdsim.server.member import Handlers
from etcdsim.server.wire_faults import SERVED_FAULTS
from tests.etcdsim.served import FaultyServed, client

TIMEOUT_S = 10.0


class Administered(FaultyServed):
    """With an admin endpoint."""

    def servers(self, handlers: Handlers) -> list[Server]:
        servers = super().servers(handlers)
        self.admin = Admin(self.faulty)
        return [*servers, self.admin]

    def raw(self, request: bytes) -> tuple[int, Any]:
        """Status and body of the answer to these bytes, (0, None) if there is none."""
        host, _, port = self.admin.endpoint.rpartition(":")
        with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        if not answer:
            return 0, None
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head.lower()
        return int(head.split()[1]), json.loads(body)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        return self.raw(head.encode() + body)


@pytest.fixture
def served() -> Iterator[Administered]:
    with Administered({"drop": 0.5}) as served:
        yield served


def rates(answer: tuple[int, Any]) -> dict[str, float]:
    """Those above 0."""
    status, faults = answer
    assert status == 200
    assert list(faults) == list(SERVED_FAULTS)
    return {name: fault["rate"] for name, fault in faults.items() if fault["rate"]}


def test_rates_and_counts(served: Administered) -> None:
    assert rates(served.ask("GET", "/faults")) == {"drop": 0.5}
    assert rates(served.ask("POST", "/faults", b'{"slow": 1}')) == {"drop": 0.5, "slow": 1}
    with client(served.endpoint) as etcd:
        etcd.put(b"a", b"")
    assert served.ask("GET", "/faults")[1]["slow"] == {"rate": 1, "injected": 1}
    assert rates(served.ask("PUT", "/faults", b'{"drop": 0.25}')) == {"drop": 0.25}
    assert rates(served.ask("PUT", "/faults", b"{}")) == {}


def test_what_happens_now(served: Administered) -> None:
    with client(served.endpoint) as etcd:
        for path in ("reset", "restart"):
            stream = etcd.stream()
            stream.create(b"a")
            assert stream.next().created
            assert served.ask("POST", f"/{path}")[1][path]["injected"] == 1
            assert stream.end()[0] == "UNAVAILABLE"
        assert etcd.put(b"a", b"") == 2
        term = served.member.raft_term
        assert served.ask("POST", "/leader_change")[1]["leader_change"]["injected"] == 1
        assert served.member.raft_term == term + 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("PUT", "/faults", b"", 400, "the body is not JSON"),
        ("PUT", "/faults", b"\xff", 400, "the body is not JSON"),
        ("PUT", "/faults", b"[" * 50_000, 400, "the body is not JSON"),
        ("PUT", "/faults", b"[]", 400, 'expected {"NAME": RATE, ..}'),
        ("PUT", "/faults", b'{"nothing": 1}', 400, "unknown fault 'nothing': known faults are"),
        ("POST", "/faults", b'{"drop": 2}', 400, "fault 'drop': the rate is not a number from 0"),
        ("POST", "/faults", b'{"drop": -0.5}', 400, "fault drop: the rate must be from 0 to 1"),
        ("POST", "/faults", b'{"drop": NaN}', 400, "fault drop: the rate must be from 0 to 1"),
        ("POST", "/faults", b'{"drop": "1"}', 400, "fault 'drop': the rate is not a number"),
        ("POST", "/faults", b'{"drop": true}', 400, "fault 'drop': the rate is not a number"),
        ("POST", "/faults", b'{"drop": 1' + b"0" * 400 + b"}", 400, "fault 'drop': the rate"),
        ("POST", "/faults", b" " * (BODY_BYTES_MAX + 1), 413, "a body has up to 65536 bytes"),
        ("DELETE", "/faults", b"", 405, "/faults takes GET, PUT, POST"),
        ("GET", "/restart", b"", 405, "/restart takes POST"),
        ("GET", "/", b"", 404, "no such path: there are /faults, /reset, /restart, /leader_change"),
    ],
)
def test_mistakes(
    served: Administered, method: str, path: str, body: bytes, status: int, reason: str
) -> None:
    found, answer = served.ask(method, path, body)
    assert (found, list(answer)) == (status, ["error"])
    assert answer["error"].startswith(reason)
    assert "\n" not in answer["error"]
    assert rates(served.ask("GET", "/faults")) == {"drop": 0.5}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /faults SPDY/3\r\n\r\n", 400),
        (b"GET /faults HTTP/1.1\r\nno header\r\n\r\n", 400),
        (b"PUT /faults HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"PUT /faults HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT /faults HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"PUT /faults HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
        (b"PUT /faults HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (b"GET /" + b"x" * 2 * HEAD_BYTES_MAX + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET /faults HTTP/1.1\r\n", 0),
        (b"PUT /faults HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}", 0),
        (b"", 0),
    ],
)
def test_bytes_that_are_no_request(served: Administered, request_bytes: bytes, status: int) -> None:
    assert served.raw(request_bytes)[0] == status
    assert rates(served.ask("GET", "/faults")) == {"drop": 0.5}
