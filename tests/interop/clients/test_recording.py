"""The log of what clients ask: what is left out of it, and that a change of a client is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.clients import recording
from tests.interop.clients.conftest import collect_ignore
from tests.interop.clients.recording import Log, asked

AGENT = b"\r\nUser-Agent: kubectl/v1.37.1 (linux/amd64) kubernetes/0a1b2c\r\nAccept: */*\r\n\r\n"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"/api/v1/pods?resourceVersion=0&limit=5", "/api/v1/pods?resourceVersion=0&limit=5"),
        (b"/api/v1/pods?resourceVersion=517&watch=1", "/api/v1/pods?resourceVersion=N&watch=1"),
        (b"/api/v1/pods?continue=eyJ9&limit=5", "/api/v1/pods?continue=TOKEN&limit=5"),
        (b"/api/v1/pods?fieldSelector=b%2Ca&limit=5", "/api/v1/pods?fieldSelector=a%2Cb&limit=5"),
        (b"/apis/apps/v1/", "/apis/GROUP/VERSION"),
        (b"/apis/apps/v1/deployments", "/apis/apps/v1/deployments"),
    ],
)
def test_a_request(target: bytes, shown: str) -> None:
    line = asked(b"GET " + target + b" HTTP/1.1" + AGENT)
    agent = "kubectl/* (linux/amd64) kubernetes/*"
    assert line == f"GET {shown}  Accept: */*  User-Agent: {agent}"


def test_a_change_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recording, "REQUESTS", tmp_path)
    monkeypatch.setenv("BTREECACHE_UPDATE", "1")
    Log("some").check("test_a", ["GET /b", "GET /a", "GET /b"])
    Log("some").check("at the start", ["GET /version"])
    monkeypatch.delenv("BTREECACHE_UPDATE")
    assert Log("some").sections() == {
        "at the start": ["GET /version"],
        "test_a": ["GET /b", "GET /a"],
    }
    Log("some").check("test_a", ["GET /a", "GET /b"])
    for other in (["GET /a"], ["GET /a", "GET /b", "GET /c"], []):
        with pytest.raises(AssertionError, match="test_a"):
            Log("some").check("test_a", other)
    with pytest.raises(AssertionError, match="test_b"):
        Log("some").check("test_b", ["GET /a"])


@pytest.mark.interop
def test_every_client_is_here() -> None:
    assert not collect_ignore, "install the extra `interop`"
