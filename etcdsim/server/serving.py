"""`etcdsim serve`: a member with all its services, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from etcdsim.hash_kv import keeps_tombstones
from etcdsim.lease import Lessor
from etcdsim.model import Model
from etcdsim.server.auth import auth_handlers
from etcdsim.server.kv import kv_handlers
from etcdsim.server.leasing import expire_leases, lease_handlers
from etcdsim.server.listening import serve
from etcdsim.server.locking import lock_handlers
from etcdsim.server.maintenance import maintenance_handlers
from etcdsim.server.member import (
    PROGRESS_NOTIFY_INTERVAL_S,
    VERSION,
    Handlers,
    Member,
    parse_version,
)
from etcdsim.server.watching import watch_handlers


class Simulation:
    """A member and its leases, with what answers every method of every service.

    `clock`: seconds that never go back. `new_id`: a positive int64 at random, for leases. `model`:
    what the store begins with, by default nothing. Raises ValueError for a version that isn't
    emulated.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        new_id: Callable[[], int],
        *,
        version: str = VERSION,
        model: Model | None = None,
        progress_notify_interval_s: float = PROGRESS_NOTIFY_INTERVAL_S,
    ) -> None:
        self.lessor = Lessor(clock, new_id)
        if model is None:
            model = Model(keeps_tombstones=keeps_tombstones(parse_version(version)))
        model.lessor = self.lessor
        self.member = Member(
            clock,
            version=version,
            model=model,
            progress_notify_interval_s=progress_notify_interval_s,
        )

    @property
    def handlers(self) -> Handlers:
        """New ones; one set for a server."""
        return {
            **kv_handlers(self.member),
            **watch_handlers(self.member),
            **lease_handlers(self.member, self.lessor),
            **lock_handlers(self.member, self.lessor),
            **maintenance_handlers(self.member),
            **auth_handlers(self.member),
        }

    async def serve(self, address: str, ready: Callable[[str], None]) -> None:
        """Serve on HOST:PORT until SIGTERM or SIGINT. Raises OSError if that can't be had."""
        expiring = asyncio.create_task(expire_leases(self.member, self.lessor))
        try:
            await serve(self.member, self.handlers, address, ready)
        finally:
            expiring.cancel()
