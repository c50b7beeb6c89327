"""A process that archives at full speed, killed at a random instant, again and again.

    python -m tests.archive_kill --storage file --seeds 0:500 --out kills.jsonl

Before each write the child tells the digest that its revision will have, and after it how far it
was told that all is durable. Then it gets SIGKILL, or the ZEO server does. Whatever is found in the
archive must be a prefix of what was told, digest by digest, with all in it that was durable; the
next child goes on from there. A line for each seed when it is done; seeds that the file has already
are passed over.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import NoReturn

from btreecache import Delete, Put, Store
from btreecache.archive import Archive
from btreecache.archive.verify import Verification
from btreecache.window import Bounds
from tests.archive_servers import Zeo

MODULUS = 1 << 256
TIMEOUT_S = 60.0
KILLS = 3
AHEAD = 3_000

#: By revision; what a child has told before it wrote.
Digests = dict[int, int]


class Lost(AssertionError):
    """Something is not as it was told, or is not said."""


@lru_cache(20_000)
def summand(key: bytes, revision: int, value: bytes) -> int:
    """What an element adds to a digest, as docs/guarantees.md says."""
    head = len(key).to_bytes(8, "big") + key + revision.to_bytes(8, "big")
    return int.from_bytes(blake2b(head + value, digest_size=32).digest(), "big")


def write_for_ever(uri: str, rng: Random, tell: Callable[[str], object]) -> None:
    """The child. Ends by a kill alone."""
    archive = Archive.open(
        uri, group_age_s=rng.choice([0.0, 0.005, 0.05]), group_revisions=rng.choice([1, 20, 300])
    ).start()
    store = Store(archive=archive.history(), bounds=Bounds(age_s=None, revisions=200))
    summands = {e.key: summand(e.key, e.mod_revision, e.value) for e in store.snapshot()}
    total = sum(summands.values()) % MODULUS
    tell(f"begun {store.revision} {total:x}")
    durable = 0
    while True:
        revision = store.revision + 1
        writes: list[Put | Delete] = []
        for key in {b"/k/%03d" % rng.randrange(300) for _ in range(rng.choice([1, 1, 3]))}:
            if key in summands and rng.random() < 0.3:
                writes.append(Delete(key))
                total -= summands.pop(key)
            else:
                value = rng.randbytes(rng.choice([0, 10, 200, 5_000]))
                writes.append(Put(key, value))
                total -= summands.get(key, 0)
                summands[key] = summand(key, revision, value)
                total += summands[key]
        total %= MODULUS
        tell(f"{revision} {total:x}")
        store.txn(writes)
        if revision > durable + AHEAD:
            time.sleep(0.005)  # A server is away: what else waits would prove no more.
        if store.durable_revision != durable:
            durable = store.durable_revision
            tell(f"durable {durable}")


class Child:
    """A process that writes, and what it has told so far."""

    def __init__(self, uri: str, seed: str) -> None:
        self._out, out = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            self._run(uri, seed, out)
        os.close(out)
        self._text = ""
        self.begun: tuple[int, int] | None = None
        self.digests: Digests = {}
        self.durable = 0

    def _run(self, uri: str, seed: str, out: int) -> NoReturn:
        try:
            write_for_ever(uri, Random(seed), lambda line: os.write(out, f"{line}\n".encode()))
        except BaseException:
            os.write(out, f"failed\n{traceback.format_exc()}".encode())
        os._exit(1)

    def hear(self, until: Callable[[], object]) -> None:
        """Listen until something was heard; or to the end, if it never is. Raises Lost."""
        deadline = time.monotonic() + TIMEOUT_S
        while not until():
            if time.monotonic() > deadline:
                raise Lost("the child makes no progress")
            if not select.select([self._out], [], [], 0.2)[0]:
                continue
            heard = os.read(self._out, 1 << 16)
            if not heard:
                return
            *lines, self._text = (self._text + heard.decode()).split("\n")
            for line in lines:
                self._line(*line.split())
            if "failed" in lines:
                while heard := os.read(self._out, 1 << 16):
                    self._text += heard.decode()
                raise Lost("\n".join([*lines, self._text]))

    def _line(self, *words: str) -> None:
        if words[:1] == ("begun",):
            self.begun = int(words[1]), int(words[2], 16)
        elif words[:1] == ("durable",):
            self.durable = max(self.durable, int(words[1]))
        elif len(words) == 2 and words[0].isdigit():
            self.digests[int(words[0])] = int(words[1], 16)

    def kill(self) -> None:
        """At once, and hear what it had told before."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        try:
            self.hear(lambda: False)
        finally:
            os.close(self._out)


class Warnings(logging.Handler):
    """What is said while an archive is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def check(path: str, told: Digests, durable: int, looked: range, counts: Counter[str]) -> int:
    """That a file holds a prefix of what was told, with what was durable; its newest revision.
    `looked`: of these revisions only a few are looked at again."""
    with Archive.open(path, read_only=True) as archive:
        if archive.prefixes() != [b""]:
            if durable:
                raise Lost("there is no history")
            return 0
        with archive.reading() as reading, archive.reading() as other:
            newest = reading.newest
            if newest < durable:
                raise Lost(f"{durable} was durable, {newest} is there")
            for revision in range(reading.oldest, newest + 1):
                if revision in looked and revision % 16:
                    continue
                found = sum(
                    summand(e.key, e.mod_revision, e.value) for e in reading.snapshot(revision)
                )
                if found % MODULUS != told[revision]:
                    raise Lost(f"the digest at {revision}")
                counts["revisions"] += 1
            for problem in Verification(reading, other).problems():
                raise Lost(str(problem))
    before, heard = os.path.getsize(path), Warnings()
    logging.getLogger("ZODB").addHandler(heard)
    try:
        Archive.open(path).close()
    finally:
        logging.getLogger("ZODB").removeHandler(heard)
    if os.path.getsize(path) < before:
        counts["torn"] += 1
        if not any("truncated" in line for line in heard.lines):
            raise Lost("bytes were dropped, and nobody said so")
    return newest


def run_seed(storage: str, seed: int) -> Counter[str]:
    """Three children one after the other on one archive. Raises Lost."""
    counts: Counter[str] = Counter()
    rng = Random(f"{storage} {seed}")
    told, durable = {1: 0}, 0
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="btreecache-kill-", dir=memory) as directory:
        server = Zeo() if storage == "zeo" else None
        path = str(server.path) if server else f"{directory}/archive"
        try:
            found = 0
            for life in range(KILLS):
                if server:
                    server.start()
                child = Child(server.uri if server else path, f"{seed}/{life}")
                try:
                    child.hear(lambda: child.begun)
                    newest = max(told)
                    if child.begun and child.begun[1] != told[child.begun[0]]:
                        raise Lost(f"begun at {child.begun[0]} of {newest} with another digest")
                    _live(child, server, rng, counts)
                finally:
                    child.kill()
                    if server:
                        server.kill()
                told = {at: digest for at, digest in told.items() if at <= child.begun[0]}
                told |= child.digests
                durable = max(durable, child.durable)
                counts["kills"] += 1
                found = check(path, told, durable, range(found - 50), counts)
                counts["dropped"] += max(told) - max(found, 1)
                told = {at: digest for at, digest in told.items() if at <= max(found, 1)}
        finally:
            if server:
                server.__exit__()
    counts["durable"] = durable
    return counts


def _live(child: Child, server: Zeo | None, rng: Random, counts: Counter[str]) -> None:
    """Let it write for a random while; in some lives the server is killed first, and comes back."""
    if server and rng.random() < 0.3:
        _for(child, rng.uniform(0.0, 0.3))
        server.restart()
        counts["server kills"] += 1
        reached = max(child.digests, default=0)
        child.hear(lambda: child.durable > reached)
    _for(child, rng.uniform(0.0, 0.4))


def _for(child: Child, seconds: float) -> None:
    until = time.monotonic() + seconds
    child.hear(lambda: time.monotonic() >= until)


def main(argv: list[str] | None = None) -> int:
    """The seeds of the arguments, one after the other -> 1 if anything was lost."""
    for name in ("asyncio", "ZEO", "ZODB", "txn", "btreecache"):  # A server's end is no news.
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    parser = argparse.ArgumentParser(prog="python -m tests.archive_kill")
    parser.add_argument("--storage", choices=["file", "zeo"], default="file")
    parser.add_argument("--seeds", default="0:20", metavar="FROM:TO")
    parser.add_argument("--out", type=Path, default=Path(".cache/archive_kill.jsonl"))
    arguments = parser.parse_args(argv)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    done = {(line["storage"], line["seed"]) for line in map(json.loads, lines)}
    failed = 0
    total: Counter[str] = Counter()
    first, last = map(int, arguments.seeds.split(":"))
    for seed in range(first, last):
        if (arguments.storage, seed) in done:
            continue
        try:
            counts = run_seed(arguments.storage, seed)
        except Lost as lost:
            sys.stderr.write(f"{arguments.storage} seed {seed}: {lost}\n")
            failed = 1
            continue
        total.update(counts)
        with arguments.out.open("a") as out:
            line = {"storage": arguments.storage, "seed": seed, **counts}
            out.write(json.dumps(line) + "\n")
    sys.stdout.write(f"{arguments.storage} {arguments.seeds}: {dict(total)}, failed {failed}\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
