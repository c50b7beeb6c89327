"""What only a server refuses: a path, a host, a form that it doesn't have."""

from __future__ import annotations

from collections.abc import Iterable

from btreecache.errors import BtreecacheError, NotFound


class UnknownPath(NotFound):
    """There is nothing at this path, whatever objects there are."""

    def __init__(self) -> None:
        super().__init__("path", "")

    def message(self) -> str:
        return "the server could not find the requested resource"

    def details(self) -> dict[str, object]:
        return {}


class Forbidden(BtreecacheError):
    """The request came by a name that isn't this machine's own."""

    status = 403
    reason = "Forbidden"


class NotAcceptable(BtreecacheError):
    """What was asked for exists, but not in a form that the client takes or that we can make."""

    status = 406
    reason = "NotAcceptable"


def only_accepted(media_types: Iterable[str]) -> NotAcceptable:
    """As an API server says it when nothing in an Accept header is any of its media types."""
    listed = ", ".join(media_types)
    return NotAcceptable(f"only the following media types are accepted: {listed}")
