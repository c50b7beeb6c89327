"""A disk that is full, at every write in turn: what is durable stays, and it goes on afterwards."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest

from btreecache import Store
from btreecache.archive import Archive, Retention
from btreecache.archive.verify import Verification
from btreecache.backoff import Backoff
from btreecache.cli import main
from btreecache.digest import recompute
from btreecache.errors import ArchiveError, Compacted
from tests.fakes import Clock

KEYS = [b"/k/%d" % index for index in range(8)]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Meanwhile no file of this process may grow beyond a size: a write is cut short, the next one
    fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Disk:
    """Counts what writes to a storage's files, and fails where it is told to."""

    def __init__(self, storage: Any, patch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.fails: Callable[[int], bool] = lambda number: False
        storage._file = _File(storage._file, self)
        storage._tfile = storage._tfmt._file = _File(storage._tfile, self)
        module = sys.modules["ZODB.FileStorage.FileStorage"]
        fsync = module.fsync  # type: ignore[attr-defined]
        patch.setattr(module, "fsync", lambda number: (self("fsync"), fsync(number)))

    def __call__(self, name: str) -> None:
        self.names.append(name)
        if self.fails(len(self.names)):
            raise OSError(errno.ENOSPC, "No space left on device")


class _File:
    def __init__(self, file: Any, disk: Disk) -> None:
        self._of, self._disk = file, disk

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if name not in ("write", "flush", "truncate"):
            return found

        def checked(*arguments: object) -> Any:
            self._disk(name)
            return found(*arguments)

        return checked


class Written:
    """An archive that is written step by step, and the digest that each revision must have."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.archive = Archive.open(str(path), **options)
        self.recorder = self.archive.recorder
        self.recorder._backoff = Backoff(Clock(), Random(0), 0.0, 0.0)
        self.store = Store(archive=self.archive.history())
        self.states = {self.store.revision: recompute(self.store.snapshot(), "values")}
        self.put(b"")
        assert self.recorder._commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    def put(self, value: bytes) -> None:
        for key in KEYS:
            self.store.put(key, value)
            self.states[self.store.revision] = recompute(self.store.snapshot(), "values")

    def check(self, last: int = 2 * len(KEYS)) -> None:
        """What anybody finds who opens the file as it is now, as after a kill: the last so many
        revisions; 0: all, and every record."""
        image = self.path.with_name("image")
        shutil.copy(self.path, image)
        with Archive.open(str(image), read_only=True) as archive, archive.reading() as reading:
            assert reading.newest >= self.store.durable_revision
            first = max(reading.oldest, reading.newest - last) if last else reading.oldest
            for at in range(first, reading.newest + 1):
                assert recompute(reading.snapshot(at), "values") == self.states[at], f"at {at}"
            if not last:
                with archive.reading() as other:
                    assert not [*Verification(reading, other).problems()]

    def commit_failed(self) -> None:
        """The cache serves, and what is durable can be read."""
        assert "can't be written: [Errno" in str(self.recorder.trouble)
        assert recompute(self.store.snapshot(), "values") == self.states[self.store.revision]
        durable = self.store.durable_revision
        with self.archive.snapshot(durable) as snapshot:
            assert recompute(snapshot, "values") == self.states[durable]

    def goes_on(self) -> None:
        """There is room again: nothing is missing."""
        while not self.archive.history().pending.idle:
            assert self.recorder._commit(), self.recorder.trouble
        assert self.recorder.trouble is None
        assert self.store.durable_revision == self.store.revision
        self.check()
        with self.archive.reading() as reading:
            assert reading.state.gaps == ()


@pytest.mark.parametrize("lasting", [True, False])
def test_every_write_of_a_commit_fails_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    with Written(tmp_path / "archive") as written:
        disk = Disk(written.archive._database.storage, monkeypatch)
        for number in count(1):
            disk.names.clear()
            disk.fails = lambda at, first=number: at == first or (lasting and at > first)  # type: ignore[misc]
            written.put(b"%d" % number)
            if written.recorder._commit():
                break
            written.commit_failed()
            disk.fails = lambda at: False
            written.check()
            written.goes_on()
        assert disk.names[-2:] == ["flush", "fsync"]
        assert len(disk.names) == number - 1
    written.check(last=0)


def test_a_disk_with_room_for_a_part_of_a_commit(tmp_path: Path) -> None:
    cut_short = 0
    with Written(tmp_path / "archive") as written:
        for more in range(-500, 3_000, 291):
            size = written.path.stat().st_size
            written.put(b"%d" % more * 20)
            with room_for(max(0, size + more)):
                if not written.recorder._commit():
                    cut_short += 1
                    written.commit_failed()
            written.check()
            written.goes_on()
            assert written.path.with_name("archive.tmp").stat().st_size == 0
    assert 5 < cut_short < 12
    written.check(last=0)


def test_what_finds_no_room_for_too_long_is_a_gap(tmp_path: Path) -> None:
    with Written(tmp_path / "archive", queue_revisions=10) as written:
        durable = written.store.durable_revision
        with room_for(written.path.stat().st_size):
            for value in (b"1", b"2"):
                written.put(value)
                assert not written.recorder._commit()
                written.commit_failed()
        written.check()
        while not written.archive.history().pending.idle:
            assert written.recorder._commit()
        assert written.store.durable_revision == written.store.revision
        with written.archive.reading() as reading:
            ((after, revision, reason, _),) = reading.state.gaps
            assert (after, revision, reason) == (durable + 10, written.store.revision, "overflow")
            with pytest.raises(Compacted, match="was not archived: overflow"):
                reading.snapshot(after + 1)


def test_a_pack_has_room_for_a_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with Written(path) as written:
        for number in range(6):
            written.put(b"%d" % number * 100)
            assert written.recorder._commit()
        written.archive.trim(Retention(revisions=20))
        names, size = {*os.listdir(tmp_path)}, path.stat().st_size
        for room in range(0, size // 3, 307):
            with room_for(room), pytest.raises(ArchiveError, match=r"can't be packed: \[Errno"):
                written.archive.pack()
            assert {*os.listdir(tmp_path)} == names
            assert path.stat().st_size == size
        written.archive.pack()
        assert path.stat().st_size < size
        written.put(b"after")
        written.goes_on()
    written.check(last=0)


def test_an_export_has_room_for_a_part_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Written(tmp_path / "archive") as written:
        pass
    lines = tmp_path / "lines"
    argv = ["archive", "export", "--archive", str(written.path), "--file", str(lines)]
    for room in (0, 1_000):
        with room_for(room):
            assert main(argv) != 0
        assert "too large" in capsys.readouterr().err
        assert not [name for name in os.listdir(tmp_path) if name.startswith("lines")]
    assert main(argv) == 0
    assert lines.stat().st_size > 1_000


def test_an_import_has_room_for_a_part_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Written(tmp_path / "archive") as written:
        pass
    assert main(["archive", "export", "--archive", str(written.path)]) == 0
    exported = capsys.readouterr().out.encode()
    with Archive.open(str(tmp_path / "other")) as archive:
        size = (tmp_path / "other").stat().st_size
        for more in range(0, 1_200, 111):
            with room_for(size + more), pytest.raises(ArchiveError, match="can't be written"):
                archive.import_file(io.BytesIO(exported))
            assert archive.prefixes() == []
        assert archive.import_file(io.BytesIO(exported)) == (b"", len(written.states))
        with archive.reading() as reading, archive.reading() as other:
            for revision, digest in written.states.items():
                assert recompute(reading.snapshot(revision), "values") == digest
            assert not [*Verification(reading, other).problems()]
