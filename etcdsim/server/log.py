"""Log: records in a ZODB FileStorage, each there to stay once `append` has returned.

The file begins with one transaction of several records, what `replace` wrote; each further one is
a transaction of one record. A record is an object of its own that never changes, its data a
checksum and bytes that mean nothing here: nothing is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from struct import unpack
from typing import Any, BinaryIO
from zlib import crc32

from zc.lockfile import LockError, SimpleLockFile
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage.FileStorage import FileStorage
from ZODB.FileStorage.format import TRANS_HDR, TRANS_HDR_LEN
from ZODB.utils import p64, u64, z64

from etcdsim.errors import DamagedLogError, DataDirError

_NAME, _NEXT_NAME, _LOCK_NAME = "log.fs", "next.fs", "lock"
_MAGIC = b"FS30"
_SUM_BYTES = 4
_IN_PROGRESS, _COMMITTED = b"c", b" "  # the status of a transaction


class Log:
    """The log of a directory, which nobody else may open meanwhile.

    The directory is made where there is none, and what is made is for its owner only. What a crash
    left of the last transaction is dropped. One thread at a time. Raises DataDirError,
    DamagedLogError, OSError.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self.path = directory, directory / _NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(directory / _LOCK_NAME)
            self._lock = SimpleLockFile(str(directory / _LOCK_NAME))
        except LockError:
            raise DataDirError(f"{directory}: another process uses it") from None
        except OSError as error:
            raise DataDirError(f"{directory}: {error.strerror}") from None
        self._storage: Any = None
        self._next_oid = 0
        self.size = 0  #: bytes that are there to stay; 0: nothing was ever written
        self.base = 0  #: of them those that `replace` wrote
        try:
            self._remove(_NEXT_NAME)
            if self.path.exists():
                self.base, self.size = _sound_bytes(self.path)
                self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others have the directory. Idempotent."""
        self._drop()
        self._lock.close()

    def records(self) -> Generator[bytes, None, None]:
        """Every record, from the first one on; to be closed. Raises DamagedLogError."""
        if self._storage is None:
            return
        with closing(self._storage.iterator()) as transactions:
            for record in chain.from_iterable(transactions):
                data = record.data
                if crc32(data[_SUM_BYTES:]) != int.from_bytes(data[:_SUM_BYTES], "big"):
                    raise DamagedLogError(f"record {u64(record.oid)} is damaged")
                yield data[_SUM_BYTES:]

    def append(self, data: bytes) -> None:
        """One more record; it is on disk when this returns. After an error it isn't in the log, and
        the next one may be tried. Raises OSError, POSError."""
        try:
            if self._storage is None:
                self._open()
            self._commit(self._storage, [data])
        except BaseException:
            self._drop()
            with suppress(OSError):
                os.truncate(self.path, self.size)
            raise
        self.size = self._storage.getSize()

    def replace(self, records: Iterable[bytes]) -> None:
        """Let the log be these records only: the old ones or these are there, whenever it ends.

        Raises OSError, POSError; then the log is what it was.
        """
        self._remove(_NEXT_NAME)
        path = self._directory / _NEXT_NAME
        storage = _Storage(path)
        oid, self._next_oid = self._next_oid, 0
        try:
            self._commit(storage, records)
            size = storage.getSize()
            _close(storage)
        except BaseException:
            self._next_oid = oid
            _close(storage)
            self._remove(_NEXT_NAME)
            raise
        self._drop()
        os.replace(path, self.path)
        self.base = self.size = size
        self._sync_directory()
        self._remove(_NEXT_NAME)
        self._open()

    def _commit(self, storage: Any, records: Iterable[bytes]) -> None:
        transaction = TransactionMetaData()
        storage.tpc_begin(transaction)
        for data in records:
            stored = crc32(data).to_bytes(_SUM_BYTES, "big") + data
            storage.store(p64(self._next_oid), z64, stored, "", transaction)
            self._next_oid += 1
        storage.tpc_vote(transaction)
        storage.tpc_finish(transaction)

    def _open(self) -> None:
        # What an attempt that failed has left goes first.
        os.truncate(self.path, self.size)
        try:
            self._storage = _Storage(self.path)
        except OSError:
            raise
        except Exception as error:  # what ZODB trips over is not always what it looked for
            raise DamagedLogError(f"{self.path}: damaged: {error}") from None
        self._next_oid = u64(self._storage.new_oid())

    def _drop(self) -> None:
        if self._storage is not None:
            _close(self._storage)
            self._storage = None

    def _remove(self, name: str) -> None:
        for path in self._directory.glob(f"{name}*"):
            path.unlink()

    def _sync_directory(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


class _Storage(FileStorage):  # type: ignore[misc]  # ZODB has no types
    """Without an index on disk: that is a pickle, and what it lets skip nobody would check."""

    def __init__(self, path: Path) -> None:
        for suffix in ("", ".tmp", ".lock"):
            _make(path.with_name(path.name + suffix))
        path.with_name(f"{path.name}.index").unlink(missing_ok=True)
        try:
            super().__init__(str(path))
        except BaseException:
            with suppress(Exception):
                self.close()
            raise

    def _save_index(self) -> None:
        pass


def _close(storage: Any) -> None:
    # On a full disk each of its files may fail to be flushed, and is closed nevertheless.
    for _ in range(3):
        with suppress(OSError):
            storage.close()
            return


def _sound_bytes(path: Path) -> tuple[int, int]:
    """Where the first and the last whole transaction end. Raises DamagedLogError if more follow.

    FileStorage would cut the file at the first header that makes no sense, whatever follows.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if file.read(len(_MAGIC)) != _MAGIC:
            raise DamagedLogError(f"{path}: not a log of etcdsim")
        at = first = len(_MAGIC)
        while (length := _length(file, at, size)) is not None:
            at += length
            if first == len(_MAGIC):
                first = at
        if at < size and _ends_with_transaction(file, at, size):
            raise DamagedLogError(f"{path}: damaged at byte {at}")
    return first, at


def _length(file: BinaryIO, at: int, size: int) -> int | None:
    """The bytes of the transaction at `at`, None if there is no whole one."""
    if size - at < TRANS_HDR_LEN + len(z64):
        return None
    file.seek(at)
    _, length, status, *_ = unpack(TRANS_HDR, file.read(TRANS_HDR_LEN))
    if status != _COMMITTED or not TRANS_HDR_LEN <= length <= size - at - len(z64):
        return None
    file.seek(at + length)
    return length + len(z64) if u64(file.read(len(z64))) == length else None


def _ends_with_transaction(file: BinaryIO, at: int, size: int) -> bool:
    """Whether a whole transaction behind `at` ends the file: then what is at `at` isn't torn."""
    file.seek(max(at, size - len(z64)))
    start = size - len(z64) - u64(file.read(len(z64)).rjust(len(z64), b"\0"))
    return start > at and _length(file, start, size) is not None
