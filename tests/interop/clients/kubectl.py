"""kubectl as a child process."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.interop.clients.cluster import TIMEOUT_S, Brief, briefs

ROOT = Path(__file__).parents[3]


def kubectl_binary() -> Path:
    """The kubectl that .ci/install-kubectl unpacked, or the end of the test."""
    directory = Path(os.environ.get("BTREECACHE_KUBECTL_DIR") or ROOT / ".cache" / "kubectl")
    if not (directory / "kubectl").exists():
        message = f"no kubectl in {directory}: run .ci/install-kubectl"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return directory / "kubectl"


class Kubectl:
    """Runs kubectl against one server, with a HOME of its own: it caches discovery for hours."""

    def __init__(self, url: str, home: Path) -> None:
        self._command = [str(kubectl_binary()), "--server", url]
        self._env = {"HOME": str(home), "KUBECONFIG": "/dev/null", "PATH": os.environ["PATH"]}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._env,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> str:
        """stdout of a command that ends with that code; stderr if it is a failure."""
        ended = subprocess.run(
            [*self._command, *arguments],
            capture_output=True, text=True, env=self._env, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert ended.returncode == code, f"{arguments}: {ended.stdout}{ended.stderr}"
        return ended.stderr if code else ended.stdout

    def names(self, *arguments: str) -> list[str]:
        return self.run("get", *arguments, "-o", "name").split()

    def pods(self, path: str) -> list[Brief]:
        return briefs(json.loads(self.run("get", "--raw", path))["items"])


class Lines:
    """The lines of a running command, as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def wait_for(self, count: int) -> list[str]:
        """The lines so far, once there are so many."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self._lines) >= count, TIMEOUT_S)
            assert arrived, self._lines
            return list(self._lines)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT_S)
        self._thread.join(TIMEOUT_S)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
