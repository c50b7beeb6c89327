"""Clients that ask for everything and take nothing: what they cost the server, and for how long."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.interop

TIMEOUT_S = 60.0
CLIENTS = 50
LIST = "/api/v1/pods?resourceVersion=0"

#: What one of them may cost: the chunks that a thread makes in one go, what asyncio holds of an
#: answer, the references of its page.
BYTES_EACH = 2 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A server's process id and URL."""
    command = [
        sys.executable, "-m", "btreecache", "serve", "--sim", "kubernetes", "--objects", "12000",
        "--writes", "0", "--warm", "pods", "--listen", "127.0.0.1:0", "--max-lists", "200",
        "--max-list-bytes", "100G", "--write-timeout", "8s",
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), (tmp_path / "log").read_text()
        wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        yield process.pid, url
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(TIMEOUT_S)
        assert process.stdout is not None
        process.stdout.close()


def wait_for(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        assert time.monotonic() < deadline, "it never happens"
        time.sleep(0.05)


def was_reset(connection: socket.socket) -> bool:
    """Whether the other side has cut it, without taking what has come."""
    poll = select.poll()
    poll.register(connection, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def resident_bytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def test_they_hold_little_and_not_for_long(server: tuple[int, str]) -> None:
    pid, url = server
    host, port = url.removeprefix("http://").split(":")
    whole = [httpx.get(url + LIST, timeout=TIMEOUT_S).content for _ in range(2)][1]
    before = resident_bytes(pid)
    with ExitStack() as stack:
        slow = []
        for number in range(CLIENTS):
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.settimeout(TIMEOUT_S)
            one.connect((host, int(port)))
            asked = f"GET {LIST} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {number}\r\n\r\n"
            one.sendall(asked.encode())
            slow.append(one)
        for one in slow:
            assert one.recv(12) == b"HTTP/1.1 200"
        held = resident_bytes(pid) - before
        assert len(whole) > 8 * BYTES_EACH
        assert held < CLIENTS * BYTES_EACH
        # Meanwhile everybody else is served; and in the end they are cut off.
        assert httpx.get(url + LIST, timeout=TIMEOUT_S).content == whole
        wait_for(lambda: all(map(was_reset, slow)))
    assert resident_bytes(pid) - before < CLIENTS * BYTES_EACH
    assert len(json.loads(httpx.get(url + LIST, timeout=TIMEOUT_S).content)["items"]) > 1000
