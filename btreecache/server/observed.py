"""Observed: an application, and what is told of each of its requests when it is over.

The outermost layer: what the inner ones refuse is seen too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from btreecache.errors import BtreecacheError
from btreecache.options import wants_watch
from btreecache.resources import Resources
from btreecache.server.counts import CLIENT_GONE, Asked, Finished, RequestCounts
from btreecache.server.routing import Objects, route

#: Methods that are counted by their names, as upstream; every other one is "other".
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))


def asked_of(scope: Scope, resources: Resources) -> Asked:
    """What a request is about: of nothing that isn't known. Never raises."""
    method = scope["method"] if scope["method"] in METHODS else "other"
    try:
        target = route(scope["path"], resources)
    except BtreecacheError:
        return Asked(method)
    if not isinstance(target, Objects):
        return Asked(method)
    one = target.resource
    where = "resource" if target.name else "namespace" if target.namespace else "cluster"
    if method == "GET" and not target.name:
        method = "WATCH" if _watches(scope["query_string"]) else "LIST"
    return Asked(method, one.group, target.version, one.plural, where)


def _watches(query: bytes) -> bool:
    if b"watch" not in query:
        return False
    try:
        return wants_watch(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    except (BtreecacheError, ValueError):
        return False


class Observed:
    """An ASGI application around another. On one event loop.

    resources   which there are just now: only they are named
    counts      of all requests
    ended       called with the scope of each request that is over, and what came of it
    now         clock in seconds
    """

    def __init__(
        self,
        app: ASGIApp,
        resources: Callable[[], Resources],
        counts: RequestCounts,
        ended: Callable[[Scope, Finished], object] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._resources = resources
        self._counts = counts
        self._ended = ended
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = asked_of(scope, self._resources())
        code, size, whole, began_s = CLIENT_GONE, 0, False, self._now()

        async def seen(message: Message) -> None:
            nonlocal code, size, whole
            await send(message)
            if message["type"] == "http.response.start":
                code = message["status"]
            else:
                size += len(message.get("body", b""))
                whole = not message.get("more_body", False)

        self._counts.begin(asked)
        try:
            await self._app(scope, receive, seen)
        finally:
            finished = Finished(asked, code, whole, size, self._now() - began_s)
            self._counts.end(finished)
            if self._ended is not None:
                self._ended(scope, finished)
