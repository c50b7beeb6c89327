"""postgresql://: an archive in a database of PostgreSQL, through RelStorage.

History-free: the archive names its revisions itself. The password goes to the server and nowhere
else: what RelStorage logs or calls itself doesn't have it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ZODB.POSException import ConflictError

from btreecache.archive.patience import Patience
from btreecache.errors import BadRequest, MissingExtra

try:
    import psycopg2
    from psycopg2.extensions import connection, cursor, make_dsn, parse_dsn
    from relstorage.adapters.postgresql import PostgreSQLAdapter
    from relstorage.adapters.postgresql.drivers.psycopg2 import Psycopg2Driver
    from relstorage.options import Options
    from relstorage.storage import RelStorage
except ImportError as error:
    raise MissingExtra("archive", error.name or "RelStorage") from None

#: How often the watchdog looks.
LOOK_S = 0.5


def opened(uri: str, read_only: bool, patience: Patience) -> Any:
    """The storage; its tables are made if they may be. Raises BadRequest, and whatever the driver
    does."""
    try:
        fields = parse_dsn(uri)
    except psycopg2.ProgrammingError:
        message = "expected postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE"
        raise BadRequest(message) from None
    password = fields.pop("password", None)
    fields.setdefault("connect_timeout", str(max(round(patience.connect_s), 2)))
    watchdog = _Watchdog(patience)

    class Adapter(PostgreSQLAdapter):  # type: ignore[misc]  # RelStorage has no types
        """RelStorage's, with our driver; it makes one for each ZODB connection."""

        def _select_driver(self, options: Any = None) -> Any:
            return _Driver(password, watchdog)

    options = Options(keep_history=False, read_only=read_only, create_schema=not read_only)
    storage = _Storage(Adapter(make_dsn(**fields), options=options), options=options)
    storage.watchdog = watchdog
    return storage


def _unresolved(record: bytes) -> bytes:
    raise ConflictError(data=record)


class _Storage(RelStorage):  # type: ignore[misc]
    """Its own resolver of conflicts begins with this, and then unpickles records whatever their
    classes are."""

    _crs_untransform_record_data = staticmethod(_unresolved)


class _Driver(Psycopg2Driver):  # type: ignore[misc]
    def __init__(self, password: str | None, watchdog: _Watchdog) -> None:
        self._password = password
        self._watchdog = watchdog
        super().__init__()

    def _create_connection(self, mod: Any, *extra_slots: str) -> Any:
        return self._connected

    def _connected(self, dsn: str) -> _Connection:
        made = _Connection(make_dsn(dsn, password=self._password))
        made.watchdog = self._watchdog
        made.cursor_factory = _Cursor
        return made


class _Watchdog:
    """Cuts connections whose server takes too long: libpq waits for ever. Its thread runs from the
    first statement until `close`."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._busy: dict[int, tuple[connection, float]] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, busy: connection) -> Iterator[None]:
        """A statement of a connection."""
        with self._lock:
            self._busy[id(busy)] = busy, time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="btreecache-archive-watchdog", daemon=True
                )
                self._thread.start()
        try:
            yield
        except psycopg2.Error as error:
            if id(busy) not in self._busy:
                raise psycopg2.OperationalError(_silent(self._patience.seconds)) from error
            raise
        finally:
            with self._lock:
                self._busy.pop(id(busy), None)

    def close(self) -> None:
        """End the thread, without waiting for it."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            seconds = self._patience.seconds
            if seconds is None:
                continue
            with self._lock:
                for key, (busy, since_s) in list(self._busy.items()):
                    if time.monotonic() - since_s > seconds:
                        del self._busy[key]
                        _cut(busy)


class _Connection(connection):  # type: ignore[misc]  # psycopg2 has no types
    watchdog: _Watchdog

    def commit(self) -> None:
        with self.watchdog.watching(self):
            super().commit()

    def rollback(self) -> None:
        with self.watchdog.watching(self):
            super().rollback()


class _Cursor(cursor):  # type: ignore[misc]
    """What asks the server is watched."""

    def execute(self, *args: Any) -> Any:
        with self.connection.watchdog.watching(self.connection):
            return super().execute(*args)

    def copy_expert(self, *args: Any) -> Any:
        with self.connection.watchdog.watching(self.connection):
            return super().copy_expert(*args)

    def fetchmany(self, *args: Any) -> Any:
        # Only a cursor on the server's side asks it here.
        with self.connection.watchdog.watching(self.connection):
            return super().fetchmany(*args)


def _cut(busy: connection) -> None:
    """Break a connection that another thread waits for. psycopg2 and libpq can't do that: what
    they offer for it asks the server."""
    try:
        descriptor = os.dup(busy.fileno())
    except (psycopg2.Error, OSError):
        return  # It is broken already.
    with socket.socket(fileno=descriptor) as line:
        line.shutdown(socket.SHUT_RDWR)


def _silent(seconds: float | None) -> str:
    return f"no answer in {seconds:g} s" if seconds is not None else "no answer"
