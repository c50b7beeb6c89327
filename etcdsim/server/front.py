"""A TCP front for a server: connections that can be reset, and a port that can go and come back.

gRPC's server gives no hold of its sockets. What passes here is not looked at.
"""

from __future__ import annotations

import asyncio
import socket
import struct

_CHUNK_BYTES = 64 * 1024
_RETRY_S = 0.05  # to have the port again
_BACKLOG = 1024


class Front:
    """Passes each connection on to `upstream`, a HOST:PORT. One event loop.

    `endpoint`: HOST:PORT of its own.
    """

    def __init__(self, upstream: str) -> None:
        self.endpoint = ""
        self._upstream = upstream
        self._connections: dict[str, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._passing: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, address: str) -> None:
        """Listen on HOST:PORT, port 0 for a free one. Raises OSError."""
        host, _, port = address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._accept, host.strip("[]"), int(port), backlog=_BACKLOG
            )
        except (OSError, OverflowError):
            raise OSError(f"can't listen on {address}") from None
        self.endpoint = f"{host}:{self._server.sockets[0].getsockname()[1]}"

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    def down(self) -> None:
        """Refuse connections, and reset those that there are. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset_all()

    async def stop(self, grace_s: float) -> None:
        """End it; what the upstream still has to say may take so long."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._passing:
            await asyncio.wait(self._passing, timeout=grace_s)
        self.reset_all()

    async def up(self) -> None:
        """Listen on the same port again, as soon as it is to be had."""
        while not self.is_up:
            try:
                await self.start(self.endpoint)
            except OSError:
                await asyncio.sleep(_RETRY_S)

    def reset(self, peer: str) -> None:
        """Reset the connection whose other end is `peer`, HOST:PORT, to the upstream; nothing
        happens if there is none."""
        writers = self._connections.pop(peer, None)
        if writers is None:
            return
        client, server = writers
        # So that it is a reset and no orderly end.
        linger = struct.pack("ii", 1, 0)
        client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.transport.abort()
        server.transport.abort()

    def reset_all(self) -> None:
        """Reset every connection."""
        for peer in tuple(self._connections):
            self.reset(peer)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        passing = asyncio.ensure_future(self._pass_on(reader, client))
        self._passing.add(passing)
        passing.add_done_callback(self._passing.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        host, _, port = self._upstream.rpartition(":")
        try:
            answers, server = await asyncio.open_connection(host, int(port))
        except OSError:
            client.transport.abort()
            return
        name = server.get_extra_info("sockname")
        peer = f"{name[0]}:{name[1]}"
        self._connections[peer] = client, server
        if not self.is_up:  # it went down meanwhile
            self.reset(peer)
        pumps = [
            asyncio.ensure_future(_pump(reader, server)),
            asyncio.ensure_future(_pump(answers, client)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections.pop(peer, None)
            for pump in pumps:
                pump.cancel()
            client.close()
            server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
