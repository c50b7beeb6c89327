"""A gRPC client of few instructions, so that what is measured is the server.

As much of HTTP/2 as calls without flow control, compression of headers or retries need. One
connection, one thread; messages are bytes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
#: Flags.
_END_STREAM = _ACK = 1
_END_HEADERS = 4
_WINDOW_MAX = (1 << 31) - 1
#: A window that nothing measured here fills (so none is ever given back), frames of up to a MiB.
_OUR_SETTINGS = struct.pack(">HIHI", 4, _WINDOW_MAX, 5, 1 << 20)
TIMEOUT_S = 60.0


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBBI", len(payload), kind, flags, stream)[1:] + payload


def _header(name: bytes, value: bytes) -> bytes:
    return b"\0%c%b%c%b" % (len(name), name, len(value), value)  # literal, never indexed


class Connection:
    """To a server at HOST:PORT. Raises OSError if it isn't there, RuntimeError if it refuses."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._authority = endpoint.encode()
        self._next_stream = 1
        self._received = bytearray()
        self._parts: dict[int, bytearray] = {}  # of messages that aren't whole yet, by stream
        widen = _frame(_WINDOW, 0, 0, struct.pack(">I", _WINDOW_MAX - 65_535))
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, _OUR_SETTINGS) + widen)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """So that `selectors` can wait for it."""
        return self._socket.fileno()

    def start(self, path: str, message: bytes, *, ends: bool = True) -> int:
        """Send a request, and with `ends` that it is the last one -> the number of its stream."""
        assert len(message) < 16_000, "a frame has at most 16 KiB"
        headers = b"".join(
            _header(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", path.encode()),
                (b":authority", self._authority),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
            )
        )
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        body = struct.pack(">BI", 0, len(message)) + message
        self._parts[stream] = bytearray()
        self._socket.sendall(
            _frame(_HEADERS, _END_HEADERS, stream, headers)
            + _frame(_DATA, _END_STREAM if ends else 0, stream, body)
        )
        return stream

    def receive(self) -> list[tuple[int, bytes | None]]:
        """Wait for bytes -> (stream, message) of those that are whole now, None for its end."""
        data = self._socket.recv(1 << 20)
        if not data:
            raise RuntimeError("the server closed the connection")
        received = self._received
        received += data
        done: list[tuple[int, bytes | None]] = []
        at = 0
        while len(received) - at >= 9:
            size = int.from_bytes(received[at : at + 3], "big")
            if len(received) - at < 9 + size:
                break
            kind, flags, stream = struct.unpack_from(">BBI", received, at + 3)
            done += self._frame(kind, flags, stream, received[at + 9 : at + 9 + size])
            at += 9 + size
        del received[:at]
        return done

    def _frame(
        self, kind: int, flags: int, stream: int, payload: bytearray
    ) -> Iterator[tuple[int, bytes | None]]:
        if kind == _DATA:
            part = self._parts[stream]
            part += payload
            while len(part) >= 5 and len(part) >= (end := 5 + int.from_bytes(part[1:5], "big")):
                yield stream, bytes(part[5:end])
                del part[:end]
        elif kind == _SETTINGS and not flags & _ACK:
            self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(_frame(_PING, _ACK, 0, bytes(payload)))
        elif kind in (_RESET, _GOAWAY):
            raise RuntimeError(f"the server ended it: {bytes(payload)!r}")
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            del self._parts[stream]
            yield stream, None

    def ask(self, path: str, message: bytes) -> bytes:
        """A unary call -> the response. Raises RuntimeError if there is none."""
        called = self.start(path, message)
        answer = None
        while True:
            for stream, got in self.receive():
                if stream == called and got is None:
                    if answer is None:
                        raise RuntimeError(f"{path}: refused")
                    return answer
                if stream == called:
                    answer = got
