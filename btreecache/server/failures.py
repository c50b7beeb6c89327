"""Failures: an error as the answer to a request."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from btreecache.encoding.media import DOCUMENTS, MediaType, for_people, negotiate
from btreecache.encoding.refusals import NotAcceptable
from btreecache.errors import BtreecacheError, MethodNotAllowed
from btreecache.server.documents import written
from btreecache.server.refusals import status_of
from btreecache.server.sending import HEADERS


def failure(error: BaseException, request: Request) -> Response:
    """The Status of an error: in the client's form, or JSON if it takes none of those."""
    headers = {}
    if isinstance(error, BtreecacheError) and error.retry_after_s:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = "GET"
    body = status_of(error)
    code = body["code"]
    assert isinstance(code, int)
    try:
        media = negotiate(",".join(request.headers.getlist("accept")), DOCUMENTS)
    except NotAcceptable:
        media = MediaType()
    query, agent = request.query_params.get("pretty"), request.headers.get("user-agent")
    media = for_people(media, query, agent)
    return Response(written(body, media), code, HEADERS | headers, media.content_type())
