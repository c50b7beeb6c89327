"""Servers that an archive can be kept on, as child processes: ZEO and PostgreSQL.

Each survives `kill` and `restart` with its data, can be stopped in its tracks (`freeze`, `thaw`),
and ends with the `with` block.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.interop.etcd_server import free_port

START_TIMEOUT_S = 30.0


class Server(ABC):
    """One server on loopback. Its files are in memory where that is possible."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        base = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
        self.directory = Path(tempfile.mkdtemp(prefix="btreecache-archive-", dir=base))
        self.log = self.directory / "log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it."""

    def is_up(self) -> bool:
        """Whether it serves."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory)

    def user(self) -> int | None:
        """Whom it has to run as, None: us."""
        return None

    def start(self) -> None:
        """Returns once it serves."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.directory, user=self.user()
            )
        wait_for(lambda: self.is_up() or self._process is None or self._process.poll() is not None)
        if self._process.poll() is not None:
            raise RuntimeError(f"it did not start: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """At once, in the middle of whatever it does. Idempotent."""
        if self._process is not None:
            self.thaw()
            self._process.send_signal(self.deadly)
            self._process.wait(timeout=30)
            self._process = None

    deadly = signal.SIGKILL

    def restart(self) -> None:
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Connections stay, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in self._pids():
            with suppress(ProcessLookupError):  # One that has just ended.
                os.kill(pid, number)

    def _pids(self) -> Iterator[int]:
        """The server and the processes that it made."""
        if self._process is not None:
            yield self._process.pid
            pid = self._process.pid
            yield from map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


class Zeo(Server):
    """A ZEO server with a FileStorage behind it."""

    @property
    def uri(self) -> str:
        return f"zeo://127.0.0.1:{self.port}"

    @property
    def path(self) -> Path:
        return self.directory / "archive"

    def command(self) -> list[str]:
        program = [sys.executable, "-m", "ZEO.runzeo"]
        return [*program, "-a", f"127.0.0.1:{self.port}", "-f", str(self.path)]


class PostgreSQL(Server):
    """A cluster of its own. `binaries`: the directory with initdb and postgres."""

    PASSWORD = "s3cr3t of the archive"

    def __init__(self, binaries: Path) -> None:
        super().__init__()
        self._binaries = binaries.resolve()  # whom it runs as may not get there by the link
        self._databases = 0
        os.chmod(self.directory, 0o755)
        self._password = self.directory / "password"
        self._password.write_text(self.PASSWORD)

    def uri(self, database: str = "postgres", password: str = PASSWORD) -> str:
        quoted = password.replace(" ", "%20")
        return f"postgresql://archive:{quoted}@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """The URI of a new database."""
        import psycopg2

        self._databases += 1
        name = f"archive{self._databases}"
        connection = psycopg2.connect(self.uri())
        try:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {name}")
        finally:
            connection.close()
        return self.uri(name)

    def user(self) -> int | None:
        # It refuses to run as root.
        if os.geteuid() != 0:
            return None
        try:
            return pwd.getpwnam("postgres").pw_uid
        except KeyError:
            return pwd.getpwnam("nobody").pw_uid

    def __enter__(self) -> Self:
        data = self.directory / "data"
        data.mkdir(mode=0o700)
        user = self.user()
        if user is not None:
            os.chown(data, user, -1)
        subprocess.run(
            [self._binaries / "initdb", "--pgdata", data, "--username=archive", "--no-sync",
             "--auth=scram-sha-256", f"--pwfile={self._password}", "--encoding=UTF8",
             "--locale=C"],
            check=True, capture_output=True, user=user, cwd=self.directory, timeout=120,
        )  # fmt: skip
        return super().__enter__()

    def command(self) -> list[str]:
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "fsync": "off", "shared_buffers": "32MB", "max_connections": 60,
        }  # fmt: skip
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self.directory / "data"), *flags]

    #: Its processes go with it, and leave no shared memory behind.
    deadly = signal.SIGQUIT

    def is_up(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(self.uri(), connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True


def wait_for(condition: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
    """Return once it holds; fails if it doesn't in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
