"""`etcdsim serve` as a child process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

STOP_TIMEOUT_S = 10.0


class EtcdsimServer:
    """One simulated etcd on loopback, on a port of its own; `with` ends the process."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self._process: subprocess.Popen[str] | None = None
        self.endpoint = ""

    @property
    def memory_mib(self) -> float:
        """What the process has in memory now."""
        assert self._process is not None
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))

    def __enter__(self) -> EtcdsimServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "etcdsim", "serve", "--listen=127.0.0.1:0", *self._flags],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        word, _, self.endpoint = self._process.stdout.readline().strip().partition(" ")
        assert word == "READY", f"etcdsim did not start: exit code {self._process.wait(10)}"
        return self

    def stop(self) -> int:
        """SIGTERM -> the exit code. Idempotent."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        finally:
            self._process.kill()
            assert self._process.stdout is not None
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()
