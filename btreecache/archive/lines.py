"""Lines: the format that histories are exported in, one JSON object a line (docs/archive.md).

    header
    list        the state at a revision, which doesn't follow from the one before: what differs
        put, delete ..
    checkpoint  the digest of the state that the lines before come to
    batch       a revision, its events inside
    progress    nothing happened up to a revision
    end         how many lines, and the digest of them: a file without one was cut off

Bytes are text where they are UTF-8, else base64 under another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Annotated, BinaryIO, Literal

import msgspec

from btreecache.element import Element
from btreecache.errors import BadRequest

#: The version of the format; a file with a higher one is refused.
FORMAT = 1

#: A longer line is none of ours: a batch is a transaction, and the source bounds those.
LINE_BYTES_MAX = 256 << 20

Revision = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Time = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]  # up to the year 9999
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Line(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What all have in common: `type` says which it is."""


class Header(Line, frozen=True, tag="header"):
    """The first line. `prefix`: of the history."""

    format: int
    prefix: str | None = None
    prefix_base64: bytes | None = None


class Put(Line, frozen=True, tag="put"):
    """An element. `digest`: Element.source_digest, of one whose value is only a part."""

    mod_revision: Revision
    create_revision: Revision
    version: Revision
    key: str | None = None
    key_base64: bytes | None = None
    value: str | None = None
    value_base64: bytes | None = None
    digest: Digest | None = None


class Delete(Line, frozen=True, tag="delete"):
    """A key that is gone."""

    key: str | None = None
    key_base64: bytes | None = None


class Listed(Line, frozen=True, tag="list"):
    """A state begins; `reason`: why what was between it and the last one isn't known."""

    revision: Revision
    time_s: Time
    reason: Literal["list", "overflow", "fault", "thinned"] = "list"


class Checkpoint(Line, frozen=True, tag="checkpoint"):
    """What the lines before come to: elements, and their digest in the mode `values`."""

    revision: Revision
    elements: int
    digest: Digest


class BatchLine(Line, frozen=True, tag="batch"):
    """All that happened at one revision. `time_s`: when it arrived, seconds since 1970."""

    revision: Revision
    time_s: Time
    events: tuple[Put | Delete, ...]


class Progressed(Line, frozen=True, tag="progress"):
    """All up to a revision is known."""

    revision: Revision


class End(Line, frozen=True, tag="end"):
    """The last line: blake2b-256 of the lines before, with their newlines, and how many."""

    lines: int
    digest: Digest


AnyLine = Header | Put | Delete | Listed | Checkpoint | BatchLine | Progressed | End


def text_or_bytes(value: bytes) -> tuple[str | None, bytes | None]:
    """One of the two."""
    try:
        return value.decode(), None
    except UnicodeDecodeError:
        return None, value


def bytes_of(text: str | None, raw: bytes | None) -> bytes:
    """The one of the two that is given. Raises BadRequest."""
    if (text is None) == (raw is None):
        raise BadRequest("a key, value or prefix is given once, as text or as base64")
    return text.encode() if text is not None else raw or b""


def put(element: Element) -> Put:
    """The line of an element as the source has it."""
    digest = element.source_digest
    return Put(
        element.mod_revision, element.create_revision, element.version,
        *text_or_bytes(element.key),
        *text_or_bytes(element.value if digest else element.source_value()),
        digest.hex() or None,
    )  # fmt: skip


def element_of(line: Put) -> Element:
    """The element of a line. Raises BadRequest."""
    return Element(
        bytes_of(line.key, line.key_base64), bytes_of(line.value, line.value_base64),
        line.mod_revision, line.create_revision, line.version,
        source_digest=bytes.fromhex(line.digest or ""),
    )  # fmt: skip


def written(lines: Iterable[AnyLine]) -> Iterator[bytes]:
    """The lines as bytes, with the `end` after them. Lazy."""
    digest, count = blake2b(digest_size=32), 0
    encode = msgspec.json.encode
    for line in lines:
        text = encode(line) + b"\n"
        digest.update(text)
        count += 1
        yield text
    yield encode(End(count, digest.hexdigest())) + b"\n"


def read(file: BinaryIO) -> Iterator[AnyLine]:
    """The lines of a file without the `end`, which is checked. Lazy: what is read must not be taken
    for good before the end of it has come. Raises BadRequest, which names the line."""
    decoder = msgspec.json.Decoder(AnyLine)
    digest, count = blake2b(digest_size=32), 0
    while text := file.readline(LINE_BYTES_MAX):
        try:
            line: AnyLine = decoder.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise BadRequest(f"line {count + 1}: {error}") from None
        if isinstance(line, End):
            if (line.lines, line.digest) != (count, digest.hexdigest()):
                raise BadRequest(f"line {count + 1}: the lines before are not those that it is of")
            if file.read(1):
                raise BadRequest(f"line {count + 2}: something after the end")
            return
        digest.update(text)
        count += 1
        yield line
    raise BadRequest(f"cut off after line {count}: there is no end line")
