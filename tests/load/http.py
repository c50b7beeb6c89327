"""As much of an HTTP client as is needed: asyncio, one connection, kept alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

LIMIT_BYTES = 1 << 20
ANSWER_S = 120.0


class Connection:
    """Requests on one connection, one after the other, of a client called `agent`.

    Raises OSError, EOFError, TimeoutError.
    """

    def __init__(self, host: str, port: int, agent: str) -> None:
        self._host, self._port = host, port
        self._agent = agent
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def begin(self, path: str) -> tuple[int, dict[str, str]]:
        """Ask; the status and the headers, with small names."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=LIMIT_BYTES)
        reader, writer = self._streams
        fields = f"Host: {self._host}:{self._port}\r\nUser-Agent: {self._agent}\r\n\r\n"
        writer.write(f"GET {path} HTTP/1.1\r\n{fields}".encode())
        # wait_for of Python 3.11 loses a cancellation that comes together with the answer.
        async with asyncio.timeout(ANSWER_S):
            head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return int(first.split()[1]), {name.lower(): text.strip() for name, _, text in pairs}

    async def chunks(self) -> AsyncIterator[bytes]:
        """A body in chunks. It has come to its end when this does."""
        assert self._streams is not None
        reader, _ = self._streams
        while size := int(await reader.readuntil(b"\r\n"), 16):
            data = await reader.readexactly(size + 2)
            yield data[:-2]
        await reader.readexactly(2)

    async def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        status, headers = await self.begin(path)
        assert self._streams is not None
        if "content-length" in headers:
            length = int(headers["content-length"])
            async with asyncio.timeout(ANSWER_S):
                return status, await self._streams[0].readexactly(length)
        return status, b"".join([chunk async for chunk in self.chunks()])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
