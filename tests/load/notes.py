"""What the processes note, and how they are told to go on and to end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from select import select
from typing import Self, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

ANSWER_S = 300.0


class Written(msgspec.Struct, array_like=True):
    """One change. Changes of one transaction have one revision. mark 0: deleted."""

    revision: int
    namespace: str
    name: str
    mark: int
    sent_s: float
    acknowledged_s: float


class Compacted(msgspec.Struct, array_like=True):
    """The source was about to forget everything below the revision."""

    revision: int
    at_s: float


class Seen(msgspec.Struct, array_like=True):
    """One event of the watch of a namespace. type END: the stream ended; detail says how."""

    namespace: str
    type: str
    name: str
    revision: int
    mark: int
    at_s: float
    detail: str = ""


class Read(msgspec.Struct, array_like=True):
    """One list, or a chain of pages as a whole.

    kind       list, chain; page: one answer of a chain, for its time; expired, refused: it ended so
    problem    what is wrong with it in itself; "" nothing
    """

    kind: str
    revision: int
    count: int
    digest: int
    began_s: float
    seconds: float
    problem: str = ""


def write(path: Path, notes: list[T]) -> None:
    """As lines."""
    with path.open("wb") as file:
        for note in notes:
            file.write(msgspec.json.encode(note) + b"\n")


def read(path: Path, kind: type[T]) -> list[T]:
    decoder = msgspec.json.Decoder(kind)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]


async def told() -> str:
    """In a process of ours: what it is told next, "" once nobody tells it anything any more."""
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


class Worker:
    """Such a process, from outside. It says a line when it has done what it was told."""

    def __init__(self, module: str, *words: object) -> None:
        command = [sys.executable, "-m", f"tests.load.{module}", *map(str, words)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def heard(self) -> str:
        """What it says next, for which it has ANSWER_S."""
        assert self.process.stdout is not None
        if not select([self.process.stdout], [], [], ANSWER_S)[0]:
            raise RuntimeError(f"{self.process.args} says nothing")
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait(10)}")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
