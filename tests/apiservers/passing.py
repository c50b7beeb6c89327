"""What goes by itself: custom resources with their definition, events with their lease."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from random import Random

from tests.apiservers.bodies import DEFINITIONS, Resource, definition, passing_resource
from tests.apiservers.client import Api
from tests.apiservers.record import Object, key_of, wrong_list
from tests.apiservers.traffic import check

PATIENCE_S = 60.0
#: `--event-ttl` of the kube-apiserver. etcd leases are shared for a twentieth of it, and end late
#: by a moment; the bound says when an event must be gone.
EVENT_TTL_S = 20.0
EVENT_GONE_S = 40.0


async def establish(api: Api, resource: Resource) -> None:
    """Create its definition, and wait until its objects are served."""
    code, answer = await api.ask("post", DEFINITIONS.url(), definition(resource))
    check(code == 201, "a definition is answered with", code, answer)
    deadline = time.monotonic() + PATIENCE_S
    while (await _condition(api, resource)) != "True":
        check(time.monotonic() < deadline, "not established:", resource.plural)
        await asyncio.sleep(0.2)
    while (await api.ask("get", resource.url()))[0] != 200:
        check(time.monotonic() < deadline, "not served:", resource.plural)
        await asyncio.sleep(0.2)


async def _condition(api: Api, resource: Resource) -> str:
    name = definition(resource)["metadata"]["name"]
    _, answer = await api.ask("get", DEFINITIONS.url("", name))
    conditions = answer.get("status", {}).get("conditions") or []
    found = [one["status"] for one in conditions if one["type"] == "Established"]
    return found[0] if found else "absent"


class Passing:
    """Definitions that come and go, with the objects of their resource."""

    def __init__(self, api: Api, rng: Random) -> None:
        self.api, self.rng = api, rng
        self.steps: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event, pause_s: float) -> None:
        """One life after another; raises Wrong."""
        number = 0
        while not stop.is_set():
            number += 1
            # A name comes back now and then, with another definition.
            await self._life(passing_resource(f"things{number % 5}"))
            self.steps["life"] += 1
            await asyncio.sleep(self.rng.uniform(0, 20 * pause_s))

    async def _life(self, resource: Resource) -> None:
        await establish(self.api, resource)
        created: list[Object] = []
        for index in range(self.rng.randrange(1, 8)):
            namespace = self.rng.choice(resource.namespaces)
            body = resource.new(self.rng, namespace, f"n{index}")
            code, answer = await self.api.ask("post", resource.url(namespace), body)
            check(code == 201, "an object is answered with", code, answer)
            created.append(answer)
        code, answer = await self.api.ask("get", resource.url())
        problem = wrong_list(answer["items"], sorted(map(_untyped, created), key=key_of))
        check(code == 200 and problem is None, resource.plural, code, problem)
        await self._end(resource)

    async def _end(self, resource: Resource) -> None:
        """Delete the definition: its objects go first, then it, then its API."""
        url = DEFINITIONS.url("", definition(resource)["metadata"]["name"])
        code, answer = await self.api.ask("delete", url)
        check(code == 200, "the end of a definition is answered with", code, answer)
        deadline = time.monotonic() + PATIENCE_S
        for path in (url, resource.url()):
            while (await self.api.ask("get", path))[0] != 404:
                check(time.monotonic() < deadline, "still there:", path)
                await asyncio.sleep(0.3)


def _untyped(thing: Object) -> Object:
    return {name: value for name, value in thing.items() if name not in ("kind", "apiVersion")}


class Expiring:
    """Events, which etcd deletes when their lease runs out."""

    def __init__(self, api: Api, rng: Random) -> None:
        self.api, self.rng = api, rng
        self.steps: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event, pause_s: float) -> None:
        """Create them until told to stop, and see each of them go. Raises Wrong."""
        async with asyncio.TaskGroup() as group:
            number = 0
            while not stop.is_set():
                number += 1
                group.create_task(self._life(f"event{number}"))
                await asyncio.sleep(self.rng.uniform(0, 10 * pause_s))

    async def _life(self, name: str) -> None:
        url = "/api/v1/namespaces/blue/events"
        involved = {"kind": "Pod", "namespace": "blue", "name": "n1"}
        body = {"kind": "Event", "apiVersion": "v1", "metadata": {"name": name},
                "involvedObject": involved, "reason": "Tried", "message": name}  # fmt: skip
        began = time.monotonic()
        code, answer = await self.api.ask("post", url, body)
        check(code == 201, "an event is answered with", code, answer)
        await asyncio.sleep(EVENT_TTL_S / 2)
        code, found = await self.api.ask("get", f"{url}/{name}")
        check(time.monotonic() - began > EVENT_TTL_S or found == answer, "event:", code, found)
        while code != 404:
            check(time.monotonic() - began < EVENT_GONE_S, "an event outlives its lease:", found)
            await asyncio.sleep(2)
            code, found = await self.api.ask("get", f"{url}/{name}")
        lived_s = time.monotonic() - began
        check(lived_s > EVENT_TTL_S, "an event was gone after", lived_s)
        self.steps["expired"] += 1
