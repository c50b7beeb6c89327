"""One process writes an archive on a server, one reads it, one packs it, all the time.

    python -m tests.archive_soak --storage zeo|postgresql --for 10m --out FILE

Appends one line of JSON to FILE: what was done, and what went wrong. Exit code 1 if anything did.

The writer forgets almost everything soon after it wrote it, so that there is always something to
pack, and notes the digest of every revision. The reader reads random retained revisions, old ones
and those that are about to go, and recomputes their digests; that one is gone when it looks is no
error, as the next refresh has to say so too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from btreecache import Store
from btreecache.archive import Archive, writer
from btreecache.archive.retention import Retention
from btreecache.digest import MODULUS, element_digest, recompute
from btreecache.element import Element
from btreecache.errors import BtreecacheError, Compacted
from btreecache.window import Bounds
from tests.archive_servers import PostgreSQL, Zeo

ROOT = Path(__file__).parents[1]
OBJECTS, RETAINED, WRITES_A_SECOND = 500, 60, 150

Report = dict[str, Any]


def write(uri: str, digests: Path, stopped: Callable[[], bool]) -> Report:
    """Random puts and deletes; a line "revision digest" for each revision, before it is written."""
    rng, report, running = Random(1), Report(revisions=0, troubles=0), 0
    writer.RETENTION_S = 0.5  # So that much is forgotten between two steps of a pack.
    with (
        digests.open("w") as log,
        Archive.open(uri, retention=Retention(revisions=RETAINED), group_age_s=0.2) as archive,
    ):
        store = Store(archive=archive.history(), bounds=Bounds(revisions=100))
        running = recompute(store.snapshot(), "values")
        while not stopped():
            key = b"/registry/pods/%05d" % rng.randrange(OBJECTS)
            before: Element | None = store.snapshot().get(key)
            if before is not None and rng.random() < 0.2:
                store.delete(key)
            else:
                store.put(key, rng.randbytes(rng.choice([20, 500, 2000])))
            after: Element | None = store.snapshot().get(key)
            running -= element_digest(before, "values") if before else 0
            running += element_digest(after, "values") if after else 0
            log.write(f"{store.revision} {running % MODULUS:x}\n")
            log.flush()
            report["revisions"] += 1
            report["troubles"] += archive.recorder.trouble is not None
            time.sleep(1 / WRITES_A_SECOND)
        assert archive.flush(60)
        report["lost"] = store.revision - store.durable_revision
    return report


def read(uri: str, digests: Path, stopped: Callable[[], bool]) -> Report:
    """Random retained revisions, until the end; then all of them."""
    rng, report = Random(2), Report(reads=0, wrong=[], gone=0, not_retained=[])
    known = Known(digests)
    with Archive.open(uri, read_only=True) as archive, archive.reading() as reading:

        def check(revision: int) -> None:
            try:
                found = recompute(reading.snapshot(revision), "values")
            except Compacted:
                reading.refresh()
                if revision < reading.oldest:
                    report["gone"] += 1
                else:
                    report["not_retained"].append(revision)
                return
            report["reads"] += 1
            if found != known[revision]:
                report["wrong"].append(revision)

        while not stopped():
            reading.refresh()
            for _ in range(rng.randrange(1, 20)):
                first = max(reading.oldest, known.first)
                if first < reading.newest:
                    near = rng.choice([20, RETAINED, 10 * RETAINED])
                    check(rng.randrange(first, min(reading.newest, first + near)))
        reading.refresh()
        for revision in range(max(reading.oldest, known.first), reading.newest + 1):
            check(revision)
    return report


class Known:
    """The digests that the writer noted, by revision; read on as they come."""

    def __init__(self, path: Path) -> None:
        self._log = path.open()
        self._found: dict[int, int] = {}
        self._rest = ""

    @property
    def first(self) -> int:
        return next(iter(self._found), 1) if self._found or self._more() else 1 << 62

    def __getitem__(self, revision: int) -> int:
        while revision not in self._found:
            assert self._more(), f"revision {revision} is in the archive and was never written"
        return self._found[revision]

    def _more(self) -> bool:
        lines = (self._rest + self._log.read()).split("\n")
        self._rest = lines.pop()
        self._found |= {int(r): int(digest, 16) for r, digest in map(str.split, lines)}
        return bool(lines)


def pack(uri: str, digests: Path, stopped: Callable[[], bool]) -> Report:
    report = Report(packs=0, seconds=0.0)
    while not stopped():
        started_s = time.monotonic()
        with Archive.open(uri) as archive:
            archive.pack()
        report["packs"] += 1
        report["seconds"] = round(report["seconds"] + time.monotonic() - started_s, 3)
    return report


PARTS = {"write": write, "read": read, "pack": pack}


def part(name: str, uri: str, directory: Path) -> Report:
    """In a process of its own: until there is a file that says stop."""
    stop = directory / "stop"
    try:
        return PARTS[name](uri, directory / "digests", stop.exists)
    except (BtreecacheError, AssertionError) as error:
        return Report(error=f"{type(error).__name__}: {error}")


def soak(uri: str, directory: Path, seconds: float) -> dict[str, Report]:
    """What each part reports."""
    with Archive.open(uri) as archive:
        Store(archive=archive.history()).put(b"/registry/first", b"")
        archive.flush()
    running = {}
    for name in PARTS:
        command = [sys.executable, "-m", "tests.archive_soak", name, str(directory)]
        running[name] = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, env=os.environ | {"SOAK_URI": uri}
        )
        while name == "write" and not (directory / "digests").exists():
            time.sleep(0.05)
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s and all(one.poll() is None for one in running.values()):
        time.sleep(0.2)
    (directory / "stop").touch()
    reports: dict[str, Report] = {}
    for name, process in running.items():
        try:
            said, _ = process.communicate(timeout=120)
            reports[name] = json.loads(said)
        except (subprocess.TimeoutExpired, ValueError) as error:
            reports[name] = Report(error=f"{type(error).__name__}: {error}")
            process.kill()
            process.wait()
    return reports


def is_good(reports: dict[str, Report]) -> bool:
    """Whether nothing went wrong, and something was done."""
    writing, reading = reports["write"], reports["read"]
    return (
        not any("error" in report for report in reports.values())
        and (writing["troubles"], writing["lost"]) == (0, 0)
        and (reading["wrong"], reading["not_retained"]) == ([], [])
        and min(writing["revisions"], reading["reads"], reports["pack"]["packs"]) > 0
    )


def main() -> int:
    if sys.argv[1] in PARTS:
        json.dump(part(sys.argv[1], os.environ["SOAK_URI"], Path(sys.argv[2])), sys.stdout)
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.archive_soak")
    parser.add_argument("--storage", choices=["zeo", "postgresql"], required=True)
    parser.add_argument("--for", dest="minutes", default="10m", help="minutes, as 10m")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    directory = os.environ.get("BTREECACHE_POSTGRESQL_DIR") or ROOT / ".cache" / "postgresql"
    seconds = 60 * float(options.minutes.removesuffix("m"))
    server = Zeo() if options.storage == "zeo" else PostgreSQL(Path(directory).absolute() / "bin")
    with server:
        uri = server.uri if isinstance(server, Zeo) else server.create()
        reports = soak(uri, server.directory, seconds)
    line = {"storage": options.storage, "seconds": seconds, "good": is_good(reports)} | reports
    with options.out.open("a") as out:
        print(json.dumps(line), file=out)
    return 0 if is_good(reports) else 1


if __name__ == "__main__":
    sys.exit(main())
