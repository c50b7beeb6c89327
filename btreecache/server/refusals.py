"""What only a server refuses: a path, a host; and every error as the Status that is answered."""

from __future__ import annotations

from btreecache.errors import BtreecacheError, NotFound, quoted, status


class UnknownPath(NotFound):
    """There is nothing at this path, whatever objects there are."""

    def __init__(self) -> None:
        super().__init__("path", "")

    def message(self) -> str:
        return "the server could not find the requested resource"

    def details(self) -> dict[str, object]:
        return {}


class Unauthorized(BtreecacheError):
    """Nobody that is known asks: no credentials, or wrong ones."""

    status = 401
    reason = "Unauthorized"

    def __init__(self) -> None:
        super().__init__("Unauthorized")


class Forbidden(BtreecacheError):
    """The request came by a name that isn't this machine's own."""

    status = 403
    reason = "Forbidden"


class Unreachable(Forbidden):
    """What was asked for isn't shown to that user, in the words of an authorizer. `why` is said at
    the end."""

    def __init__(
        self, user: str, verb: str, resource: str, namespace: str, name: str, why: str
    ) -> None:
        where = f"in the namespace {quoted(namespace)}" if namespace else "at the cluster scope"
        what = f"{resource} {quoted(name)}" if name else resource
        super().__init__(
            f"{what} is forbidden: User {quoted(user)} cannot {verb} resource {quoted(resource)} in"
            f' API group "" {where}: {why}'
        )
        self._resource, self._name = resource, name

    def details(self) -> dict[str, object]:
        named: dict[str, object] = {"name": self._name} if self._name else {}
        return named | {"kind": self._resource}


class TooManyRequests(BtreecacheError):
    """The server is busy with as much as it does at a time."""

    status = 429
    reason = "TooManyRequests"
    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__("Too many requests, please try again later.")


def status_of(error: BaseException) -> dict[str, object]:
    """The Status object of an error, as `errors.status`."""
    answer = status(error)
    if isinstance(error, UnknownPath):
        code = answer.pop("code")
        answer |= {"details": {}, "code": code}
    return answer
