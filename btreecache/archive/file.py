"""PATH: an archive in a FileStorage, which one process writes and any number read."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from glob import escape, glob
from typing import Any

from zc.lockfile import LockError, LockFile
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileIterator, FileStorageFormatError

from btreecache.errors import ArchiveError, BadRequest

log = logging.getLogger(__name__)

#: How a transaction begins in the file: its number, its length without the copy of that which
#: stands behind it, and its status: c until it is complete.
#: Where the first one begins.
_BEGIN = 4
_HEAD, _LENGTH = struct.Struct(">8sQc"), struct.Struct(">Q")


class ArchiveFile(FileStorage):  # type: ignore[misc]  # ZODB has no types
    """A FileStorage that a full disk doesn't end."""

    _file: Any
    _tfile: Any
    _files: Any

    def _finish(self, tid: bytes, *_: object) -> None:
        """The last write of a commit. Where it fails ZODB would close the storage for good.

        What the disk has of the transaction nobody knows then, so it is taken out, and the next one
        is written, and synced, in its place.
        """
        try:
            self._file.seek(self._pos + 16)
            self._file.write(self._tstatus.encode())
            self._finish_finish(tid)
        except OSError:
            self._files.empty()  # Readers may have buffered it; none is reading now.
            os.ftruncate(self._file.fileno(), self._pos)
            raise

    def _clear_temp(self) -> None:
        """Where a transaction waits for its vote, there is no room taken by those before it."""
        if self._tfile is not None:
            os.ftruncate(self._tfile.fileno(), 0)
        super()._clear_temp()


def opened(path: str, read_only: bool) -> Any:
    """The storage. Raises BadRequest, ArchiveError."""
    if not path:
        raise BadRequest("the path of the archive is empty")
    # The last steps of a pack: the file becomes .old, .pack becomes the file. Killed in between?
    old = f"{path}.old"
    cut_short = not os.path.exists(path) and os.path.exists(old)
    try:
        if read_only:
            path = old if cut_short else path
            if not os.path.exists(path):
                raise ArchiveError(f"there is no archive {path}")
            return FileStorage(path, read_only=True)
        with private_files():
            if cut_short:
                lock = LockFile(f"{path}.lock")
                if not os.path.exists(path):
                    os.rename(old, path)
                lock.close()
            with _saying_what_is_dropped(path):
                storage = ArchiveFile(path, pack_keep_old=False, packer=_packed)
    except LockError:
        raise ArchiveError(f"another process has the archive {path} open for writing") from None
    except OSError as error:
        raise ArchiveError(f"the archive {path} can't be opened: {error.strerror}") from None
    except FileStorageFormatError:
        raise ArchiveError(f"{path} is no archive: not a file of ZODB") from None
    with suppress(FileNotFoundError):
        os.remove(f"{path}.pack")  # Of a pack that was killed.
    return storage


def damage(storage: Any) -> str | None:
    """What is wrong with the file of a storage, None: nothing that its frame shows.

    What a crash leaves isn't damage: the beginning of a transaction that was never complete.
    """
    path, at = storage.getName(), storage._pos
    size = os.path.getsize(path)
    if _is_damaged(path, at, size):
        return f"damaged at byte {at}: the {size - at} bytes from there on can't be read"
    if at > _BEGIN and not _is_numbered(path, at):
        return f"damaged before byte {at}: the last transaction isn't numbered as its records are"
    return None


def _is_numbered(path: str, end: int) -> bool:
    """Whether a transaction that ends there can be seen: its number is the highest, so one above it
    is taken for what isn't there yet."""
    with open(path, "rb") as file:
        file.seek(end - _LENGTH.size)
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    begin = end - _LENGTH.size - length
    if begin < _BEGIN:
        return False
    with closing(FileIterator(path, pos=begin)) as transactions:
        last = next(transactions, None)
        return last is not None and all(record.tid == last.tid for record in last)


def _is_damaged(path: str, at: int, size: int) -> bool:
    """Whether there are whole transactions from `at` on, and what is there isn't the first.

    A writer may be at work: what it has written since is whole.
    """
    with open(path, "rb") as file:

        def found(place: int, form: struct.Struct) -> tuple[Any, ...]:
            file.seek(place)
            return form.unpack(file.read(form.size))

        if size - at < _HEAD.size + _LENGTH.size:
            return False
        (length,) = found(size - _LENGTH.size, _LENGTH)
        last = size - _LENGTH.size - length
        if length < _HEAD.size or last < at:
            return False
        _, known, status = found(at, _HEAD)
        if last == at:
            return bool(length != known)
        is_first_whole = status != b"c" and (
            at + known <= size - _LENGTH.size and found(at + known, _LENGTH) == (known,)
        )
        _, known, status = found(last, _HEAD)
        return bool(not is_first_whole and known == length and status in (b" ", b"u", b"p"))


@contextmanager
def _saying_what_is_dropped(path: str) -> Iterator[None]:
    """When a file is opened to be written, what can't be read at its end goes to a file beside it.

    That is kept if whole transactions are in it.
    """
    size = os.path.getsize(path) if os.path.exists(path) else 0
    before = {*glob(f"{escape(path)}.tr*")}
    yield
    at = os.path.getsize(path)
    kept = {*glob(f"{escape(path)}.tr*")} - before
    if any(_is_damaged(name, 0, os.path.getsize(name)) for name in kept):
        log.error(
            "archive path=%s damaged at byte=%d: bytes=%d from there on are now in %s",
            path, at, size - at, " ".join(kept),
        )  # fmt: skip
        return
    for name in kept:
        os.remove(name)
    if at < size:
        log.warning("archive path=%s dropped bytes=%d of an unfinished commit", path, size - at)


def _packed(storage: Any, *arguments: Any) -> Any:
    """ZODB's packer doesn't wait until what will be the file is on disk."""
    found = FileStorage.packer(storage, *arguments)
    if found is not None:
        with open(f"{storage.getName()}.pack", "rb") as packed:
            os.fsync(packed.fileno())
    return found


@contextmanager
def private_files() -> Iterator[None]:
    """Files made meanwhile can be read by their owner alone (0600). Of the whole process: threads
    that make files at the same time make private ones too."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
