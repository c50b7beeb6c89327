"""One run: both API servers on one etcd, the traffic, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from random import Random
from typing import Any

from etcdsim import wire
from tests.apiservers.bodies import BUILT_IN, CUSTOM, NAMESPACES, Resource
from tests.apiservers.client import Api
from tests.apiservers.compaction import Compactor
from tests.apiservers.logs import complaints
from tests.apiservers.passing import EVENT_TTL_S, Expiring, Passing, establish
from tests.apiservers.servers import (
    EXTENSIONS,
    KUBE,
    ApiServer,
    Pki,
    apiextensions_apiserver,
    kube_apiserver,
)
from tests.apiservers.traffic import Follower, World, check
from tests.interop.etcd_server import EtcdServer, Writer, directory_in_memory
from tests.interop.etcdsim_server import EtcdsimServer

Result = dict[str, Any]
_IDLE: Result = {"requests": 0, "watch_events": 0, "wrong": []}
STORES = ("etcd", "etcdsim")


class Traffic:
    """All that goes on at one server."""

    def __init__(self, api: Api, seed: str, compactor: Compactor, watch_list: bool) -> None:
        self.api, self.seed, self.compactor = api, seed, compactor
        self.watch_list = watch_list
        self.wrong: list[str] = []
        self.actors: dict[str, World | Follower | Passing | Expiring] = {}
        self._tasks: list[Awaitable[None]] = []

    def add_worlds(self, resources: tuple[Resource, ...], stop: asyncio.Event, rate: float) -> None:
        """`rate`: steps a second of each."""
        for resource in resources:
            name = resource.plural
            rng = Random(f"{self.seed} {name}")
            world = World(self.api, resource, rng, self.compactor, self.watch_list)
            follower = Follower(world, Random(f"{self.seed} {name} follower"))
            self.actors |= {name: world, f"{name} follower": follower}
            self._tasks += [self._world(world, stop, 1 / rate), self._guard(follower.run(stop))]

    def add(self, name: str, actor: Passing | Expiring, stop: asyncio.Event, rate: float) -> None:
        self.actors[name] = actor
        self._tasks.append(self._guard(actor.run(stop, 1 / rate)))

    async def _world(self, world: World, stop: asyncio.Event, pause_s: float) -> None:
        await self._guard(world.run(stop, pause_s))
        await self._guard(world.close())

    async def _guard(self, work: Awaitable[None]) -> None:
        """A wrong answer ends one actor, and is kept."""
        try:
            await work
        except* Exception as group:
            self.wrong += [f"{type(error).__name__}: {error}"[:2000] for error in _leaves(group)]

    async def run(self) -> None:
        await asyncio.gather(*self._tasks)

    def result(self) -> Result:
        done = {
            name: dict(actor.did if isinstance(actor, Follower) else actor.steps)
            for name, actor in self.actors.items()
        }
        return {
            "requests": sum(self.api.asked.values()),
            "asked": dict(sorted(self.api.asked.items())),
            "watch_events": sum(self.api.events.values()),
            "events": dict(self.api.events),
            "done": done,
            "wrong": self.wrong,
        }


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def drive(
    kube: ApiServer, extensions: ApiServer, pki: Pki, compactor: Compactor, seed: int,
    for_s: float, rate: float, driven: Sequence[str],
) -> dict[str, Result]:  # fmt: skip
    """Traffic on the `driven` servers for a while; the results by server."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        traffics = {}
        for server in (one for one in (kube, extensions) if one.name in driven):
            api = await stack.enter_async_context(Api(server.url, pki.client_context()))
            # Initial events of a watch are newer than 1.20.
            traffic = Traffic(api, f"{seed} {server.name}", compactor, server is extensions)
            traffics[server.name] = traffic
            for resource in CUSTOM:
                await establish(api, resource)
            resources: tuple[Resource, ...] = CUSTOM
            if server is kube:
                resources = (*BUILT_IN, *CUSTOM)
                for name in NAMESPACES:
                    body = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}
                    code, answer = await api.ask("post", "/api/v1/namespaces", body)
                    check(code == 201, "a namespace is answered with", code, answer)
                events = Expiring(api, Random(f"{seed} events"))
                traffic.add("events", events, stop, rate)
            traffic.add_worlds(resources, stop, rate)
            passing = Passing(api, Random(f"{seed} {server.name} passing"))
            traffic.add("definitions", passing, stop, rate)
        async with asyncio.TaskGroup() as group:
            for traffic in traffics.values():
                group.create_task(traffic.run())
            await asyncio.sleep(for_s)
            stop.set()
        return {name: traffic.result() for name, traffic in traffics.items()}


def run(
    store: str, etcd: Path, seed: int, for_s: float, rate: float, logs: Path, driven: Sequence[str]
) -> Result:
    """The whole on a fresh store, "etcd" (that binary) or "etcdsim"; the logs are kept. Both
    servers run, those in `driven` get traffic."""
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        work = stack.enter_context(directory_in_memory())
        pki = Pki.make(work / "pki")
        server: EtcdServer | EtcdsimServer = EtcdsimServer()
        if store == "etcd":
            (work / "etcd").mkdir()
            server = EtcdServer(etcd, work / "etcd")
        stack.enter_context(server)
        endpoint = server.endpoint
        writer = stack.enter_context(Writer(endpoint))
        flags = (f"--event-ttl={EVENT_TTL_S:.0f}s", f"--cert-dir={work}")
        kube = kube_apiserver(endpoint, pki, logs / f"{store}-{KUBE}.log", *flags)
        stack.enter_context(kube)
        log = logs / f"{store}-{EXTENSIONS}.log"
        extensions = apiextensions_apiserver(endpoint, pki, log, kube)
        stack.enter_context(extensions)
        compactor = Compactor(writer)
        began = time.monotonic()
        results = asyncio.run(drive(kube, extensions, pki, compactor, seed, for_s, rate, driven))
        took_s = time.monotonic() - began
        for one in (extensions, kube):
            results.setdefault(one.name, dict(_IDLE))
            results[one.name]["ready_after_s"] = round(one.ready_after_s, 1)
            results[one.name]["exit_code"] = one.stop()
        revision = writer.ask(wire.STATUS, wire.StatusRequest()).header.revision
    for one in (extensions, kube):
        with one.log.open(errors="replace") as lines:
            found: Counter[str] = complaints(lines)
        results[one.name]["complaints"] = dict(sorted(found.items()))
    return {
        "store": store, "seed": seed, "for_s": for_s, "rate": rate, "took_s": round(took_s, 1),
        "compactions": compactor.count, "revision": revision, "servers": results,
    }  # fmt: skip
