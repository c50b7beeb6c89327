"""What only a server refuses: a path, a host; and every error as the Status that is answered."""

from __future__ import annotations

from btreecache.errors import BtreecacheError, NotFound, status


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


def status_of(error: BaseException) -> dict[str, object]:
    """The Status object of an error, as `errors.status`."""
    answer = status(error)
    if isinstance(error, UnknownPath):
        code = answer.pop("code")
        answer |= {"details": {}, "code": code}
    return answer
