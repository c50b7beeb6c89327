"""Body: an answer's bytes as they are made, in chunks, and their number where it is known ahead.

The first chunk is made at once: what can't be encoded in there is an error like any other, and
nothing was sent. After that it is EncodingAborted, because an answer that was begun can't be taken
back, only cut off.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import Final, TypeAlias

from btreecache.codec.base import Unreadable
from btreecache.encoding.refusals import EncodingAborted, NotAcceptable

#: Bytes of a chunk but the last: less would cost a write per object, more would hold others up.
CHUNK_BYTES: Final = 64 << 10
CHUNK_BYTES_MAX: Final = 256 << 10

Part: TypeAlias = bytes | memoryview


class Body:
    """Chunks to iterate once, by one reader. `close` it if it isn't read to its end.

    length   the bytes of all chunks together; None where it isn't known ahead
    is_whole  it is one chunk
    """

    __slots__ = ("_chunks", "_first", "_second", "length")

    def __init__(self, chunks: Iterable[bytes], length: int | None = None) -> None:
        """Makes the first two chunks. Raises what making the first raises, Unreadable as
        NotAcceptable; trouble with the second is told where it is read."""
        self._chunks = iter(chunks)
        try:
            self._first = next(self._chunks, b"")
        except Unreadable as error:
            raise NotAcceptable(str(error)) from error
        self._second: bytes | EncodingAborted | None
        try:
            self._second = next(self._chunks, None)
        except Exception as error:
            self._second = _aborted(error)
        self.length = len(self._first) if self._second is None else length

    @property
    def is_whole(self) -> bool:
        return self._second is None

    def exceeds(self, size_bytes: int) -> bool:
        """Whether it is longer than that, which is at most two chunks' least."""
        if self.length is not None:
            return self.length > size_bytes
        second = self._second if isinstance(self._second, bytes) else b""
        return len(self._first) + len(second) > size_bytes

    def __iter__(self) -> Iterator[bytes]:
        """The chunks. Raises EncodingAborted."""
        yield self._first
        if isinstance(self._second, EncodingAborted):
            raise self._second
        if self._second is None:
            return
        yield self._second
        try:
            yield from self._chunks
        except GeneratorExit:
            raise
        except Exception as error:
            raise _aborted(error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Let go of what the chunks are made from. Any thread: if another is making a chunk just
        now, that is its last, and the rest goes with this."""
        if isinstance(self._chunks, Generator):
            with suppress(ValueError):  # it is running
                self._chunks.close()

    def collected(self) -> Body:
        """The same chunks, all made before the first is handed out: O(body) memory. Raises
        NotAcceptable for what would have been an aborted answer."""
        try:
            chunks = [*self]
        except EncodingAborted as error:
            raise NotAcceptable(str(error)) from error
        return Body(chunks, sum(map(len, chunks)))


def _aborted(error: Exception) -> EncodingAborted:
    if isinstance(error, EncodingAborted):
        return error
    aborted = EncodingAborted(str(error) or type(error).__name__)
    aborted.__cause__ = error
    return aborted


def joined(parts: Iterable[Part]) -> Iterator[bytes]:
    """Parts put together to chunks of CHUNK_BYTES to CHUNK_BYTES_MAX, the last may be less. Each
    byte is copied once, those of parts larger than a chunk twice."""
    held: list[Part] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= CHUNK_BYTES:
            yield from cut(b"".join(held))
            held.clear()
            size = 0
    if held:
        yield from cut(b"".join(held))


def cut(data: bytes) -> Iterator[bytes]:
    """Bytes in chunks of at most CHUNK_BYTES_MAX, none of them tiny."""
    if len(data) <= CHUNK_BYTES_MAX:
        if data:
            yield data
        return
    pieces = -(-len(data) // CHUNK_BYTES_MAX)
    step = -(-len(data) // pieces)
    for start in range(0, len(data), step):
        yield data[start : start + step]
