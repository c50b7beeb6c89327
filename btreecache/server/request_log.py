"""The request log: a line for each request that is over, or for those only that took long."""

from __future__ import annotations

import logging

from starlette.types import Scope

from btreecache.logs import say
from btreecache.server.counts import Finished

log = logging.getLogger(__name__)

#: Seconds from which on a request is logged in any case, watches left out.
SLOW_S = 1.0


class RequestLog:
    """Called with each request that is over. What a client wrote is cut and quoted (logs.say).

    every   log all of them, not only slow ones
    """

    def __init__(self, *, every: bool = False, slow_s: float = SLOW_S) -> None:
        self._every = every
        self._slow_s = slow_s

    def __call__(self, scope: Scope, finished: Finished) -> None:
        asked = finished.asked
        is_slow = finished.seconds > self._slow_s and not asked.lasts
        if not (self._every or is_slow):
            return
        query = scope["query_string"].decode("latin-1")
        agent = dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")
        say(
            log, logging.WARNING if is_slow else logging.INFO, "request",
            method=scope["method"],
            uri=f"{scope['path']}?{query}" if query else scope["path"],
            verb=asked.verb,
            group=asked.group,
            resource=asked.resource,
            user=getattr(scope.get("user"), "name", ""),
            client=str((scope.get("client") or [""])[0]),
            agent=agent,
            code=finished.code,
            bytes=finished.size,
            seconds=finished.seconds,
            whole=finished.whole,
        )  # fmt: skip
