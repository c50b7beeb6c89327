"""`etcdsim serve`: a member with all its services, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from etcdsim.hash_kv import keeps_tombstones
from etcdsim.lease import Lessor
from etcdsim.model import Model
from etcdsim.server.access import Access
from etcdsim.server.admin import Admin
from etcdsim.server.auth import auth_handlers, keep_passwords
from etcdsim.server.electing import election_handlers
from etcdsim.server.faulty import FaultyListening
from etcdsim.server.hashing import hash_compactions
from etcdsim.server.kv import kv_handlers
from etcdsim.server.leasing import expire_leases, lease_handlers
from etcdsim.server.listening import Listening, Server, serve
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
from etcdsim.server.wire_faults import WireFaults
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

    `clock`: seconds that never go back. `new_id`: a positive int64 at random, for leases and
    tokens. `model`: what the store begins with, by default nothing. `data_dir`: where it is kept,
    by default nowhere; what is there already comes before `model`. Raises ValueError for a version
    that isn't emulated; with a directory also DataDirError, OSError.
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
            new_id,
            version=version,
            model=model,
            progress_notify_interval_s=progress_notify_interval_s,
        )
        self.member.permit = Access(self.member, self.lessor).check
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
            **lock_handlers(self.member, self.writes),
            **election_handlers(self.member, self.writes),
        }
        if self._journal is not None:
            handlers = self._journal.guard(handlers)
        return keep_passwords(self.member, handlers)

    async def serve(
        self,
        address: str,
        ready: Callable[[str, str], None],
        *,
        faults: WireFaults | None = None,
        admin: str | None = None,
        truth: str | None = None,
    ) -> None:
        """Serve on HOST:PORT until SIGTERM or SIGINT. Raises OSError if that can't be had.

        With `faults` they stand between the member and its clients; then it may be served at
        `truth` too, without them, and they may be changed at `admin`. `ready` gets READY and the
        HOST:PORT of clients, then ADMIN and TRUTH with theirs, once all are served.
        """
        servers: list[tuple[str, Server, str]] = []
        if faults is None:
            servers.append(("READY", Listening(self.member, self.handlers), address))
        else:
            faulty = FaultyListening(self.member, self.lessor, self.handlers, faults)
            servers.append(("READY", faulty, address))
            if admin is not None:
                servers.append(("ADMIN", Admin(faulty), admin))
        if truth is not None:
            servers.append(("TRUTH", Listening(self.member, self.handlers), truth))

        def all_ready() -> None:
            for word, server, _ in servers:
                ready(word, server.endpoint)

        background = [
            asyncio.create_task(expire_leases(self.lessor, self.writes)),
            asyncio.create_task(hash_compactions(self.member)),
        ]
        try:
            await serve([(server, where) for _, server, where in servers], all_ready)
        finally:
            for task in background:
                task.cancel()
            await self.close()

    async def close(self) -> None:
        """Let the log go, once what was asked for is done."""
        if self._journal is not None:
            await self._journal.close()
