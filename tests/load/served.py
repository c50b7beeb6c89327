"""`btreecache serve` as a child process, from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

READY_S = 120.0


class Served:
    """A server of the pods of an etcd; ready once it is entered."""

    def __init__(self, etcd: str, *flags: str) -> None:
        command = [sys.executable, "-m", "btreecache", "serve", "--etcd", etcd, "--warm", "pods"]
        self.process = subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"BTREECACHE_VERIFY": "0"},
        )
        self.where: tuple[str, int] = "", 0

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        url = urlsplit(self.process.stdout.readline().strip())
        assert url.hostname, "the server ends at once"
        self.where = url.hostname, url.port or 0
        deadline_s = time.monotonic() + READY_S
        while self._status("/readyz") != 200:
            assert time.monotonic() < deadline_s, "the server isn't ready"
            time.sleep(0.05)
        return self

    def _status(self, path: str) -> int:
        connection = HTTPConnection(*self.where, timeout=READY_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    def memory_mib(self) -> float:
        """What the process has in memory now."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))

    def cpu_s(self) -> float:
        """What it has used of CPU so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
