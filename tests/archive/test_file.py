"""The file of an archive: beside its writer, as a crash leaves it, and packed."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from ZODB.FileStorage.fspack import FileStoragePacker

from btreecache import Store
from btreecache.archive import Archive, storage
from btreecache.archive.retention import Retention
from btreecache.digest import recompute
from btreecache.errors import ArchiveError, BadRequest

KEYS = [b"/k/%02d" % index for index in range(40)]

Digests = dict[int, int]


def put(store: Store, value: bytes) -> Digests:
    """One value everywhere, a revision each."""
    states = {store.revision: recompute(store.snapshot(), "values")}
    for key in KEYS:
        store.put(key, value)
        states[store.revision] = recompute(store.snapshot(), "values")
    return states


def archived(path: Path) -> Digests:
    """Of every retained revision, read as anybody may."""
    before = {name: name.stat() for name in path.parent.iterdir()}
    with Archive.open(str(path), read_only=True) as archive, archive.reading() as reading:
        found = {
            revision: recompute(reading.snapshot(revision), "values")
            for revision in range(reading.oldest, reading.newest + 1)
        }
    after = {name: name.stat() for name in path.parent.iterdir()}
    assert {name: (s.st_size, s.st_mtime_ns) for name, s in before.items()} == {
        name: (s.st_size, s.st_mtime_ns) for name, s in after.items()
    }, "reading has changed files"
    return found


class Crash(NamedTuple):
    """A file as it was after the first half and after all, with its index of then."""

    path: Path
    middle: int
    index: Path
    states: Digests
    first: int


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Crash:
    path = tmp_path_factory.mktemp("crash") / "archive"
    with Archive.open(str(path), group_revisions=5) as archive:
        store = Store(archive=archive.history())
        states = put(store, b"1" * 100)
        assert archive.flush()
        first = store.revision
    index = path.with_name("old.index")
    shutil.copy(f"{path}.index", index)
    middle = path.stat().st_size
    with Archive.open(str(path), group_revisions=5) as archive:
        store = Store(archive=archive.history())
        states |= put(store, b"2" * 100)
        assert archive.flush()
        # As it is while the writer runs: no index was saved since.
        image = path.with_name("image")
        shutil.copy(path, image)
    return Crash(image, middle, index, states, first)


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 0.77, 0.999, 1.0])
@pytest.mark.parametrize("index", ["none", "stale", "of a longer file", "torn"])
def test_what_a_crash_leaves_can_be_read(
    tmp_path: Path, crash: Crash, fraction: float, index: str
) -> None:
    path = tmp_path / "archive"
    whole = crash.path.read_bytes()
    size = crash.middle + int((len(whole) - crash.middle) * fraction)
    path.write_bytes(whole[:size])
    saved = crash.index.read_bytes()
    if index == "stale":
        Path(f"{path}.index").write_bytes(saved)
    elif index == "torn":
        Path(f"{path}.index").write_bytes(saved[: len(saved) // 2])
    elif index == "of a longer file":
        Path(f"{path}.index").write_bytes(crash.path.with_name("archive.index").read_bytes())
    found = archived(path)
    assert found.items() <= crash.states.items()
    assert max(found) >= crash.first
    if fraction == 1.0:
        assert found == crash.states
    # And goes on.
    with Archive.open(str(path), group_revisions=5) as archive:
        store = Store(archive=archive.history())
        assert store.revision == max(found)
        found |= put(store, b"3")
        assert archive.flush()
        assert archived(path) == found


def test_a_reader_beside_a_writer_that_packs(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    with Archive.open(str(path), group_revisions=5, retention=Retention(revisions=50)) as archive:
        store = Store(archive=archive.history())
        states = put(store, b"1" * 1000)
        assert archive.flush()
        with Archive.open(str(path), read_only=True) as other, other.reading() as reading:
            states |= put(store, b"2")
            states |= put(store, b"3")
            assert archive.flush()
            archive.pack()
            for revision in range(reading.oldest, reading.newest + 1):
                assert recompute(reading.snapshot(revision), "values") == states[revision]
        with pytest.raises(ArchiveError, match=r"another process has the archive \S+ open"):
            Archive.open(str(path))
        assert archived(path).items() <= states.items()


def test_what_a_reader_saw_before_a_pack_is_looked_up_anew(tmp_path: Path) -> None:
    # The buckets of the groups, which change with each commit, are loaded when they are needed.
    with Archive.open(str(tmp_path / "archive"), group_revisions=1) as archive:
        store = Store(archive=archive.history())
        states = {}
        for value in (b"1", b"2", b"3"):
            states |= put(store, value)
            assert archive.flush()
        with archive.reading() as reading:
            newest = reading.newest
            put(store, b"4")
            assert archive.flush()
            archive.pack()
            for revision in range(reading.oldest, newest + 1):
                assert recompute(reading.snapshot(revision), "values") == states[revision]


@pytest.fixture
def packable(tmp_path: Path) -> Path:
    """An archive with something to pack."""
    path = tmp_path / "archive"
    with Archive.open(str(path), group_revisions=5, retention=Retention(revisions=50)) as archive:
        store = Store(archive=archive.history())
        for value in (b"1", b"2", b"3"):
            put(store, value * 1000)
            assert archive.flush()
    return path


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("damaged")]
)
def test_a_pack_that_fails_leaves_nothing(
    packable: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before, size = archived(packable), packable.stat().st_size

    def fails(*_: object) -> None:
        raise error

    with Archive.open(str(packable)) as archive:
        with monkeypatch.context() as patched:
            patched.setattr(FileStoragePacker, "copyToPacktime", fails)
            with pytest.raises(ArchiveError, match=f"can't be packed: .*{error.args[-1]}"):
                archive.pack()
        assert packable.stat().st_size == size
        assert not packable.with_name("archive.pack").exists()
        assert archived(packable) == before
        store = Store(archive=archive.history())
        before |= put(store, b"4")
        assert archive.flush()  # The storage isn't locked by what failed.
        archive.pack()
        assert packable.stat().st_size < size
    assert archived(packable).items() <= before.items()


def test_a_disk_without_room_is_told_before(
    packable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = os.statvfs(packable)

    def nearly_full(_: object) -> Any:
        return os.statvfs_result(
            [*disk[:4], packable.stat().st_size // disk.f_frsize - 1, *disk[5:]]
        )

    monkeypatch.setattr(os, "statvfs", nearly_full)
    with Archive.open(str(packable)) as archive:
        with pytest.raises(ArchiveError, match=r"may need \d+ bytes, and only \d+ are free"):
            archive.pack()
        assert not packable.with_name("archive.pack").exists()


def test_a_pack_killed_between_its_two_renames(packable: Path) -> None:
    before = archived(packable)
    packable.rename(f"{packable}.old")
    packable.with_name("archive.pack").write_bytes(b"not needed")
    assert archived(packable) == before
    with Archive.open(str(packable)) as archive:
        assert not packable.with_name("archive.pack").exists()
        put(Store(archive=archive.history()), b"4")
        assert archive.flush()
    assert archived(packable).keys() > before.keys()


@pytest.mark.parametrize("secret", ["s3cret", "a/b@c:d", "p%20q", "100%"])
def test_no_password_is_shown(secret: str) -> None:
    for uri, shown in [
        (f"postgresql://me:{secret}@db:1/x", "postgresql://me:***@db:1/x"),
        (f"postgresql://db/x?password={secret}&user=me", "postgresql://db/x?password=***&user=me"),
    ]:
        assert storage.shown(uri) == shown
        said = str(storage.trouble("it fails", ValueError(f"{uri}\n\t{unquote(secret)}"), uri))
        assert "\n" not in said
        assert secret not in said
        assert unquote(secret) not in said
    for uri in ("zeo://db:1/x", "/tmp/a:b@c"):
        assert storage.shown(uri) == uri


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("zeo://db", "expected zeo://HOST:PORT"),
        ("zeo://db:port/1", "expected zeo://HOST:PORT"),
        ("postgresql://me:s3cret@db:port:1/x?y", "expected postgresql://"),
        ("redis://db", "an archive is a path, zeo:// or postgresql://, not redis://"),
        ("file:", "the path of the archive is empty"),
    ],
)
def test_what_is_no_uri_of_an_archive(uri: str, said: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(said)) as caught:
        Archive.open(uri)
    assert "s3cret" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ZODB's open files
@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_of_something_else_is_named_and_left_alone(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("garbage\n")
    with pytest.raises(ArchiveError, match=r"notes\.txt is no archive: not a file of ZODB"):
        Archive.open(str(path), read_only=read_only)
    assert path.read_text() == "garbage\n"
