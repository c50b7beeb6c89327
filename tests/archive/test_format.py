"""The format: what every version must read, and what none may."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZODB import DB
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError
from ZODB.utils import p64

from btreecache import Bounds, Store
from btreecache.archive import Archive
from btreecache.archive.records import FORMAT, NAME, Root
from btreecache.archive.storage import open_database
from btreecache.archive.verify import Verification
from btreecache.codec import Kubernetes
from btreecache.digest import recompute
from btreecache.element import Element
from btreecache.errors import ArchiveError
from btreecache.fields import FIELDS
from tests.archive.golden import DATA, golden, make


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_every_version_reads_the_golden_archive(tmp_path: Path, number: int) -> None:
    path, numbers = golden(number)
    digests = json.loads(numbers.read_text())["digests"]
    copy = str(shutil.copy(path, tmp_path / "archive"))
    with (
        Archive.open(copy, read_only=True) as archive,
        archive.reading() as reading,
        archive.reading() as other,
    ):
        assert reading.prefix == b"/registry/"
        assert (reading.oldest, reading.newest) == (1, len(digests))
        for revision, digest in enumerate(digests, 1):
            assert f"{recompute(reading.snapshot(revision), 'values'):064x}" == digest
        assert reading.revision_at(1_000.0 + 10) == 11
        assert [*Verification(reading, other).problems()] == []
    for codec in (Kubernetes(), Kubernetes(FIELDS["", "pods"].fields), None):
        # Whatever codec made what was archived, everybody finds what his own makes of the source's.
        with Archive.open(copy) as archive:
            history = archive.history(b"/registry/")
            store = Store(archive=history, bounds=Bounds(age_s=None), codec=codec)
            assert [*store.snapshot()] == [*map(store.read, sources_of(copy))]
            with store.archived(store.oldest) as snapshot:
                assert [*snapshot] == [*store.snapshot(store.oldest)]
    with Archive.open(copy) as archive:
        store = Store(archive=archive.history(b"/registry/"), bounds=Bounds(age_s=None))
        assert (store.oldest, store.revision) == (1, len(digests))
        for revision, digest in enumerate(digests, 1):
            assert f"{recompute(store.snapshot(revision), 'values'):064x}" == digest
        store.put(b"/registry/new", b"")
        archive.flush()
        assert store.durable_revision == len(digests) + 1


def sources_of(path: str) -> list[Element]:
    """The elements of the newest state, as the source held them."""
    with Archive.open(path, read_only=True) as archive, archive.snapshot() as snapshot:
        return [*snapshot]


def test_an_older_archive_that_may_be_written_gets_the_new_format(tmp_path: Path) -> None:
    copy = str(shutil.copy(golden(1)[0], tmp_path / "archive"))
    for read_only, number in [(True, 1), (False, FORMAT), (True, FORMAT)]:
        with Archive.open(copy, read_only=read_only) as archive:
            assert archive.format == number


def test_the_golden_archive_can_be_made_again(tmp_path: Path) -> None:
    assert make(tmp_path / "archive") == json.loads(golden(FORMAT)[1].read_text())
    assert len([*DATA.glob("archive-format-*.fs")]) == FORMAT


def database(path: Path) -> Any:
    """Any database of ZODB in a file, without our rules."""
    return DB(FileStorage(str(path)))


def archive_in(path: Path) -> None:
    with Archive.open(str(path)) as archive:
        Store(archive=archive.history()).put(b"a", b"1")
        archive.flush()


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("found", [FORMAT + 1, "1", None])
def test_another_format_is_refused(tmp_path: Path, found: object, read_only: bool) -> None:
    archive_in(tmp_path / "archive")
    there = database(tmp_path / "archive")
    with there.transaction() as connection:
        record = connection.root()[NAME]
        record.state = (found, record.state[1])
    there.close()
    with pytest.raises(ArchiveError, match=rf"has format {found}; this version reads formats up"):
        Archive.open(str(tmp_path / "archive"), read_only=read_only)


@pytest.mark.parametrize("read_only", [True, False])
def test_another_database_is_refused_and_left_as_it_is(tmp_path: Path, read_only: bool) -> None:
    there = database(tmp_path / "other")
    with there.transaction() as connection:
        connection.root()["mine"] = PersistentMapping({"a": 1})
    there.close()
    before = (tmp_path / "other").read_bytes()
    with pytest.raises(ArchiveError, match="no archive: another database"):
        Archive.open(str(tmp_path / "other"), read_only=read_only)
    assert (tmp_path / "other").read_bytes() == before


KLASS = b"cbtreecache.archive.records\nHistory\n."


def hostile(trap: Path) -> list[bytes]:
    """Records that run something if anybody unpickles them without asking what they are."""
    command = f"touch {trap}".encode()
    call = b"cposix\nsystem\n(X" + len(command).to_bytes(4, "little") + command + b"tR."
    return [
        KLASS + call,  # the state runs it
        call + b"N.",  # the class does
        b"\x80\x03cposix\nsystem\n.N.",  # the class is a function
        b"cbuiltins\neval\n." + call,
    ]


def write(storage: Any, oid: bytes, record: bytes) -> None:
    """A record as it is, past everything that could look at it."""
    made = TransactionMetaData()
    storage.tpc_begin(made)
    storage.store(oid, storage.load(oid)[1], record, "", made)
    storage.tpc_vote(made)
    storage.tpc_finish(made)


@pytest.mark.parametrize("place", ["root", "archive", "history", "groups"])
@pytest.mark.parametrize("which", range(4))
def test_nothing_in_a_file_is_run(tmp_path: Path, which: int, place: str) -> None:
    path, trap = tmp_path / "archive", tmp_path / "trapped"
    archive_in(path)
    there = database(path)
    with there.transaction() as connection:
        record = connection.root()[NAME]
        history = record.state[1][b""]
        oids = {"root": p64(0), "archive": record._p_oid, "history": history._p_oid,
                "groups": history.state[0]._p_oid}  # fmt: skip
    there.close()
    storage = FileStorage(str(path))
    write(storage, oids[place], hostile(trap)[which])
    storage.close()
    for read_only in (True, False):
        with (
            pytest.raises(ArchiveError),
            Archive.open(str(path), read_only=read_only) as archive,
            archive.snapshot() as snapshot,
        ):
            assert [*snapshot]
        with pytest.raises(ArchiveError), Archive.open(str(path)) as archive:
            Store(archive=archive.history())
    assert not trap.exists()


def test_nothing_is_run_to_resolve_a_conflict(tmp_path: Path) -> None:
    path, trap = tmp_path / "archive", tmp_path / "trapped"
    archive_in(path)
    there = open_database(str(path), read_only=False)
    manager = transaction.TransactionManager()
    connection = there.open(manager)
    groups = connection.root()[NAME].state[1][b""].state[0]
    groups[99] = Root((1,))
    state = hostile(trap)[0].removeprefix(KLASS)
    record = b"cbtreecache.archive.records\nGroups\n." + state
    write(there.storage, groups._p_oid, record)
    with pytest.raises(ConflictError):
        manager.commit()
    manager.abort()
    assert not trap.exists()
    there.close()
