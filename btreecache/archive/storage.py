"""Where an archive is kept, by URI: a file, a ZEO server, PostgreSQL through RelStorage.

    PATH, file:PATH                      a FileStorage, the default: one process writes at a time
    zeo://HOST:PORT[/STORAGE]            a ZEO server
    postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE      history-free

No class is ever unpickled but the archive's own records (`records.allowed`), whoever wrote the
file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote

import transaction
from ZODB import DB
from ZODB.POSException import ConflictError

from btreecache.archive import file
from btreecache.archive.patience import ANSWER_S, Patience
from btreecache.archive.records import FORMAT, NAME, Root, allowed
from btreecache.errors import ArchiveError, BadRequest, BtreecacheError

log = logging.getLogger(__name__)

#: Who logs, with a traceback, what they raise as well. Heard only where logging is configured.
NOISY = ("ZODB", "ZEO", "relstorage", "txn")

#: Records that ZODB itself remembers for a connection. What was made of them is remembered by
#: `Nodes`, so these are few.
RECORDS_CACHED = 2_000

#: How often an archive of an older format is marked with ours, when others write to it meanwhile.
TRIES = 5


def open_database(uri: str, *, read_only: bool, answer_s: float = ANSWER_S) -> Any:
    """The database of an archive, made if it may be written and isn't there yet. A server that
    doesn't answer for `answer_s` seconds is taken for gone.

    Raises BadRequest for a URI that can't be meant, MissingExtra, ArchiveError.
    """
    patience = Patience(answer_s)
    for name in NOISY:
        logging.getLogger(name).addHandler(logging.NullHandler())
    with told(f"the archive {shown(uri)} can't be opened", uri):
        storage = _opened(uri, read_only, patience)
        storage.tryToResolveConflict = _unresolved
        try:
            # Not set afterwards: DB itself opens a connection, which would know nothing of it.
            database = DB(storage, cache_size=RECORDS_CACHED, class_factory=_class_of)
            database.patience = patience
            _check(database, shown(uri), read_only)
        except BaseException:
            with suppress(Exception):
                storage.close()
            raise
    return database


def close_database(database: Any) -> None:
    """Never raises: what is committed is committed, and a server that is away needs no goodbye."""
    try:
        database.close()
    except Exception as error:
        log.info("archive error=%s", trouble("not closed properly", error))
        with suppress(Exception):
            database.storage.close()


class Transactions(transaction.TransactionManager):  # type: ignore[misc]  # it has no types
    """Transactions that are begun explicitly: between them a connection holds nothing open at a
    server, which could free nothing meanwhile."""

    def __init__(self) -> None:
        super().__init__(explicit=True)

    def abort(self) -> None:
        """Nothing, if there is no transaction: ZODB aborts what it closes."""
        if self._txn is not None:
            super().abort()


@contextmanager
def told(what: str, uri: str = "") -> Iterator[None]:
    """Whatever a storage or its driver raises becomes an ArchiveError (`trouble`). What is ours
    passes."""
    try:
        yield
    except (BtreecacheError, AssertionError):
        raise
    except Exception as error:
        raise trouble(what, error, uri) from error


def trouble(what: str, error: Exception, uri: str = "") -> ArchiveError:
    """What went wrong, in one line and without the password of the URI."""
    if isinstance(error, ArchiveError):
        return error
    said = " ".join(str(error).split()) or type(error).__name__
    for secret in _secrets(uri):
        said = said.replace(secret, "***")
    return ArchiveError(f"{what}: {said}")


#: What stands between the name of a user and the last @, and a parameter.
_SECRETS = re.compile(r"(?<=://)[^:/@]*:(.*)@|[?&]password=([^&]*)")


def _secrets(uri: str) -> set[str]:
    found = {secret for match in _SECRETS.finditer(uri) for secret in match.groups() if secret}
    return found | {unquote(secret) for secret in found}


def shown(uri: str) -> str:
    """A URI without its password."""
    for secret in _secrets(uri):
        uri = uri.replace(secret, "***")
    return uri


def _unresolved(oid: bytes, committed: bytes, *_: object) -> bytes:
    """To resolve a conflict is to unpickle what somebody else wrote, whatever its class. And there
    is nothing to be resolved between two writers of one history."""
    raise ConflictError(oid=oid, serials=(committed, committed))


def _class_of(connection: Any, module: str, name: str) -> Any:
    if not allowed(module, name):
        raise ArchiveError(f"not an archive: it holds a {module}.{name}")
    return _import(module, name)


def _import(module: str, name: str) -> Any:
    return getattr(__import__(module, fromlist=[name]), name)


def _opened(uri: str, read_only: bool, patience: Patience) -> Any:
    scheme = re.match(r"([a-z]+)://", uri)
    if scheme is None:
        return file.opened(uri.removeprefix("file:"), read_only)
    if scheme[1] == "zeo":
        from btreecache.archive import zeo

        return zeo.opened(uri, read_only, patience)
    if scheme[1] in ("postgresql", "postgres"):
        from btreecache.archive import postgresql

        return postgresql.opened(uri, read_only, patience)
    raise BadRequest(f"an archive is a path, zeo:// or postgresql://, not {scheme[1]}://")


def _check(database: Any, name: str, read_only: bool) -> None:
    """That this is an archive of a format that we know; made if it may be, and marked with ours:
    an older version couldn't read what is going to be written."""
    manager = Transactions()
    connection = database.open(manager)
    try:
        with manager:
            root = connection.root()
            if NAME not in root:
                if len(root):
                    raise ArchiveError(f"{name} is no archive: another database")
                if read_only:
                    raise ArchiveError(f"{name} is no archive: it is empty")
                root[NAME] = Root((FORMAT, {}))
    except ConflictError:
        pass  # Another process has just made it.
    try:
        for _ in range(TRIES):
            with suppress(ConflictError), manager:
                record = connection.root()[NAME]
                found = record.state[0] if isinstance(record, Root) else None
                if not isinstance(found, int) or found > FORMAT:
                    raise ArchiveError(
                        f"{name} has format {found}; this version reads formats up to {FORMAT}"
                    )
                if found == FORMAT or read_only:
                    return
                record.state = (FORMAT, record.state[1])
        raise ArchiveError(f"{name} can't be marked with format {FORMAT}: others write to it")
    finally:
        connection.close()
