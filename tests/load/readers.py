"""`python -m tests.load.readers`: lists and pages, at a pace, each answer digested.

Told `go`, it begins: every second as many lists as it was told, at the same time, and one page for
each client that walks through the pages of a state; who is behind goes on at once. Told `end`, it
notes all that came of it.
"""

# ruff: noqa: T201
from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.load import notes
from tests.load.http import Connection
from tests.load.objects import DIGEST_MODULUS, PODS, PodList, digest

PAGE = 500

#: What a server may say that has too much to do, or can't reach what is asked for in time.
REFUSALS = (429, 504)
PERIOD_S = 1.0


class Digested(NamedTuple):
    """What was read: one answer, or a chain of them as one."""

    revision: int = 0
    count: int = 0
    digest: int = 0
    first: str = ""
    last: str = ""
    token: str = ""
    in_order: bool = True
    began_s: float = 0.0
    seconds: float = 0.0

    def then(self, page: Digested) -> Digested:
        """With one more page of the same state."""
        if not self.count:
            return page
        follows = self.last < page.first and self.revision == page.revision
        return page._replace(
            count=self.count + page.count,
            digest=(self.digest + page.digest) % DIGEST_MODULUS,
            first=self.first,
            in_order=self.in_order and page.in_order and follows,
            began_s=self.began_s,
            seconds=page.began_s + page.seconds - self.began_s,
        )


class Readers:
    def __init__(self, host: str, port: int, lists: int, walkers: int) -> None:
        self._where = host, port
        self._lists, self._walkers = lists, walkers
        self._decoder = msgspec.json.Decoder(PodList)
        self.reads: list[notes.Read] = []

    def begin(self) -> list[asyncio.Task[None]]:
        lists = [self._list_for_ever(f"list-{number}") for number in range(self._lists)]
        walks = [
            self._walk_for_ever(f"walk-{number}", PERIOD_S * number / self._walkers)
            for number in range(self._walkers)
        ]
        return [asyncio.create_task(work) for work in (*lists, *walks)]

    async def _list_for_ever(self, agent: str) -> None:
        connection = Connection(*self._where, agent)
        while True:
            await asyncio.sleep(PERIOD_S - time.monotonic() % PERIOD_S)
            try:
                self._note("list", await self._read(connection, PODS))
            except Refused:
                self._note("refused", Digested())
            except (OSError, EOFError, ValueError) as error:
                connection.close()
                self._failed("list", error)

    async def _walk_for_ever(self, agent: str, offset_s: float) -> None:
        connection = Connection(*self._where, agent)
        await asyncio.sleep(offset_s)
        while True:
            try:
                await self._walk(connection)
            except (OSError, EOFError, ValueError) as error:
                connection.close()
                self._failed("chain", error)
                await asyncio.sleep(PERIOD_S)

    async def _walk(self, connection: Connection) -> None:
        """All pages of one state."""
        whole, due_s = Digested(), time.monotonic()
        while True:
            token = f"&continue={whole.token}" if whole.token else ""
            try:
                page = await self._read(connection, f"{PODS}?limit={PAGE}{token}")
            except Expired:
                self._note("expired", whole._replace(seconds=time.monotonic() - whole.began_s))
                return
            except Refused:
                self._note("refused", whole)
                return
            self._note("page", page)
            whole = whole.then(page)
            due_s += PERIOD_S
            await asyncio.sleep(due_s - time.monotonic())
            if not whole.token:
                self._note("chain", whole)
                return

    async def _read(self, connection: Connection, path: str) -> Digested:
        began_s = time.monotonic()
        status, body = await connection.get(path)
        took_s = time.monotonic() - began_s
        if status == 410:
            raise Expired
        if status in REFUSALS:
            raise Refused
        if status != 200:
            raise ValueError(f"status {status}: {body[:300]!r}")
        page = self._decoder.decode(body)
        total, names = 0, []
        for item in page.items:
            metadata = item.metadata
            names.append(f"{metadata.namespace}/{metadata.name}")
            revision = int(metadata.resourceVersion)
            total += digest(metadata.namespace, metadata.name, revision, item.mark)
        return Digested(
            int(page.metadata.resourceVersion), len(names), total % DIGEST_MODULUS,
            min(names, default=""), max(names, default=""), page.metadata.token,
            names == sorted(set(names)), began_s, took_s,
        )  # fmt: skip

    def _note(self, kind: str, found: Digested) -> None:
        problem = "" if found.in_order else "out of order"
        what = found.revision, found.count, found.digest
        self.reads.append(notes.Read(kind, *what, found.began_s, found.seconds, problem))

    def _failed(self, kind: str, error: Exception) -> None:
        self.reads.append(notes.Read(kind, 0, 0, 0, time.monotonic(), 0.0, repr(error)))


class Expired(Exception):
    """410."""


class Refused(Exception):
    """One of REFUSALS."""


async def main(host: str, port: str, lists: str, walkers: str, out: str) -> None:
    readers = Readers(host, int(port), int(lists), int(walkers))
    tasks: list[asyncio.Task[None]] = []
    while line := await notes.told():
        if line == "go":
            tasks = readers.begin()
        else:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            notes.write(Path(out) / "reads", readers.reads)
        print("DONE", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
