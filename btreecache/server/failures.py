"""Failures: an error as the answer to a request."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from btreecache.encoding.media import MediaType, is_pretty
from btreecache.errors import BtreecacheError, MethodNotAllowed
from btreecache.server.documents import written
from btreecache.server.refusals import status_of
from btreecache.server.sending import HEADERS


def failure(error: BaseException, request: Request) -> Response:
    """The Status of an error, in JSON."""
    headers = {}
    if isinstance(error, BtreecacheError) and error.retry_after_s:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = "GET"
    body = status_of(error)
    code = body["code"]
    assert isinstance(code, int)
    query, agent = request.query_params.get("pretty"), request.headers.get("user-agent")
    media = MediaType(pretty=is_pretty(MediaType(), query, agent))
    return Response(written(body, media), code, HEADERS | headers, media.content_type())
