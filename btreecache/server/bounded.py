"""Bounded: requests that are larger than any that can be meant are refused before they are looked
at. Below that h11 collects 64 KiB of a request whose line and headers don't end."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from btreecache.errors import BtreecacheError
from btreecache.server.failures import failure

#: Of a request, which nothing here reads (upstream: 3 MiB).
BODY_BYTES = 3 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Of one request.

    url_bytes     path and query
    headers       how many
    header_bytes  of all of them
    body_bytes    that it says it has
    """

    url_bytes: int = 32 << 10
    headers: int = 128
    header_bytes: int = 64 << 10
    body_bytes: int = BODY_BYTES


class RequestTooLarge(BtreecacheError):
    """The body of a request is too large."""

    status = 413
    reason = "RequestEntityTooLarge"


class UrlTooLong(BtreecacheError):
    """The path and query of a request are too long."""

    status = 414
    reason = "BadRequest"


class HeadersTooLarge(BtreecacheError):
    """A request has too many headers, or too large ones."""

    status = 431
    reason = "BadRequest"


class Bounded:
    """The layer in front of everything that reads a request."""

    def __init__(self, app: ASGIApp, limits: RequestLimits | None = None) -> None:
        self._app = app
        self._limits = limits or RequestLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refused(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        # What is too large isn't parsed for how an error may look, and what comes isn't read.
        plain = {**scope, "headers": [], "query_string": b""}
        response = failure(error, Request(plain, receive))
        response.headers["Connection"] = "close"
        await response(scope, receive, send)

    def _refused(self, scope: Scope) -> BtreecacheError | None:
        limits, headers = self._limits, scope["headers"]
        url = len(scope["path"]) + len(scope["query_string"])
        if url > limits.url_bytes:
            return UrlTooLong(f"the URL is longer than {limits.url_bytes} bytes")
        if len(headers) > limits.headers:
            return HeadersTooLarge(f"there are more than {limits.headers} headers")
        if sum(len(name) + len(value) for name, value in headers) > limits.header_bytes:
            return HeadersTooLarge(f"the headers are larger than {limits.header_bytes} bytes")
        length = next((value for name, value in headers if name == b"content-length"), b"0")
        if length.isdigit() and int(length[:20]) > limits.body_bytes:
            return RequestTooLarge(f"Request entity too large: limit is {limits.body_bytes}")
        return None
