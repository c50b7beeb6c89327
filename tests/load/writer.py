"""`python -m tests.load.writer`: writes to an etcd at a rate, and notes everything it wrote.

Told `load N`, it creates N pods in each namespace; told `write SECONDS RATE`, it writes: updates,
creations and deletions, some of them several in one transaction. It compacts as API servers do,
with the revision in `compact_rev_key` first.
"""

# ruff: noqa: T201
from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import grpc

from etcdsim import wire
from tests.load import notes
from tests.load.objects import key, value

#: Requests that are under way at most.
AT_ONCE = 32
#: Seconds between compactions, and how much history each leaves.
COMPACT_EVERY_S, KEPT_S = 5.0, 20.0
#: Of 100 writes, how many create, delete, and change two pods in one transaction.
CREATES, DELETES, PAIRS = 10, 10, 5
CALL_TIMEOUT_S = 30.0


class Writer:
    """The one writer of an etcd."""

    def __init__(self, endpoint: str, namespaces: int, size: int, seed: int) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint)
        self._rng = Random(seed)
        self._namespaces = [f"team-{number:04}" for number in range(namespaces)]
        self._size = size
        self._marks = 0
        self._names = 0
        #: Pods that exist and nobody is writing just now.
        self._idle: list[tuple[str, str]] = []
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self.written: list[notes.Written] = []
        self.compacted: list[notes.Compacted] = []

    async def load(self, each: int) -> None:
        pods = [(space, self._name()) for space in self._namespaces for _ in range(each)]
        await asyncio.gather(*(self._change([(space, name, True)]) for space, name in pods))

    async def write(self, seconds: float, rate: float) -> None:
        began_s = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        compacting = asyncio.create_task(self._compact())
        for number in range(int(seconds * rate)):
            pause_s = began_s + number / rate - time.monotonic()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            if time.monotonic() > began_s + seconds:
                break  # the source isn't fast enough
            await self._at_once.acquire()
            task = asyncio.create_task(self._one())
            tasks.add(task)
            task.add_done_callback(lambda done: (tasks.discard(done), self._at_once.release()))
        await asyncio.gather(*tasks)
        compacting.cancel()

    async def _one(self) -> None:
        drawn = self._rng.randrange(100)
        if drawn < CREATES or len(self._idle) < 2:
            await self._change([(self._rng.choice(self._namespaces), self._name(), True)])
        elif drawn < CREATES + DELETES:
            await self._change([(*self._taken(), False)])
        elif drawn < CREATES + DELETES + PAIRS:
            await self._change([(*self._taken(), True), (*self._taken(), True)])
        else:
            await self._change([(*self._taken(), True)])

    def _name(self) -> str:
        self._names += 1
        return f"pod-{self._names:07}"

    def _taken(self) -> tuple[str, str]:
        at = self._rng.randrange(len(self._idle))
        self._idle[at], self._idle[-1] = self._idle[-1], self._idle[at]
        return self._idle.pop()

    async def _change(self, changes: list[tuple[str, str, bool]]) -> None:
        """Put or delete pods in one transaction."""
        request, marks = wire.TxnRequest(), []
        for space, name, is_put in changes:
            op = request.success.add()
            if is_put:
                self._marks += 1
                op.request_put.key = key(space, name)
                op.request_put.value = value(space, name, self._marks, self._size)
            else:
                op.request_delete_range.key = key(space, name)
            marks.append(self._marks if is_put else 0)
        sent_s = time.monotonic()
        revision = (await self._ask(wire.TXN, request)).header.revision
        at_s = time.monotonic()
        for (space, name, is_put), mark in zip(changes, marks, strict=True):
            self.written.append(notes.Written(revision, space, name, mark, sent_s, at_s))
            if is_put:
                self._idle.append((space, name))

    async def _compact(self) -> None:
        heard = [(time.monotonic(), self.written[-1].revision)]
        while True:
            await asyncio.sleep(COMPACT_EVERY_S)
            now_s = time.monotonic()
            heard.append((now_s, self.written[-1].revision))
            old = [revision for at_s, revision in heard if at_s <= now_s - KEPT_S]
            if old:
                self.compacted.append(notes.Compacted(old[-1], now_s))
                text = str(old[-1]).encode()
                await self._ask(wire.PUT, wire.PutRequest(key=b"compact_rev_key", value=text))
                await self._ask(wire.COMPACT, wire.CompactionRequest(revision=old[-1]))

    async def _ask(self, method: wire.Method, request: Any) -> Any:
        call = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return await call(request, timeout=CALL_TIMEOUT_S)


async def main(endpoint: str, namespaces: str, size: str, seed: str, out: str) -> None:
    writer = Writer(endpoint, int(namespaces), int(size), int(seed))
    while line := await notes.told():
        word, *words = line.split()
        if word == "load":
            await writer.load(int(words[0]))
        else:
            await writer.write(*map(float, words))
        notes.write(Path(out) / "written", writer.written)
        notes.write(Path(out) / "compacted", writer.compacted)
        print(max(one.revision for one in writer.written), len(writer.written), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
