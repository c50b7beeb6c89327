"""zeo://: an archive on a ZEO server, whose answers are awaited in bounded time."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from btreecache.archive.patience import Patience
from btreecache.errors import ArchiveError, BadRequest, MissingExtra

try:
    from ZEO.asyncio.client import ClientThread
    from ZEO.ClientStorage import ClientStorage
    from ZEO.Exceptions import ClientDisconnected
except ImportError as error:
    raise MissingExtra("archive", error.name or "ZEO") from None

#: Of records, on this machine's disk: a temporary file without a name.
CACHE_BYTES = 32 << 20


def opened(uri: str, read_only: bool, patience: Patience) -> Any:
    """The storage. Raises BadRequest, ArchiveError."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise BadRequest("expected zeo://HOST:PORT[/STORAGE]")
    name = unquote(parts.path.strip("/")) or "1"
    try:
        return ClientStorage(
            (host, port), storage=name, read_only=read_only, wait_timeout=patience.connect_s,
            cache_size=CACHE_BYTES, _client_factory=partial(_Client, patience),
        )  # fmt: skip
    except ClientDisconnected:
        message = f"no ZEO server with a storage {name} answers at {host}:{port}"
        raise ArchiveError(message) from None


class _Client(ClientThread):  # type: ignore[misc]  # ZEO has no types
    """The networking thread of a storage, and the one place where other threads wait for it."""

    io_call: Any

    def __init__(self, patience: Patience, *args: Any, **options: Any) -> None:
        self._patience = patience
        super().__init__(*args, **options)

    def setup_delegation(self, loop: Any) -> None:
        super().setup_delegation(loop)
        start = partial(self.io_call, wait=False)

        def io_call(coroutine: Any, wait: bool = True) -> Any:
            future = start(coroutine)
            if not wait:
                return future
            seconds = self._patience.seconds
            try:
                return future.result(seconds)
            except TimeoutError:
                # Whatever is answered later must not be taken for the answer to something else.
                loop.call_soon_threadsafe(self._cut)
                loop.call_soon_threadsafe(future.add_done_callback, _ignored)
                raise ClientDisconnected(f"no answer in {seconds:g} s") from None

        self.io_call = io_call

    def close(self) -> None:
        # ZEO would wait for what is still to be sent, to a server that may no longer listen.
        if not self.is_closed():
            self.loop.call_soon_threadsafe(self._cut)
        super().close()

    def _cut(self) -> None:
        """In the networking thread: what is connected is no longer, and nothing waits for it."""
        for protocol in [self.client.protocol, *self.client.protocols]:
            messages = protocol and protocol.sm_protocol
            if messages and messages.transport:
                messages.transport.abort()


def _ignored(future: Any) -> None:
    """Nobody waits for it any more: what became of it needn't be complained about."""
    future.exception()
