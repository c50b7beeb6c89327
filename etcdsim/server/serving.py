"""`etcdsim serve`: a member with all its services, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

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
from etcdsim.server.writes import AtOnce

if TYPE_CHECKING:
    from etcdsim.server.journal import Journal
    from etcdsim.server.log import Log

# A member in memory loads no ZODB.


def _log(directory: Path) -> Log:
    from etcdsim.server.log import Log  # noqa: PLC0415

    return Log(directory)


def _journal(member: Member, lessor: Lessor, appliers: Handlers, log: Log) -> Journal:
    from etcdsim.server.journal import Journal  # noqa: PLC0415

    return Journal(member, lessor, appliers, log)


class Simulation:
    """A member and its leases, with what answers every method of every service.

    `clock`: seconds that never go back. `new_id`: a positive int64 at random, for leases. `model`:
    what the store begins with, by default nothing. `data_dir`: where it is kept, by default
    nowhere; what is there already comes before `model`. Raises ValueError for a version that isn't
    emulated; with a directory also DataDirError, OSError.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        new_id: Callable[[], int],
        *,
        version: str = VERSION,
        model: Model | None = None,
        data_dir: Path | None = None,
        progress_notify_interval_s: float = PROGRESS_NOTIFY_INTERVAL_S,
    ) -> None:
        self.lessor = Lessor(clock, new_id)
        numbers = parse_version(version)
        log = None if data_dir is None else _log(data_dir)
        if model is None or (log is not None and log.size):
            model = Model(keeps_tombstones=keeps_tombstones(numbers))
        model.lessor = self.lessor
        self.member = Member(
            clock,
            version=version,
            model=model,
            progress_notify_interval_s=progress_notify_interval_s,
        )
        appliers = self._appliers()
        self._journal: Journal | None = None
        if log is not None:
            self._journal = _journal(self.member, self.lessor, appliers, log)
        self.writes = self._journal or AtOnce(self.member, appliers)

    @property
    def is_durable(self) -> bool:
        """Whether there is a data directory."""
        return self._journal is not None

    def _appliers(self) -> Handlers:
        return {
            **kv_handlers(self.member),
            **lease_handlers(self.member, self.lessor),
            **maintenance_handlers(self.member),
            **auth_handlers(self.member),
        }

    @property
    def handlers(self) -> Handlers:
        """New ones; one set for a server."""
        handlers = {
            **self._appliers(),
            **watch_handlers(self.member),
            **lock_handlers(self.member, self.lessor, self.writes),
        }
        return handlers if self._journal is None else self._journal.guard(handlers)

    async def serve(self, address: str, ready: Callable[[str], None]) -> None:
        """Serve on HOST:PORT until SIGTERM or SIGINT. Raises OSError if that can't be had."""
        expiring = asyncio.create_task(expire_leases(self.lessor, self.writes))
        try:
            await serve(self.member, self.handlers, address, ready)
        finally:
            expiring.cancel()
            await self.close()

    async def close(self) -> None:
        """Let the log go, once what was asked for is done."""
        if self._journal is not None:
            await self._journal.close()
