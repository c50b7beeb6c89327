"""Requests and answers: the ASGI application.

Objects are answered in the form that the client takes (encoding/), errors are Status objects in
JSON. Reads and watches run on the event loop; what has to wait, waits without a thread of its own,
and ends when the client goes.
Who may ask has been decided before (access).
"""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from importlib.metadata import version as version_of

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from btreecache.encoding.answer import Answers, form_of, is_streamed
from btreecache.encoding.body import Body
from btreecache.encoding.deflate import should_compress
from btreecache.encoding.go_json import json_bytes
from btreecache.encoding.kept import COMPRESSED, LEAST_BYTES, KeptLists, compressed
from btreecache.encoding.media import (
    DISCOVERY,
    DOCUMENTS,
    TEXTS,
    MediaType,
    Offer,
    for_people,
    negotiate,
    offer,
)
from btreecache.encoding.table import parse_include_object
from btreecache.encoding.values import Values
from btreecache.errors import BtreecacheError, MethodNotAllowed, quoted
from btreecache.options import GetOptions, ListOptions, WatchOptions, wants_watch
from btreecache.reads import ListPage
from btreecache.server import discovery, health
from btreecache.server.access import Access, Entrance
from btreecache.server.bounded import Bounded
from btreecache.server.caches import Caches, ResourceCache, is_typed
from btreecache.server.counts import RequestCounts
from btreecache.server.debug import Debug
from btreecache.server.definitions import Definitions
from btreecache.server.documents import Documents, tagged, written
from btreecache.server.failures import failure
from btreecache.server.metrics import Exposition
from btreecache.server.observed import Observed
from btreecache.server.openapi import path_of
from btreecache.server.overload import Overload, client_of, weight_of
from btreecache.server.refusals import Forbidden
from btreecache.server.request_log import RequestLog
from btreecache.server.routing import (
    HEALTH,
    Check,
    Group,
    GroupVersion,
    Objects,
    OpenApi,
    Page,
    Target,
    route,
)
from btreecache.server.sending import HEADERS, Gone, WatchResponse, sent, unless_gone

log = logging.getLogger(__name__)

#: Objects of a list above which it is begun in a thread: all may have to be looked at or converted
#: for that, and the loop has others to serve.
MADE_ON_LOOP_MAX = 200

#: Threads for calls to the source, and for one wait in each cache that somebody waits for. A call
#: that hangs holds one until its timeout.
THREADS = 128

#: Our own version.
BUILD = version_of("btreecache")

READ_ONLY = "this server is read-only: method not allowed"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def application(
    caches: Caches,
    entrance: Entrance | None = None,
    overload: Overload | None = None,
    request_log: RequestLog | None = None,
) -> ASGIApp:
    """The application over caches, from the outside in: counting, limits, access, answers, which
    take turns. Its lifespan begins the caches that were named at the start, and ends all of them.
    `entrance`: how it is to be reached, by default as on loopback."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        threads = ThreadPoolExecutor(THREADS, "btreecache-server")
        asyncio.get_running_loop().set_default_executor(threads)
        caches.start()
        following = asyncio.ensure_future(Definitions(caches).run())
        try:
            yield
        finally:
            caches.stop()
            await following
            await asyncio.to_thread(caches.close)

    counts = RequestCounts()
    entrance, overload = entrance or Entrance(), overload or Overload()
    # What it tells of the server is for those who run it, not for who happens to reach it.
    shown = entrance.is_local or entrance.authenticates
    answers = Application(
        caches, overload=overload, metrics=Exposition(caches, counts, overload).text,
        debug=Debug(caches, counts, overload).answer if shown else None,
    )  # fmt: skip
    bounded = Bounded(Access(answers, entrance))
    observed = Observed(bounded, lambda: caches.resources, counts, request_log or RequestLog())
    return Router(default=observed, lifespan=lifespan, redirect_slashes=False)


class Application:
    """Answers HTTP requests from caches. On one event loop.

    wall_s     the time of day in seconds since 1970, which ages in tables are counted to
    overload   how much of what is expensive is done at a time
    metrics    what `/metrics` answers to an Accept header: body and content type; in any thread
    debug      what `/debug` answers to its parameter `output`; in any thread. None: it is hidden
    """

    def __init__(
        self,
        caches: Caches,
        wall_s: Callable[[], float] = time.time,
        overload: Overload | None = None,
        *,
        metrics: Callable[[str], tuple[bytes, str]],
        debug: Callable[[str], Response] | None = None,
    ) -> None:
        self._caches = caches
        self._overload = overload or Overload()
        self._metrics = metrics
        self._debug = debug
        self._wall_s = wall_s
        self._values = Values()
        self._documents = Documents(caches.resources, BUILD)
        machine = platform.machine()
        where = f"{platform.system().lower()}/{_ARCHITECTURES.get(machine, machine)}"
        self._version = json_bytes(discovery.version(BUILD, where), indent=2)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        with ExitStack() as held:  # what the answer takes of the server, until it is sent
            try:
                response = await self._answer(request, held)
            except BtreecacheError as error:
                response = failure(error, request)
            except Gone:
                return
            except Exception as error:
                log.exception("path=%s", quoted(scope["path"]))
                response = failure(error, request)
            await response(scope, receive, send)

    async def _answer(self, request: Request, held: ExitStack) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(READ_ONLY)
        target = route(request.scope["path"], self._caches.resources)
        if isinstance(target, Check) or (isinstance(target, Page) and target in HEALTH):
            return self._health(target, request)
        if request.method == "HEAD":
            raise MethodNotAllowed(READ_ONLY)
        if target is Page.VERSION:
            return _json(self._version)
        if target is Page.METRICS:
            accept = request.headers.get("accept", "")
            body, content_type = await asyncio.to_thread(self._metrics, accept)
            return Response(body, headers=HEADERS | {"Content-Type": content_type})
        if target is Page.DEBUG:
            if self._debug is None:
                raise Forbidden("/debug is shown on loopback, or to who is known")
            return await asyncio.to_thread(self._debug, request.query_params.get("output", ""))
        if target is Page.OPENAPI_V3 or isinstance(target, OpenApi):
            return await self._openapi(request, target)
        if isinstance(target, Objects):
            return await self._objects(request, target, held)
        if target is Page.ROOT:  # It has no kind: JSON, whatever is asked for, as upstream.
            return _document(self._described(target, request), MediaType(pretty=True))
        media = _media(request, DISCOVERY if target in (Page.API, Page.APIS) else DOCUMENTS)
        if media.as_:
            text = self._about().aggregated(media, core=target is Page.API)
            return tagged(text, media, request.headers.get("if-none-match"))
        return _document(self._described(target, request), media)

    async def _openapi(self, request: Request, target: Page | OpenApi) -> Response:
        """The index, or a document: by its hash, it may be kept for ever."""
        media, about = _media(request, TEXTS), self._about()
        has = request.headers.get("if-none-match")
        media = replace(media, pretty=False)
        if isinstance(target, Page):
            return tagged(await asyncio.to_thread(about.openapi_index), media, has)
        text = await asyncio.to_thread(about.openapi, target.group, target.version)
        asked = request.query_params.get("hash")
        if asked and asked != text.tag:
            url = f"/openapi/v3/{path_of(target.group, target.version)}?hash={text.tag}"
            return Response(None, 301, HEADERS | {"Location": url})
        return tagged(text, media, has, hashed=bool(asked))

    def _about(self) -> Documents:
        """The documents of the resources that there are now."""
        if self._documents.resources is not self._caches.resources:
            self._documents = Documents(self._caches.resources, BUILD, self._documents)
        return self._documents

    def _described(self, target: Target, request: Request) -> discovery.Document:
        resources = self._caches.resources
        match target:
            case Page.API:
                return discovery.api_versions(resources, _address(request.scope))
            case Page.APIS:
                return discovery.api_group_list(resources)
            case Group(group=group):
                return discovery.api_group(resources, group)
            case GroupVersion(group=group, version=version):
                return discovery.api_resource_list(resources, group, version)
        return discovery.paths(resources)

    def _health(self, target: Page | Check, request: Request) -> Response:
        """`/livez`: this answers. `/readyz`, `/healthz`: so does every cache asked for at start."""
        page = target.page if isinstance(target, Check) else target
        checks = {health.PING: ""}
        if page is not Page.LIVEZ:
            checks |= self._caches.readiness()
        if isinstance(target, Check):
            return health.single(checks, target.name)
        query = request.query_params
        excluded, verbose = query.getlist("exclude"), "verbose" in query
        return health.overall(page.value, checks, excluded=excluded, verbose=verbose)

    async def _objects(self, request: Request, target: Objects, held: ExitStack) -> Response:
        query, root = request.query_params.multi_items(), self._caches.root
        watches = not target.name and wants_watch(query)
        typed = is_typed(target.resource)
        media = _media(request, offer(typed=typed, watch=watches))
        included = request.query_params.get("includeObject", "") if media.as_ == "Table" else ""
        answers = Answers(
            form_of(target.resource, target.version, media, self._values, typed=typed),
            media,
            self._wall_s,
            parse_include_object(included),
        )
        if target.name:
            get_options = GetOptions.from_query(query)
            cache = await self._cache(request, target)
            key = target.key(root)
            answer = await unless_gone(request, cache.get(key, get_options))
            body = answers.object(answer.element)
            if _compresses(request, body):
                body = await asyncio.to_thread(lambda: compressed(body).collected())
                return sent(body, media, COMPRESSED)
            return sent(body, media)
        prefix = target.prefix(root)
        if watches:
            watch_options = WatchOptions.from_query(query)
            held.callback(self._overload.watch(client_of(request)))
            cache = await self._cache(request, target)
            stream = await unless_gone(request, cache.watch(watch_options, prefix))
            return WatchResponse(stream, answers, cache.frames_of(target.version))
        list_options = ListOptions.from_query(query)
        cache = await self._cache(request, target)
        weight = weight_of(list_options, prefix, cache.newest)
        if not weight.is_cheap:
            turn = self._overload.turn(client_of(request), weight.bytes)
            held.callback(turn.leave)
            await unless_gone(request, turn.come())
        page = await unless_gone(request, cache.list(list_options, prefix))
        return await unless_gone(request, self._listed(request, answers, cache, page))

    async def _listed(
        self, request: Request, answers: Answers, cache: ResourceCache, page: ListPage
    ) -> Response:
        """A list as it goes out. What takes more than a moment is made in a thread."""
        kept = cache.kept
        if len(page.elements) > MADE_ON_LOOP_MAX:
            body = await asyncio.to_thread(_list, kept, answers, page)
        else:
            body = _list(kept, answers, page)
        headers: dict[str, str] = {}
        if _compresses(request, body):
            headers = COMPRESSED
            body = await asyncio.to_thread(_compressed_list, kept, answers, page, body)
        if not is_streamed(answers.media, self._caches.features):
            body = await asyncio.to_thread(body.collected)
        return sent(body, answers.media, headers)

    async def _cache(self, request: Request, target: Objects) -> ResourceCache:
        """The resource's cache; one that has just begun may take a moment."""
        cache = self._caches.of(target.resource)
        if not cache.filled:
            await unless_gone(request, cache.first_list())
        return cache


def _media(request: Request, offered: Offer) -> MediaType:
    """The form of the answer. Raises NotAcceptable."""
    headers = request.headers
    # Several headers of that name are one list (RFC 9110).
    media = negotiate(",".join(headers.getlist("accept")), offered)
    if offered.watch:
        return media
    return for_people(media, request.query_params.get("pretty"), headers.get("user-agent"))


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, HEADERS | (headers or {}), MediaType().content_type())


def _document(
    document: discovery.Document,
    media: MediaType,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """A document that is made here."""
    body = written(document, media)
    return Response(body, status, HEADERS | (headers or {}), media.content_type())


def _compresses(request: Request, body: Body) -> bool:
    """Whether an answer is compressed: the client takes gzip, and it is long."""
    accepted = request.headers.get("accept-encoding")
    return should_compress(accepted) and body.exceeds(LEAST_BYTES)


def _list(kept: KeptLists, answers: Answers, page: ListPage) -> Body:
    return answers.page(page.elements, page.meta, kept.items_bytes(answers, page))


def _compressed_list(kept: KeptLists, answers: Answers, page: ListPage, body: Body) -> Body:
    found = kept.compressed(answers, page)
    if found is None:
        return compressed(body)
    body.close()
    return found


def _address(scope: Scope) -> str:
    host, port = scope.get("server") or ("127.0.0.1", None)
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown
