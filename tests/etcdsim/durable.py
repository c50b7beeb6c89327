"""A member with a data directory, without a network: asked on a loop of its own."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etcdsim import services, wire
from etcdsim.errors import EtcdError
from etcdsim.server.serving import Simulation

Answer = tuple[str, str] | Any  # code and text of an error


class Asked:
    """A simulation, and what it answers."""

    def __init__(self, data_dir: Path | None, *, now_s: float = 0.0, **options: Any) -> None:
        self.now_s = now_s
        new_id = itertools.count(1000).__next__
        self.simulation = Simulation(lambda: self.now_s, new_id, data_dir=data_dir, **options)
        self.member, self.lessor = self.simulation.member, self.simulation.lessor
        self.handlers = self.simulation.handlers
        self.loop = asyncio.new_event_loop()

    def ask(self, method: wire.Method, message: Any = None, **fields: Any) -> Answer:
        """What one request gets."""
        return self.loop.run_until_complete(self._ask(method, message, fields))

    async def _ask(self, method: wire.Method, message: Any, fields: dict[str, Any]) -> Answer:
        request = method.request(**fields)
        if message is not None:
            request.CopyFrom(message)
        return await answer_of(lambda: self.handlers[method](request))

    def close(self) -> None:
        self.loop.run_until_complete(self.simulation.close())
        self.loop.close()

    def state(self) -> dict[str, Any]:
        """Everything that has to survive."""
        member, model = self.member, self.member.model
        oldest = max(1, model.compact_revision)
        return {
            "revision": (model.revision, model.compact_revision, member.raft_index),
            "db_bytes": member.db_bytes,
            "records": list(model.records()),
            "keys": [list(model.scan(b"\0", b"\0", at)) for at in _some(oldest, model.revision)],
            "hashes": [self.ask(services.HASH_KV, revision=at) for at in range(model.revision + 2)],
            "leases": [(one.lease_id, one.ttl_s, one.keys) for one in self.lessor.leases()],
            "alarms": member.alarms,
            "users": member.auth.users,
            "roles": member.auth.roles,
            "auth": (member.auth.revision, member.auth.enabled),
        }


async def answer_of(handler: Callable[[], Any]) -> Answer:
    """The response, awaited where it has to be, or code and text of the error."""
    try:
        response = handler()
        return await response if inspect.isawaitable(response) else response
    except EtcdError as error:
        return error.code_name, error.text


def _some(first: int, last: int) -> list[int]:
    return sorted({*range(first, last + 1, max(1, (last - first) // 8)), last})


@contextmanager
def asked(data_dir: Path | None, **options: Any) -> Iterator[Asked]:
    """For `with`."""
    running = Asked(data_dir, **options)
    try:
        yield running
    finally:
        running.close()
