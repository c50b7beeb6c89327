"""Writes: how what changes a member comes to be done, at once or once it is on disk."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from etcdsim import services, wire
from etcdsim.errors import EtcdError
from etcdsim.server.member import Handlers, Member
from etcdsim.server.messages import writes

#: The methods that write whatever the request; of Txn it depends on that. An Alarm request that
#: only asks goes through the log of a cluster too.
_WRITING = frozenset(
    method.path
    for method in (
        wire.PUT,
        wire.DELETE_RANGE,
        wire.COMPACT,
        services.LEASE_GRANT,
        services.LEASE_REVOKE,
        services.ALARM,
        services.AUTH_ENABLE,
        services.AUTH_DISABLE,
        services.USER_ADD,
        services.USER_DELETE,
        services.USER_CHANGE_PASSWORD,
        services.USER_GRANT_ROLE,
        services.USER_REVOKE_ROLE,
        services.ROLE_ADD,
        services.ROLE_DELETE,
        services.ROLE_GRANT_PERMISSION,
        services.ROLE_REVOKE_PERMISSION,
    )
)


class Writes(Protocol):
    """Takes requests of unary methods that write."""

    def submit(self, method: wire.Method, request: Any) -> asyncio.Future[Any]:
        """Do what a request says, in the order of these calls -> the response, or EtcdError. It is
        done also if nobody waits for it."""


def is_write(method: wire.Method, request: Any) -> bool:
    """Whether a request could change what a member knows."""
    return method.path in _WRITING or (method is wire.TXN and writes(request))


def new_answer() -> asyncio.Future[Any]:
    """A future of the running loop that nobody has to ask for its error."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


class AtOnce:
    """Writes in memory. `appliers`: what does them."""

    def __init__(self, member: Member, appliers: Handlers) -> None:
        self._member, self._appliers = member, appliers

    def submit(self, method: wire.Method, request: Any) -> asyncio.Future[Any]:
        """See Writes; it is done when this returns."""
        answer = new_answer()
        try:
            answer.set_result(apply(self._appliers, method, request))
        except EtcdError as error:
            answer.set_exception(error)
        self._member.tell()
        return answer


def apply(appliers: Handlers, method: wire.Method, request: Any) -> Any:
    """The response to a write. Raises EtcdError."""
    return appliers[method](request)  # type: ignore[call-arg]  # all of them are Unary
