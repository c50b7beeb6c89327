"""Where an archive is kept, by URI: a file, a ZEO server, PostgreSQL through RelStorage.

    PATH, file:PATH                      a FileStorage, the default: one process writes at a time
    zeo://HOST:PORT[/STORAGE]            a ZEO server
    postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE      history-free

No class is ever unpickled but the archive's own records (`records.allowed`), whoever wrote the
file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import transaction
from ZODB import DB
from ZODB.POSException import POSError

from btreecache.archive.records import FORMAT, NAME, Root, allowed
from btreecache.errors import ArchiveError, BadRequest, MissingExtra

#: Records that ZODB itself remembers for a connection. What was made of them is remembered by
#: `Nodes`, so these are few.
RECORDS_CACHED = 2_000


def open_database(uri: str, *, read_only: bool) -> Any:
    """The database of an archive, made if it may be written and isn't there yet.

    Raises BadRequest for a URI that can't be meant, MissingExtra, ArchiveError.
    """
    storage = _opened(uri, read_only)
    try:
        database = DB(storage, cache_size=RECORDS_CACHED)
        database.classFactory = _class_of
        _check(database, uri, read_only)
    except BaseException:
        storage.close()
        raise
    return database


def _class_of(connection: Any, module: str, name: str) -> Any:
    if not allowed(module, name):
        raise ArchiveError(f"not an archive: it holds a {module}.{name}")
    return _import(module, name)


def _import(module: str, name: str) -> Any:
    return getattr(__import__(module, fromlist=[name]), name)


def _opened(uri: str, read_only: bool) -> Any:
    scheme = re.match(r"([a-z]+)://", uri)
    try:
        if scheme is None:
            return _file(uri.removeprefix("file:"), read_only)
        if scheme[1] == "zeo":
            return _zeo(uri, read_only)
        if scheme[1] in ("postgresql", "postgres"):
            return _postgresql(uri, read_only)
    except (BadRequest, MissingExtra, ArchiveError):
        raise
    except Exception as error:  # A driver may raise anything of its own.
        raise ArchiveError(f"the archive {_shown(uri)} can't be opened: {error}") from error
    raise BadRequest(f"an archive is a path, zeo:// or postgresql://, not {scheme[1]}://")


def _shown(uri: str) -> str:
    """Without the password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1@", uri)


def _file(path: str, read_only: bool) -> Any:
    from zc.lockfile import LockError
    from ZODB.FileStorage import FileStorage

    if not path:
        raise BadRequest("the path of the archive is empty")
    if read_only and not os.path.exists(path):
        raise ArchiveError(f"there is no archive {path}")
    try:
        with private_files():
            return FileStorage(path, read_only=read_only, pack_keep_old=False)
    except LockError:
        raise ArchiveError(f"another process has the archive {path} open for writing") from None
    except PermissionError as error:
        raise ArchiveError(f"the archive {path} can't be opened: {error.strerror}") from None


@contextmanager
def private_files() -> Iterator[None]:
    """Files made meanwhile can be read by their owner alone (0600). Of the whole process: threads
    that make files at the same time make private ones too."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _zeo(uri: str, read_only: bool) -> Any:
    try:
        from ZEO.ClientStorage import ClientStorage
    except ImportError as error:
        raise MissingExtra("archive", error.name or "ZEO") from None
    parts = urlsplit(uri)
    if not parts.hostname or not parts.port:
        raise BadRequest(f"expected zeo://HOST:PORT, not {uri}")
    name = unquote(parts.path.strip("/")) or "1"
    return ClientStorage(
        (parts.hostname, parts.port), storage=name, read_only=read_only, wait_timeout=10,
        cache_size=32 << 20,
    )  # fmt: skip


def _postgresql(uri: str, read_only: bool) -> Any:
    try:
        from relstorage.adapters.postgresql import PostgreSQLAdapter
        from relstorage.options import Options
        from relstorage.storage import RelStorage
    except ImportError as error:
        raise MissingExtra("archive", error.name or "RelStorage") from None
    options = Options(keep_history=False, read_only=read_only)
    return RelStorage(PostgreSQLAdapter(uri, options=options), options=options)


def _check(database: Any, uri: str, read_only: bool) -> None:
    """That this is an archive of a format that we know; made if it may be."""
    manager = transaction.TransactionManager()
    connection = database.open(manager)
    try:
        root = connection.root()
        if NAME not in root:
            if len(root):
                raise ArchiveError(f"{_shown(uri)} is no archive: another database")
            if read_only:
                raise ArchiveError(f"{_shown(uri)} is no archive: it is empty")
            root[NAME] = Root((FORMAT, {}))
            manager.commit()
        record = root[NAME]
        found = record.state[0] if isinstance(record, Root) else None
        if not isinstance(found, int) or found > FORMAT:
            raise ArchiveError(
                f"{_shown(uri)} has format {found}; this version reads formats up to {FORMAT}"
            )
    except POSError as error:
        raise ArchiveError(f"{_shown(uri)} can't be read: {error}") from None
    finally:
        manager.abort()
        connection.close()
