"""Sending: bodies and watches as answers to a client that may go at any time.

An answer that can't be completed is cut off, never ended: no client takes for whole what isn't.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from itertools import islice
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from btreecache.encoding.answer import Answers
from btreecache.encoding.body import CHUNK_BYTES, Body
from btreecache.encoding.media import MediaType
from btreecache.encoding.refusals import EncodingAborted
from btreecache.errors import BtreecacheError, Compacted
from btreecache.server.counts import FrameCounts
from btreecache.watch_stream import WatchEvent, WatchStream

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Of every answer, as API servers say it.
HEADERS = {"Cache-Control": "no-cache, private"}

#: Bytes after which a client that takes everything at once lets others have the loop: that takes
#: about a millisecond, a turn of the loop some 10 us.
BURST_BYTES = 1 << 20

#: Chunks that a thread makes in one go, about half a megabyte.
CHUNKS_A_TRIP = 8


def sent(body: Body, media: MediaType, headers: dict[str, str] | None = None) -> Response:
    """A body as an answer: whole if it is one chunk, else piece by piece as the client takes it.

    What can't be encoded later on is raised out of the response, so that the server cuts the
    connection.
    """
    content_type = media.content_type()
    headers = HEADERS | (headers or {})
    if body.is_whole:
        return Response(b"".join(body), 200, headers, content_type)
    # Of known length is what only has to be joined; everything else is work for a thread.
    is_quick = body.length is not None

    async def pieces() -> AsyncIterator[bytes]:
        chunks, burst = iter(body), 0
        try:
            failed: EncodingAborted | None = None
            while failed is None:
                if is_quick:
                    some = [*islice(chunks, 1)]
                else:
                    some, failed = await asyncio.to_thread(_several, chunks)
                for chunk in some:
                    yield chunk
                    burst += len(chunk)
                    if burst >= BURST_BYTES:
                        burst = 0
                        await asyncio.sleep(0)
                if not some:
                    break
            if failed is not None:
                raise failed
        finally:
            body.close()

    if body.length is not None:
        headers["Content-Length"] = str(body.length)
    return StreamingResponse(pieces(), 200, headers, content_type)


def _several(chunks: Iterator[bytes]) -> tuple[list[bytes], EncodingAborted | None]:
    """Some chunks, and what came in place of the next. Going to a thread for each of them would
    cost more than making those of what is kept."""
    found: list[bytes] = []
    try:
        found.extend(islice(chunks, CHUNKS_A_TRIP))
    except EncodingAborted as error:
        return found, error
    return found, None


class Gone(Exception):
    """The client has closed its connection: nobody waits for the answer."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work comes to. It is cancelled, and Gone raised, when the client goes meanwhile."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Gone
    finally:
        await _cancel(task, gone)


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    """Returns when the client has gone. A body, which no request here has, is thrown away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and let them end. What they end with is nobody's any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class WatchResponse(Response):
    """A watch, frame by frame, until its stream ends or the client goes.

    A slow client holds its place in the window and one chunk, not a queue. What it is sent is
    counted.
    """

    def __init__(self, stream: WatchStream, answers: Answers, counts: FrameCounts) -> None:
        super().__init__(None, 200, HEADERS, answers.media.content_type(watch=True))
        del self.headers["content-length"]
        self._stream = stream
        self._answers = answers
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        tasks: list[asyncio.Future[Any]] = []
        try:
            await send(start)
            tasks = [
                asyncio.ensure_future(self._pump(send)),
                asyncio.ensure_future(_disconnected(receive)),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stream.close()
            await _cancel(*tasks)

    async def _pump(self, send: Send) -> None:
        """Send everything that the watch has to say, and the end."""
        try:
            await self._frames(send)
        except OSError:
            return  # the client has gone
        except Exception as unexpected:
            log.exception("a watch failed")
            await send(_body(self._answers.error_frame(unexpected)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _frames(self, send: Send) -> None:
        stream, is_first = self._stream, True
        while (event := await stream.receive_async()) is not None:
            chunk, failed = bytearray(), False
            while event is not None:
                frame, failed = self._frame(event, is_first)
                chunk += frame
                self._counts.sizes.observe(len(frame))
                self._counts.terminated += not is_first and isinstance(event.error, Compacted)
                is_first = False
                if failed:
                    break
                event = stream.poll() if len(chunk) < CHUNK_BYTES else None
            await send(_body(bytes(chunk)))
            if failed:
                return
            await asyncio.sleep(0)

    def _frame(self, event: WatchEvent, is_first: bool) -> tuple[bytes, bool]:
        """An event as it goes out, and whether it is the last because it couldn't be encoded."""
        try:
            return self._answers.frame(event, is_first=is_first), False
        except BtreecacheError as refused:
            # What can't be served can't be left out either: the client would miss it.
            return self._answers.error_frame(refused), True


def _body(chunk: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": chunk, "more_body": True}
