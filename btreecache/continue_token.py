"""Continue tokens: where the next page of a list begins, and at which revision.

The format is that of the Kubernetes API server, byte for byte, so that a chain begun at one may be
continued at the other: base64 (URL alphabet, no padding) of compact JSON with the version, the
revision and the first key of the next page without the prefix of the request. A token is not
signed and not bound to a selector; it is input like any other, and whatever is wrong with it comes
out as BadRequest.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import NamedTuple, NoReturn

from btreecache.errors import BadRequest, Compacted

#: Characters of the longest token that is read or written. Keys of Kubernetes make less than 4,000.
TOKEN_CHARS_MAX = 65_536

#: The revision of a token that says: go on at the newest revision.
LATEST = -1

VERSION = "meta.k8s.io/v1"
INVALID = "continue key is not valid"

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

EXPIRED = "The resourceVersion for the provided list is too old."
CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start"
    " a new list without the continue parameter."
)
INCONSISTENT_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can start"
    " a new list without the continue parameter, or use the continue token in this response to"
    " retrieve the remainder of the results. Continuing with the provided token results in an"
    " inconsistent list - objects that were created, modified, or deleted between the time the"
    " first chunk was returned and now may show up in the list."
)

_SURROGATE = re.compile("[\ud800-\udfff]")
_ALPHABET = re.compile(r"[A-Za-z0-9_\-\r\n]*")

#: What Go's encoding/json escapes beyond what JSON itself demands: it writes for HTML pages too.
_GO_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


class Position(NamedTuple):
    """Where a list goes on: from key `start`, at `revision`; below 0: at the newest."""

    start: bytes
    revision: int


def encode(start: bytes, prefix: bytes, revision: int) -> str:
    """The token for a list of `prefix` that goes on at key `start`, at `revision`.

    `start` is usually the last key of the page and a zero byte. O(len(start)).
    Raises BadRequest for what the format can't say: a key outside the prefix, one that isn't UTF-8,
    one too long, one whose first name is empty.
    """
    assert revision != 0, "revision 0 is no revision"
    if not start.startswith(prefix):
        raise BadRequest("unable to encode next field: the key and key prefix do not match")
    try:
        # The prefix itself is "/": the empty string means a token without a start.
        rest = start[len(prefix) :].decode() or "/"
    except UnicodeDecodeError:
        raise BadRequest("unable to encode next field: the key is not UTF-8") from None
    if start[len(prefix) :].startswith(b"/"):
        # Who decodes a token drops a leading slash: the next page would be a wrong one (I7).
        raise BadRequest("unable to encode next field: the key begins with an empty name")
    text = json.dumps(rest, ensure_ascii=False).translate(_GO_ESCAPES)
    raw = f'{{"v":"{VERSION}","rv":{revision},"start":{text}}}'.encode()
    token = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    if len(token) > TOKEN_CHARS_MAX:
        raise BadRequest("unable to encode next field: the key is too long")
    return token


def decode(token: str, prefix: bytes) -> Position:
    """Where the token says that a list of `prefix` goes on. O(len(token)).

    `start` always begins with the prefix: no token reaches outside. Raises BadRequest, with the
    API server's words where it has some.
    """
    members = _members(token)
    if members["v"] != VERSION:
        _refuse(f"{INVALID}: server does not recognize this encoded version {members['v']}")
    revision, start = members["rv"], members["start"]
    if revision == 0:
        _refuse(f"{INVALID}: incorrect encoded start resourceVersion (version {VERSION})")
    if not start:
        _refuse(f"{INVALID}: encoded start key empty (version {VERSION})")
    assert isinstance(start, str)
    assert isinstance(revision, int)
    path = start if start.startswith("/") else "/" + start
    if not _is_clean(path):
        # Upstream defends against "../" by this rule: it also refuses "a//b" and "a/".
        _refuse(f"{INVALID}: {start}")
    return Position(prefix + path[1:].encode(), revision)


def expired(revision: int, oldest: int, start: bytes | None, prefix: bytes) -> Compacted:
    """The 410 of a list at `revision`, in the words that etcd's store has upstream.

    `start` is where a continued list was, None for a list without a token. For a continued one the
    error carries a token that goes on there, at the newest revision: the client may choose
    an inconsistent list over a new one.
    """
    if start is None:
        return Compacted(revision, oldest, message=EXPIRED)
    try:
        token = encode(start, prefix, LATEST)
    except BadRequest:
        return Compacted(revision, oldest, message=CONTINUE_EXPIRED)
    return Compacted(revision, oldest, message=INCONSISTENT_CONTINUE, continue_token=token)


def _members(token: str) -> dict[str, str | int]:
    """The three members, as Go's decoder reads them into a struct: names without regard to case,
    the last one counts, null changes nothing, others are ignored."""
    if len(token) > TOKEN_CHARS_MAX:
        _refuse(f"{INVALID}: longer than {TOKEN_CHARS_MAX} characters")
    members: dict[str, str | int] = {"v": "", "rv": 0, "start": ""}
    try:
        # Bytes that aren't UTF-8 and lone surrogates become U+FFFD, as in Go.
        text = _raw(token).decode("utf-8", "replace")
        document = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except RecursionError:
        _refuse(f"{INVALID}: exceeded max depth")
    except ValueError as error:
        _refuse(f"{INVALID}: {error}")
    if document is None:
        return members
    if not isinstance(document, _Pairs):
        _refuse(f"{INVALID}: not a JSON object")
    for name, value in document:
        known = name.casefold()
        if known not in members or value is None:
            continue
        if type(value) is not type(members[known]):
            _refuse(f"{INVALID}: member {known} has the wrong type")
        if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
            _refuse(f"{INVALID}: member {known} is out of range")
        assert isinstance(value, str | int)
        members[known] = _SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value
    return members


class _Pairs(tuple[tuple[str, object], ...]):
    """A JSON object with its members in order, repeated ones too."""

    __slots__ = ()


def _raw(token: str) -> bytes:
    """The decoded bytes. Line breaks are skipped, as Go does. Raises ValueError."""
    match = _ALPHABET.match(token)
    assert match
    at = match.end()
    chars = token.replace("\r", "").replace("\n", "")
    if at < len(token) or len(chars) % 4 == 1:
        bad = len(token[:at].encode()) if at < len(token) else len(token) - 1
        raise ValueError(f"illegal base64 data at input byte {bad}")
    try:
        return base64.urlsafe_b64decode(chars + "=" * (-len(chars) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _is_clean(path: str) -> bool:
    """Whether Go's path.Clean leaves a path that begins with "/" as it is."""
    return path == "/" or not {"", ".", ".."}.intersection(path[1:].split("/"))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"invalid character in literal {name}")


def _refuse(reason: str) -> NoReturn:
    raise BadRequest(f"invalid continue token: {reason}")
