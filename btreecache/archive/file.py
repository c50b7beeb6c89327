"""PATH: an archive in a FileStorage, which one process writes and any number read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from zc.lockfile import LockError, LockFile
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileStorageFormatError

from btreecache.errors import ArchiveError, BadRequest


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
