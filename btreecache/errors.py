"""Every exception that btreecache raises: when, with which HTTP status and Kubernetes reason.

The HTTP statuses and reasons are those of the Kubernetes API (apimachinery `metav1.StatusReason`),
so that a server can answer with them unchanged. Programmer errors are plain `assert`s or
`TypeError`s, never one of these.
"""

from __future__ import annotations

from typing import ClassVar


class BtreecacheError(Exception):
    """Root of every exception of this package."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"


class BadRequest(BtreecacheError):
    """An argument that can't be meant: a malformed option, a key put twice in one transaction."""

    status = 400
    reason = "BadRequest"


class Conflict(BtreecacheError):
    """A write expected a key at one revision and found it at another; nothing was written."""

    status = 409
    reason = "Conflict"

    def __init__(self, key: bytes, expected: int, found: int) -> None:
        super().__init__(f"key {key!r}: expected mod_revision {expected}, found {found}")
        self.key, self.expected, self.found = key, expected, found


class Compacted(BtreecacheError):
    """The revision is no longer retained: older than the window, or compacted by the source.

    `oldest` is the lowest revision that can still be read, or 0 where it isn't known.
    """

    status = 410
    reason = "Expired"

    def __init__(self, revision: int, oldest: int = 0) -> None:
        super().__init__(f"too old resource version: {revision} ({oldest})")
        self.revision, self.oldest = revision, oldest


class FutureRevision(BtreecacheError):
    """The revision is ahead of everything known here, after any wait that was asked for."""

    status = 504
    reason = "Timeout"

    def __init__(self, revision: int, current: int) -> None:
        super().__init__(f"Too large resource version: {revision}, current: {current}")
        self.revision, self.current = revision, current


class NotReady(BtreecacheError):
    """The cache has no state that may be served: never filled, or resynchronising."""

    status = 429
    reason = "TooManyRequests"


class Unavailable(BtreecacheError):
    """The source can't be reached, or broke the connection. Trying again may help."""

    status = 503
    reason = "ServiceUnavailable"


class SourceError(BtreecacheError):
    """The source answered what no retry will change: a refused credential, an unknown method."""


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
