"""`python -m tests.apiservers.comparing --questions 250`: so many to each of the two servers.

Both run on one etcd, beside `btreecache serve` for the keys of each. First some objects are
written, changed and deleted through them; then nothing is, so that every revision is the same for
all. Each difference is counted by its name in docs/clients.md; one that isn't there fails.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import httpx

from etcdsim import wire
from tests.apiservers.bodies import BUILT_IN, CUSTOM, DEFINITIONS, NAMESPACES, Resource
from tests.apiservers.client import Api
from tests.apiservers.comparing.answers import ask, differences
from tests.apiservers.comparing.known import name_of
from tests.apiservers.comparing.questions import Question, Questions
from tests.apiservers.passing import establish
from tests.apiservers.servers import (
    EXTENSIONS,
    KUBE,
    PREFIXES,
    Pki,
    apiextensions_apiserver,
    kube_apiserver,
)
from tests.interop.etcd_server import EtcdServer, Writer, directory_in_memory

SERVED = {
    KUBE: ["--allow-secrets", "--warm", "pods,configmaps,services,secrets,deployments.apps"],
    EXTENSIONS: [
        "--resource", "example.com/v1/widgets:Widget:namespaced",
        "--resource", "example.com/v1/gadgets:Gadget", "--warm", "customresourcedefinitions",
    ],
}  # fmt: skip
RESOURCES = {KUBE: BUILT_IN, EXTENSIONS: (*CUSTOM, DEFINITIONS)}
NAMES = tuple(f"n{index}" for index in range(12))
TIMEOUT_S, AT_ONCE, TOLD_MAX = 60.0, 8, 2000


class Served(NamedTuple):
    """`btreecache serve` as a child process."""

    url: str
    pid: int


@contextmanager
def served(etcd: str, name: str, log: Path, *flags: str) -> Iterator[Served]:
    """`btreecache serve` for the keys of a server; ended by its pid."""
    command = [
        str(Path(sys.executable).parent / "btreecache"), "serve", "--etcd", etcd, "--listen",
        "127.0.0.1:0", "--prefix", PREFIXES[name], *SERVED[name], *flags,
    ]  # fmt: skip
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url, log.read_text()
        yield Served(url, process.pid)
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
        process.stdout.close()


async def fill(api: Api, resources: tuple[Resource, ...], rng: Random) -> None:
    """Write objects of each, change some, delete some."""
    for resource in resources:
        for namespace in resource.namespaces:
            for name in NAMES:
                body = resource.new(rng, namespace, name)
                code, thing = await api.ask("post", resource.url(namespace), body)
                assert code == 201, thing
                if rng.random() < 0.4:
                    url = resource.url(namespace, name)
                    code, thing = await api.ask("put", url, resource.changed(rng, thing))
                    assert code == 200, thing
            for name in rng.sample(NAMES, 3):
                url = f"{resource.url(namespace, name)}?gracePeriodSeconds=0"
                code, thing = await api.ask("delete", url)
                assert code in (200, 202), thing


async def prepare(urls: dict[str, str], pki: Pki, rng: Random) -> None:
    async with Api(urls[KUBE], pki.client_context()) as kube:
        for name in NAMESPACES:
            body = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}
            code, answer = await kube.ask("post", "/api/v1/namespaces", body)
            assert code == 201, answer
        await fill(kube, BUILT_IN, rng)
    async with Api(urls[EXTENSIONS], pki.client_context()) as extensions:
        for resource in CUSTOM:
            await establish(extensions, resource)
        await fill(extensions, CUSTOM, rng)


async def compare(
    server: str, theirs: str, ours: str, pki: Pki, questions: list[Question]
) -> list[tuple[Question, str]]:
    """Every difference, with its question."""
    gate = asyncio.Semaphore(AT_ONCE)
    found: list[tuple[Question, str]] = []
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(
            base_url=theirs, verify=pki.client_context(), timeout=TIMEOUT_S, limits=limits
        ) as real,
        httpx.AsyncClient(base_url=ours, timeout=TIMEOUT_S, limits=limits) as mine,
    ):

        async def one(question: Question) -> None:
            async with gate:
                answers = await asyncio.gather(ask(real, question), ask(mine, question))
            found.extend((question, said) for said in differences(question, *answers))

        await asyncio.gather(*map(one, questions))
    return found


def report(server: str, found: list[tuple[Question, str]], asked: int) -> bool:
    """Print what there was; whether one isn't listed."""
    names: Counter[str] = Counter()
    unlisted = []
    for question, said in found:
        name = name_of(server, question, said)
        if name:
            names[name] += 1
        else:
            unlisted.append((question, said))
    asking = len({id(question) for question, _ in found})
    print(f"{server}: {asked} questions, {asked - asking} answered the same")
    for name, count in sorted(names.items()):
        print(f"  {name:<28} {count}")
    for question, said in unlisted[:TOLD_MAX]:
        print(f"  NOT LISTED  {said[:300]}\n      {question}")
    return bool(unlisted)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.apiservers.comparing")
    parser.add_argument("--questions", type=int, default=250, help="to each of the two servers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--etcd", type=Path, default=Path(".cache/etcd/3.5/etcd"))
    options = parser.parse_args(argv)
    with ExitStack() as stack:
        work = stack.enter_context(directory_in_memory())
        pki = Pki.make(work / "pki")
        (work / "etcd").mkdir()
        etcd = stack.enter_context(EtcdServer(options.etcd, work / "etcd"))
        writer = stack.enter_context(Writer(etcd.endpoint))
        # Nothing but the test is to make a revision.
        flags = ("--etcd-compaction-interval=0", f"--cert-dir={work}")
        kube = kube_apiserver(
            etcd.endpoint, pki, work / "kube-log", *flags, "--endpoint-reconciler-type=none"
        )
        stack.enter_context(kube)
        extensions = apiextensions_apiserver(
            etcd.endpoint, pki, work / "ext-log", kube, "--etcd-compaction-interval=0"
        )
        stack.enter_context(extensions)

        def revision() -> int:
            return int(writer.ask(wire.STATUS, wire.StatusRequest()).header.revision)

        began = revision()
        ours = {
            name: stack.enter_context(served(etcd.endpoint, name, work / f"{name}-serve"))
            for name in SERVED
        }
        urls = {KUBE: kube.url, EXTENSIONS: extensions.url}
        asyncio.run(prepare(urls, pki, Random(f"{options.seed} objects")))
        ended = revision()
        failed = False
        for name, resources in RESOURCES.items():
            rng = Random(f"{options.seed} {name}")
            source = Questions(rng, resources, NAMES, range(began, ended + 1))
            asked = [source.next() for _ in range(options.questions)]
            found = asyncio.run(compare(name, urls[name], ours[name].url, pki, asked))
            failed = report(name, found, len(asked)) or failed
        assert revision() == ended, "somebody wrote meanwhile"
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
