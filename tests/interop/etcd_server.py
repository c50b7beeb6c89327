"""A real etcd as a child process, and a client that writes to it."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from etcdsim import wire

START_TIMEOUT_S = 20.0

#: (key, value) is a put; in a transaction a bare key is its deletion.
Change = tuple[bytes, bytes] | bytes


_candidates = itertools.count(os.getpid() * 61)


def free_port() -> int:
    """A port that nobody listens on. Below the ephemeral ones: no outgoing connection gets it while
    a server restarts. Starts elsewhere in each process, since tests run in several at once."""
    while True:
        port = 10_000 + next(_candidates) % 20_000
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@contextmanager
def directory_in_memory() -> Iterator[Path]:
    """Where possible: etcd waits for the disk at every write."""
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="btreecache-etcd-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path)


class EtcdServer:
    """One etcd on loopback. Its data survives `kill` and `restart`; `with` ends the process."""

    def __init__(self, binary: Path, data_dir: Path, *flags: str, scheme: str = "http") -> None:
        self._binary = binary
        self._data_dir = data_dir
        self._flags = flags
        self._scheme = scheme
        self._ports = (free_port(), free_port())
        self._process: subprocess.Popen[bytes] | None = None
        self.log = data_dir / "log"

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> EtcdServer:
        for _ in range(3):
            try:
                self.start()
            except RuntimeError as error:
                if "address already in use" not in str(error):
                    raise
                self._ports = (free_port(), free_port())
            else:
                return self
        raise RuntimeError(f"etcd finds no free port, last {self._ports}")

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns once the server says that it serves clients."""
        client, peer = (f"127.0.0.1:{port}" for port in self._ports)
        command = [
            str(self._binary),
            f"--data-dir={self._data_dir / 'data'}",
            f"--listen-client-urls={self._scheme}://{client}",
            f"--advertise-client-urls={self._scheme}://{client}",
            f"--listen-peer-urls=http://{peer}",
            f"--initial-advertise-peer-urls=http://{peer}",
            f"--initial-cluster=default=http://{peer}",
            "--logger=zap",
            # A tenth of the defaults: a lone member elects itself in 0.1 s instead of 1 s.
            "--heartbeat-interval=10",
            "--election-timeout=100",
            *self._flags,
        ]
        start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        # Said when it has a leader and is about to serve; with TLS the line ends in "securely".
        while b'"serving client traffic ' not in (text := self.log.read_bytes()[start:]):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"etcd did not start: {text[-2000:].decode(errors='replace')}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, at once. Idempotent."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(timeout=10)
            self._process = None

    def restart(self) -> None:
        """Kill it if it runs, and start it with the same data on the same ports."""
        self.kill()
        self.start()


class Writer:
    """Writes to an etcd; every call returns the revision that it made."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(
            endpoint,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def ask(self, method: wire.Method, request: Any) -> Any:
        """Any unary call of the API."""
        call = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return call(request, timeout=20, wait_for_ready=True)

    def put(self, key: bytes, value: bytes) -> int:
        answer = self.ask(wire.PUT, wire.PutRequest(key=key, value=value))
        return int(answer.header.revision)

    def delete(self, key: bytes) -> int | None:
        """The revision of the deletion, None if there was no such key."""
        answer = self.ask(wire.DELETE_RANGE, wire.DeleteRangeRequest(key=key))
        return int(answer.header.revision) if answer.deleted else None

    def txn(self, changes: Sequence[Change]) -> int:
        """All in one revision, in this order."""
        operations = [
            wire.RequestOp(request_delete_range=wire.DeleteRangeRequest(key=change))
            if isinstance(change, bytes)
            else wire.RequestOp(request_put=wire.PutRequest(key=change[0], value=change[1]))
            for change in changes
        ]
        answer = self.ask(wire.TXN, wire.TxnRequest(success=operations))
        assert answer.succeeded
        return int(answer.header.revision)

    def compact(self, revision: int) -> None:
        self.ask(wire.COMPACT, wire.CompactionRequest(revision=revision, physical=True))
