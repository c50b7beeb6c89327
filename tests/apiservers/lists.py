"""What a LIST costs real API servers and us, on one etcd: `python -m tests.apiservers.lists`.

10,000 custom resources of 2.6 kB and 10,000 ConfigMaps. Latency is the client's, until the last
byte; CPU is that of the server's process, by /proc; memory is the highest that a burst of lists at
the same time reaches above what was there before it. One Markdown table on stdout.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

import httpx

from etcdsim import wire
from tests.apiservers.bodies import BUILT_IN, CUSTOM
from tests.apiservers.client import Api
from tests.apiservers.comparing.__main__ import served
from tests.apiservers.passing import establish
from tests.apiservers.servers import (
    EXTENSIONS,
    KUBE,
    Pki,
    apiextensions_apiserver,
    kube_apiserver,
)
from tests.interop.etcd_server import EtcdServer, Writer, directory_in_memory

TICKS_S = os.sysconf("SC_CLK_TCK")
NAMESPACES, BURST, CHANGED = 20, 10, 250
PATHS = {EXTENSIONS: CUSTOM[0].url(), KUBE: BUILT_IN[0].url("many")}


@dataclass(frozen=True)
class Server:
    """One of them: what it is called, where it is, and the process."""

    name: str
    url: str
    pid: int
    context: ssl.SSLContext | bool

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_S

    def peak_mib(self) -> float:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in text.splitlines() if "VmHWM" in line)

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def read(self, path: str) -> int:
        """The bytes of an answer."""
        with (
            httpx.Client(base_url=self.url, verify=self.context, timeout=120) as client,
            client.stream("GET", path, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            assert answer.status_code == 200, answer.read()
            return sum(map(len, answer.iter_raw()))

    def pages(self, path: str) -> int:
        """The bytes of a chain of pages."""
        total, token = 0, ""
        with httpx.Client(base_url=self.url, verify=self.context, timeout=120) as client:
            while True:
                answer = client.get(path + (f"&continue={token}" if token else ""))
                total += len(answer.content)
                token = json.loads(answer.content)["metadata"].get("continue", "")
                if not token:
                    return total


def measured(server: Server, ask: Callable[[], int], times: int) -> tuple[float, float, int]:
    """Median latency and CPU of one request in milliseconds, and its bytes; one to warm up."""
    size = ask()
    took, before = [], server.cpu_s()
    for _ in range(times):
        began = time.perf_counter()
        ask()
        took.append(time.perf_counter() - began)
    return median(took) * 1000, (server.cpu_s() - before) / times * 1000, size


def burst(server: Server, path: str) -> float:
    """MiB above what was there, for each of BURST lists at the same time."""
    server.forget_peak()
    before = server.peak_mib()
    with ThreadPoolExecutor(BURST) as clients:
        list(clients.map(server.read, [path] * BURST))
    return (server.peak_mib() - before) / BURST


def widget(rng: Random, index: int) -> tuple[bytes, bytes]:
    """A custom resource as it is stored: key and value, of 2.6 kB."""
    namespace, name = f"n{index % NAMESPACES:02}", f"w{index:05}"
    metadata = {
        "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1, "name": name,
        "labels": {"app": f"app-{index % 100}"}, "namespace": namespace,
        "uid": f"{rng.getrandbits(128):032x}",
    }  # fmt: skip
    parts = [{"name": f"part{i}", "image": f"registry.example.com/part:{i}"} for i in range(36)]
    value = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": metadata,
             "spec": {"parts": parts, "size": rng.getrandbits(40)}}  # fmt: skip
    key = f"/registry-ext/example.com/widgets/{namespace}/{name}"
    return key.encode(), json.dumps(value, separators=(",", ":")).encode()


def config_maps(template: bytes, count: int) -> Iterator[tuple[bytes, bytes]]:
    """Copies of one that the API server has stored, under other names of the same length."""
    for index in range(count):
        name = b"c%05d" % index
        yield b"/registry/configmaps/many/" + name, template.replace(b"c#####", name)


def fill(writer: Writer, pairs: Iterator[tuple[bytes, bytes]]) -> None:
    chunk: list[tuple[bytes, bytes]] = []
    for pair in pairs:
        chunk.append(pair)
        if len(chunk) == 100:
            writer.txn(chunk)
            chunk.clear()
    if chunk:
        writer.txn(chunk)


async def prepare(kube: str, extensions: str, context: ssl.SSLContext) -> None:
    async with Api(extensions, context) as api:
        await establish(api, CUSTOM[0])
    async with Api(kube, context) as api:
        body = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "many"}}
        assert (await api.ask("post", "/api/v1/namespaces", body))[0] == 201
        body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c00000"},
                "data": {f"key{index:02}": "value " * 16 for index in range(24)}}  # fmt: skip
        assert (await api.ask("post", BUILT_IN[0].url("many"), body))[0] == 201


def table(servers: dict[str, list[Server]], past: dict[str, int], times: int) -> Iterator[str]:
    """Row by row."""
    yield "| what | server | latency ms | CPU ms | MB | MiB a list, 10 at a time |"
    yield "|---|---|---|---|---|---|"
    for name, both in servers.items():
        path = PATHS[name]
        zero = f"{path}?resourceVersion=0"
        exact = f"{path}?resourceVersionMatch=Exact&resourceVersion={past[name]}"
        asked = {"resourceVersion=0": zero, "newest": path, "exact, 250 changes back": exact}
        if name == KUBE:
            del asked["exact, 250 changes back"]  # It has no snapshots: etcd answers.
        for what, url in asked.items():
            for server in both:
                cost = measured(server, lambda s=server, u=url: s.read(u), times)
                yield _row(
                    f"{path}, {what}", server, cost, burst(server, zero) if url == zero else None
                )
        for server in both:
            chain = f"{path}?limit=500"
            cost = measured(server, lambda s=server, u=chain: s.pages(u), max(2, times // 3))
            yield _row(f"{path}, all pages of 500", server, cost, None)


def _row(
    what: str, server: Server, cost: tuple[float, float, int], memory_mib: float | None
) -> str:
    ms, cpu_ms, size = cost
    memory = "" if memory_mib is None else f"{memory_mib:.1f}"
    return f"| {what} | {server.name} | {ms:.0f} | {cpu_ms:.0f} | {size / 1e6:.1f} | {memory} |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.apiservers.lists", description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--server", choices=PATHS, action="append", help="default: both")
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--etcd", type=Path, default=Path(".cache/etcd/3.5/etcd"))
    options = parser.parse_args(argv)
    with ExitStack() as stack:
        work = stack.enter_context(directory_in_memory())
        pki = Pki.make(work / "pki")
        context = pki.client_context()
        (work / "etcd").mkdir()
        etcd = stack.enter_context(EtcdServer(options.etcd, work / "etcd"))
        writer = stack.enter_context(Writer(etcd.endpoint))
        flags = ("--etcd-compaction-interval=0", f"--cert-dir={work}")
        kube = kube_apiserver(etcd.endpoint, pki, work / "kube-log", *flags)
        stack.enter_context(kube)
        extensions = apiextensions_apiserver(etcd.endpoint, pki, work / "ext-log", kube, flags[0])
        stack.enter_context(extensions)
        asyncio.run(prepare(kube.url, extensions.url, context))
        rng = Random(0)
        fill(writer, (widget(rng, index) for index in range(options.objects)))
        stored = writer.ask(wire.RANGE, wire.RangeRequest(key=b"/registry/configmaps/many/c00000"))
        template = stored.kvs[0].value.replace(b"c00000", b"c#####")
        fill(writer, config_maps(template, options.objects))
        ours = {name: stack.enter_context(served(etcd.endpoint, name, work / f"{name}-serve"))
                for name in (EXTENSIONS, KUBE)}  # fmt: skip
        json_log = work / "json-serve"
        as_json = stack.enter_context(served(etcd.endpoint, KUBE, json_log, "--serve-as", "json"))
        servers = {
            name: [
                Server(name, real.url, real.pid, context),
                Server("btreecache", ours[name].url, ours[name].pid, True),
            ]
            for name, real in ((EXTENSIONS, extensions), (KUBE, kube))
            if name in (options.server or PATHS)
        }
        if KUBE in servers:
            name = "btreecache --serve-as json"
            servers[KUBE].append(Server(name, as_json.url, as_json.pid, True))
        for name, both in servers.items():
            for server in both:
                server.read(PATHS[name])
        past = {name: writer.put(b"/elsewhere", b"") for name in servers}
        for index in range(CHANGED):
            writer.put(*widget(rng, index))
        for row in table(servers, past, options.times):
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
