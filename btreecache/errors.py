"""Every exception that btreecache raises: when, with which HTTP status and Kubernetes reason.

The HTTP statuses and reasons are those of the Kubernetes API (apimachinery `metav1.StatusReason`),
and `status` makes the Status object that a server answers with. `str(error)` is for people;
`error.message()` is the Status message, which upstream sometimes begins with words of its own.
Programmer errors are plain `assert`s or `TypeError`s, never one of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

#: Seconds that a client is told to wait before it asks again for a revision ahead of us.
FUTURE_RETRY_AFTER_S = 1

#: Bounds of the Retry-After of a cache that isn't ready, and how fast it grows with the downtime
#: (upstream: exp(0.06 * seconds), between 1 and 30).
RETRY_AFTER_S_MIN, RETRY_AFTER_S_MAX, RETRY_AFTER_GROWTH = 1, 30, 0.06

#: The cause that clients look for to tell a revision ahead from any other timeout.
TOO_LARGE = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}


class BtreecacheError(Exception):
    """Root of every exception of this package.

    retry_after_s    seconds after which to try again, for the Retry-After header; 0: not said
    continue_token   a token to go on with in spite of the error; "": none
    """

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"
    retry_after_s: int = 0
    continue_token: str = ""

    def message(self) -> str:
        """The text of the Status object."""
        return f"Internal error occurred: {self}" if self.status == 500 else str(self)

    def details(self) -> dict[str, object]:
        """Name, group, kind and causes of the Status object, in the order of the wire; may be
        empty. `retryAfterSeconds` is added from `retry_after_s`."""
        return {"causes": [{"message": str(self)}]} if self.status == 500 else {}


class BadRequest(BtreecacheError):
    """An argument that can't be meant: a malformed option, a key put twice in one transaction."""

    status = 400
    reason = "BadRequest"


class NotFound(BtreecacheError):
    """There is no object of that name."""

    status = 404
    reason = "NotFound"

    def __init__(self, resource: str, name: str, group: str = "") -> None:
        super().__init__(f"{_dotted(resource, group)} {quoted(name)} not found")
        self.resource, self.name, self.group = resource, name, group

    def details(self) -> dict[str, object]:
        return _filled(name=self.name, group=self.group, kind=self.resource)


class MethodNotAllowed(BtreecacheError):
    """The request would change something, or asks for what this server never does."""

    status = 405
    reason = "MethodNotAllowed"


class Conflict(BtreecacheError):
    """A write expected a key at one revision and found it at another; nothing was written."""

    status = 409
    reason = "Conflict"

    def __init__(self, key: bytes, expected: int, found: int) -> None:
        super().__init__(f"key {key!r}: expected mod_revision {expected}, found {found}")
        self.key, self.expected, self.found = key, expected, found


class Compacted(BtreecacheError):
    """The revision is no longer retained: older than the window, or compacted by the source.

    `oldest` is the lowest revision that can still be read, or 0 where it isn't known. `message` is
    said instead of the two; `continue_token` continues the list that broke off, at the newest
    revision (`continue_token.expired`).
    """

    status = 410
    reason = "Expired"

    def __init__(
        self, revision: int, oldest: int = 0, *, message: str = "", continue_token: str = ""
    ) -> None:
        super().__init__(message or f"too old resource version: {revision} ({oldest})")
        self.revision, self.oldest, self.continue_token = revision, oldest, continue_token


class ArchiveError(BtreecacheError):
    """The archive can't be opened, read or written, or isn't one."""


class Invalid(BtreecacheError):
    """Options that can't be combined, each named with its field; all of them at once."""

    status = 422
    reason = "Invalid"

    def __init__(
        self,
        errors: Iterable[FieldError],
        kind: str = "ListOptions",
        group: str = "meta.k8s.io",
        name: str = "",
    ) -> None:
        self.errors = tuple(errors)
        self.kind, self.group, self.name = kind, group, name
        said = list(dict.fromkeys(map(str, self.errors)))
        what = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
        super().__init__(f"{_dotted(kind, group)} {quoted(name)} is invalid: {what}")

    def details(self) -> dict[str, object]:
        causes = [
            {"reason": error.cause, "message": error.body, "field": error.field}
            for error in self.errors
        ]
        return _filled(name=self.name, group=self.group, kind=self.kind) | {"causes": causes}


class NotReady(BtreecacheError):
    """The cache has no state that may be served: never filled, or resynchronising.

    `downtime_s` is how long that has been so: it makes `retry_after_s`.
    """

    status = 429
    reason = "TooManyRequests"

    def __init__(self, message: str, downtime_s: float = 0.0) -> None:
        super().__init__(message)
        self.downtime_s = downtime_s
        self.retry_after_s = retry_after_s(downtime_s)


class Unavailable(BtreecacheError):
    """The source can't be reached, or broke the connection. Trying again may help."""

    status = 503
    reason = "ServiceUnavailable"


class FutureRevision(BtreecacheError):
    """The revision is ahead of everything known here, after any wait that was asked for.

    `retry_after_s` is 0 where the source itself said so: it knows, and waiting doesn't help.
    """

    status = 504
    reason = "Timeout"

    def __init__(
        self, revision: int, current: int, *, retry_after_s: int = FUTURE_RETRY_AFTER_S
    ) -> None:
        super().__init__(f"Too large resource version: {revision}, current: {current}")
        self.revision, self.current, self.retry_after_s = revision, current, retry_after_s

    def message(self) -> str:
        return f"Timeout: {self}"

    def details(self) -> dict[str, object]:
        return {"causes": [dict(TOO_LARGE)]}


class SourceError(BtreecacheError):
    """The source answered what no retry will change: a refused credential, an unknown method."""


class Unsupported(BtreecacheError):
    """The source's version can't do safely what the request needs; the text is said unchanged."""

    def message(self) -> str:
        return str(self)

    def details(self) -> dict[str, object]:
        return {}


class MissingExtra(BtreecacheError):
    """A part that needs an optional dependency was used without it."""

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(f"{module} is not installed: pip install 'btreecache[{extra}]'")
        self.extra, self.module = extra, module


class FeedFault(BtreecacheError):
    """The feed broke the Source contract, so some snapshots can't be trusted.

    kind      what was seen, a short fixed name (`revision_repeated`, `version_gap`, ...)
    revision  the revision at which it was detected
    key       the key that proves it, or None where the order of revisions does
    good      the last revision that it can't have touched; every snapshot after it is suspect
    """

    def __init__(self, kind: str, revision: int, good: int, key: bytes | None, detail: str) -> None:
        super().__init__(f"{kind} at revision {revision}: {detail}")
        self.kind, self.revision, self.good, self.key, self.detail = (
            kind, revision, good, key, detail,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field: `cause` as in a Status, `body` the text without the field."""

    field: str
    cause: str
    body: str

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"

    @classmethod
    def forbidden(cls, field: str, detail: str) -> FieldError:
        """The field may not be set in this combination."""
        return cls(field, "FieldValueForbidden", f"Forbidden: {detail}")

    @classmethod
    def invalid(cls, field: str, value: str, detail: str) -> FieldError:
        """The value is malformed."""
        return cls(field, "FieldValueInvalid", f"Invalid value: {quoted(value)}: {detail}")

    @classmethod
    def unsupported(cls, field: str, value: str, supported: Iterable[str]) -> FieldError:
        """The value is none of `supported`."""
        values = ", ".join(map(quoted, supported))
        body = f"Unsupported value: {quoted(value)}: supported values: {values}"
        return cls(field, "FieldValueNotSupported", body)


def status(error: BaseException) -> dict[str, object]:
    """The Kubernetes Status object for an error, members in the order of the wire.

    An exception that isn't ours says only its type: what it holds isn't meant for clients.
    """
    if not isinstance(error, BtreecacheError):
        error = BtreecacheError(f"unexpected {type(error).__name__}")
    details = error.details()
    if error.retry_after_s:
        details["retryAfterSeconds"] = error.retry_after_s
    answer: dict[str, object] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {"continue": error.continue_token} if error.continue_token else {},
        "status": "Failure",
        "message": error.message(),
        "reason": error.reason,
    }
    if details:
        answer["details"] = details
    return answer | {"code": error.status}


def retry_after_s(downtime_s: float) -> int:
    """Seconds to tell the clients of a cache that has been down for so long."""
    # The exponent is cut off first: exp overflows after three hours.
    exponent = min(RETRY_AFTER_GROWTH * max(downtime_s, 0.0), math.log(RETRY_AFTER_S_MAX) + 1)
    return int(min(RETRY_AFTER_S_MAX, max(RETRY_AFTER_S_MIN, math.exp(exponent))))


#: What Go's strconv.Quote writes for the characters that have an escape of their own.
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n",
            "\r": "\\r", "\t": "\\t", "\v": "\\v"}  # fmt: skip


def quoted(text: str) -> str:
    """The text as a Go string literal, which is how API servers quote (strconv.Quote).

    A byte that was no UTF-8 (a lone surrogate, as `surrogateescape` makes them) becomes \\xNN, and
    so do the three of any other lone surrogate. O(length).
    """
    return f'"{text}"' if _PLAIN.fullmatch(text) else f'"{text.translate(_Escapes())}"'


#: Text that is quoted as it is.
_PLAIN = re.compile(r"[ !#-\[\]-~]*")


class _Escapes(dict[int, str]):
    """What each character that was met is written as: hostile text repeats itself."""

    def __missing__(self, code: int) -> str:
        self[code] = made = _escaped(chr(code))
        return made


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    if 0xD800 <= code <= 0xDFFF:
        kept = 0xDC80 <= code <= 0xDCFF
        raw = char.encode("utf-8", "surrogateescape" if kept else "surrogatepass")
        return "".join(f"\\x{byte:02x}" for byte in raw)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _dotted(name: str, group: str) -> str:
    return f"{name}.{group}" if group else name


def _filled(**members: str) -> dict[str, object]:
    return {name: value for name, value in members.items() if value}
