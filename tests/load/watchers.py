"""`python -m tests.load.watchers`: one watch a namespace, all from one revision on.

It says READY once all are answered. Told a number, it waits until as many events have come, or
none for QUIET_S, and notes them all.
"""

# ruff: noqa: T201
from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from tests.load import notes
from tests.load.http import Connection
from tests.load.objects import Frame, Pod

#: Watches that are begun at the same time.
AT_ONCE = 50
QUIET_S = 10.0


class Watchers:
    def __init__(self, host: str, port: int, namespaces: int, revision: int) -> None:
        self._where = host, port
        self._namespaces = [f"team-{number:04}" for number in range(namespaces)]
        self._revision = revision
        self._frame = msgspec.json.Decoder(Frame)
        self._pod = msgspec.json.Decoder(Pod)
        self.seen: list[notes.Seen] = []

    async def begin(self) -> list[asyncio.Task[None]]:
        at_once = asyncio.Semaphore(AT_ONCE)

        async def one(namespace: str) -> asyncio.Task[None]:
            async with at_once:
                connection = Connection(*self._where, namespace)
                path = f"/api/v1/namespaces/{namespace}/pods?watch=1"
                status, _ = await connection.begin(f"{path}&resourceVersion={self._revision}")
                if status != 200:
                    self._note(namespace, "END", detail=f"status {status}")
                return asyncio.create_task(self._follow(namespace, connection))

        return await asyncio.gather(*map(one, self._namespaces))

    async def _follow(self, namespace: str, connection: Connection) -> None:
        detail = "the server ended it"
        try:
            async for line in _lines(connection.chunks()):
                at_s = time.monotonic()
                frame = self._frame.decode(line)
                if frame.type == "ERROR":
                    detail = bytes(frame.object).decode()
                    break
                pod = self._pod.decode(frame.object)
                metadata = pod.metadata
                if metadata.namespace != namespace:
                    detail = f"an event of {metadata.namespace}"
                    break
                revision = int(metadata.resourceVersion)
                self._note(namespace, frame.type, metadata.name, revision, pod.mark, at_s)
        except (OSError, EOFError, ValueError) as error:
            detail = repr(error)
        self._note(namespace, "END", detail=detail)

    def _note(
        self, namespace: str, kind: str, name: str = "", revision: int = 0, mark: int = 0,
        at_s: float = 0.0, *, detail: str = "",
    ) -> None:  # fmt: skip
        self.seen.append(notes.Seen(namespace, kind, name, revision, mark, at_s, detail))

    async def wait_for(self, count: int) -> None:
        """Until there are as many, or no more come."""
        seen, since_s = -1, time.monotonic()
        while len(self.seen) < count and time.monotonic() - since_s < QUIET_S:
            if len(self.seen) != seen:
                seen, since_s = len(self.seen), time.monotonic()
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # for what would be too many


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line


async def main(host: str, port: str, namespaces: str, revision: str, out: str) -> None:
    watchers = Watchers(host, int(port), int(namespaces), int(revision))
    tasks = await watchers.begin()
    print("READY", flush=True)
    while line := await notes.told():
        await watchers.wait_for(int(line))
        notes.write(Path(out) / "seen", watchers.seen)
        print(len(watchers.seen), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
