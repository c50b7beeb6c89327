"""A server with an archive restarts under live writes, with a hundred page chains and a hundred
watches open: they see exactly what they would have seen without.

Twice: told to end, and the etcd then forgets everything up to what is archived; and killed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import httpx
import pytest

from btreecache.archive import Archive
from tests.interop.etcd_server import EtcdServer, Writer, free_port

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0
CHAINS, WATCHES, NAMESPACES, PAGE = 100, 100, 20, 12
WRITES_PER_S = 40

#: (revision, type, name) of one namespace.
Event = tuple[int, str, str]


def pod(namespace: str, name: str, number: int) -> bytes:
    metadata = {"name": name, "namespace": namespace, "annotations": {"n": str(number)}}
    return json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": metadata}).encode()


class Writes(threading.Thread):
    """Seeded writes to an etcd until it is told to end; what every one of them did."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer
        self._rng = Random(8)
        self._over = threading.Event()
        self.events: list[tuple[str, Event]] = []
        self._live: dict[tuple[str, str], int] = {}
        self.revision = 0
        for number in range(200):
            self._put(f"ns{number % NAMESPACES}", f"p{number}")

    def run(self) -> None:
        while not self._over.wait(1 / WRITES_PER_S):
            namespace = f"ns{self._rng.randrange(NAMESPACES)}"
            name = f"p{self._rng.randrange(300)}"
            if (namespace, name) in self._live and self._rng.random() < 0.4:
                revision = self._writer.delete(f"/registry/pods/{namespace}/{name}".encode())
                assert revision is not None
                self._note(namespace, (revision, "DELETED", name))
                del self._live[namespace, name]
            else:
                self._put(namespace, name)

    def end(self) -> None:
        self._over.set()
        self.join(TIMEOUT_S)

    def _put(self, namespace: str, name: str) -> None:
        value = pod(namespace, name, len(self.events))
        revision = self._writer.put(f"/registry/pods/{namespace}/{name}".encode(), value)
        kind = "MODIFIED" if (namespace, name) in self._live else "ADDED"
        self._live[namespace, name] = revision
        self._note(namespace, (revision, kind, name))

    def _note(self, namespace: str, event: Event) -> None:
        self.events.append((namespace, event))
        self.revision = event[0]

    def at(self, revision: int) -> list[tuple[str, str, int]]:
        """(namespace, name, mod_revision) of every object at a revision, in key order."""
        live: dict[tuple[str, str], int] = {}
        for namespace, (number, kind, name) in self.events:
            if number > revision:
                break
            if kind == "DELETED":
                del live[namespace, name]
            else:
                live[namespace, name] = number
        keys = sorted(live, key=lambda key: f"{key[0]}/{key[1]}")
        return [(*key, live[key]) for key in keys]


class Served:
    """`btreecache serve` as a process on one port, started again and again."""

    def __init__(self, etcd: EtcdServer, archive: Path) -> None:
        self.port = free_port()
        self._command = [
            sys.executable, "-m", "btreecache", "serve", "--etcd", etcd.endpoint,
            "--listen", f"127.0.0.1:{self.port}", "--archive", str(archive), "--warm", "pods",
        ]  # fmt: skip
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("http://")

    def end(self, number: signal.Signals) -> None:
        """Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(TIMEOUT_S)
            assert process.stdout is not None
            process.stdout.close()


class Client:
    """Pages and watches that begin again after a connection is lost, and never for another cause.

    `seen`: the events of each watch; `broken`: connections that were lost.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.seen: list[list[Event]] = [[] for _ in range(WATCHES)]
        self.starts = [0] * WATCHES
        self.broken = 0

    def _http(self) -> httpx.AsyncClient:
        """A pool for each who asks: one for all takes longer for a connection the more it has."""
        return httpx.AsyncClient(base_url=self._url, timeout=TIMEOUT_S, verify=False)

    async def _get(self, http: httpx.AsyncClient, path: str) -> dict[str, object]:
        while True:
            try:
                answer = await http.get(path)
            except httpx.TransportError:
                self.broken += 1
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 429:  # It has just started.
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code == 200, answer.text
            found: dict[str, object] = answer.json()
            return found

    async def chain(self, pause_s: float) -> tuple[int, list[tuple[str, str, int]]]:
        """A list page by page: its revision and what it holds."""
        async with self._http() as http:
            return await self._chain(http, pause_s)

    async def _chain(
        self, http: httpx.AsyncClient, pause_s: float
    ) -> tuple[int, list[tuple[str, str, int]]]:
        found: list[tuple[str, str, int]] = []
        path = f"/api/v1/pods?limit={PAGE}"
        while True:
            page = await self._get(http, path)
            meta, items = page["metadata"], page["items"]
            assert isinstance(meta, dict)
            assert isinstance(items, list)
            for item in items:
                own = item["metadata"]
                found.append((own["namespace"], own["name"], int(own["resourceVersion"])))
            token = meta.get("continue")
            if not token:
                return int(meta["resourceVersion"]), found
            path = f"/api/v1/pods?limit={PAGE}&continue={token}"
            await asyncio.sleep(pause_s)

    async def watch(self, index: int) -> None:
        """A watch of one namespace from now on, until it is cancelled."""
        async with self._http() as http:
            await self._watch(http, index)

    async def _watch(self, http: httpx.AsyncClient, index: int) -> None:
        base = f"/api/v1/namespaces/ns{index % NAMESPACES}/pods?"
        first = await self._get(http, base + "limit=1")
        meta = first["metadata"]
        assert isinstance(meta, dict)
        position = self.starts[index] = int(meta["resourceVersion"])
        seen = self.seen[index]
        while True:
            path = f"{base}watch=1&resourceVersion={position}"
            try:
                async with http.stream("GET", path) as answer:
                    if answer.status_code == 429:
                        await asyncio.sleep(0.05)
                        continue
                    assert answer.status_code == 200
                    async for line in answer.aiter_lines():
                        frame = json.loads(line)
                        assert frame["type"] != "ERROR", frame
                        own = frame["object"]["metadata"]
                        position = int(own["resourceVersion"])
                        seen.append((position, frame["type"], own["name"]))
            except httpx.TransportError:
                self.broken += 1
                await asyncio.sleep(0.05)


async def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        assert time.monotonic() < deadline, "it never happens"
        await asyncio.sleep(0.05)


async def story(etcd: EtcdServer, writes: Writes, served: Served, path: Path) -> None:
    client = Client(f"http://127.0.0.1:{served.port}")
    rng = Random(9)
    async with asyncio.TaskGroup() as tasks:
        watches = [tasks.create_task(client.watch(index)) for index in range(WATCHES)]
        await until(lambda: all(client.starts))
        writes.start()
        chains = [tasks.create_task(client.chain(rng.uniform(0.4, 0.6))) for _ in range(CHAINS)]
        await asyncio.sleep(1.5)
        await asyncio.to_thread(served.end, signal.SIGTERM)
        with (
            Archive.open(str(path), read_only=True) as archive,
            archive.reading(b"/registry/pods/") as reading,
        ):
            archived = reading.newest
        with Writer(etcd.endpoint) as writer:
            await asyncio.to_thread(writer.compact, archived)
        assert writes.revision > archived, "nothing was written while the server was away"
        await asyncio.to_thread(served.start)
        await asyncio.sleep(3)
        open_chains = sum(not chain.done() for chain in chains)
        await asyncio.to_thread(served.end, signal.SIGKILL)
        await asyncio.to_thread(served.start)
        assert open_chains > CHAINS / 2, "too few chains went through both restarts"
        lists = await asyncio.wait_for(asyncio.gather(*chains), TIMEOUT_S)
        await asyncio.to_thread(writes.end)

        def told(index: int) -> list[Event]:
            namespace, start = f"ns{index % NAMESPACES}", client.starts[index]
            return [event for at, event in writes.events if at == namespace and event[0] > start]

        wanted = [told(index) for index in range(WATCHES)]
        await until(lambda: all(len(s) >= len(w) for s, w in zip(client.seen, wanted, strict=True)))
        for watch in watches:
            watch.cancel()
    assert client.seen == wanted
    for revision, found in lists:
        assert found == writes.at(revision)
    assert client.broken >= WATCHES


def test_a_restart_is_not_noticed(etcd: EtcdServer, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    served = Served(etcd, path)
    with Writer(etcd.endpoint) as writer:
        writes = Writes(writer)
        try:
            served.start()
            asyncio.run(story(etcd, writes, served, path))
        finally:
            served.end(signal.SIGKILL)
            if writes.is_alive():
                writes.end()
