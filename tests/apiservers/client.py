"""An HTTP client of an API server that counts what it asks, and its watches."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import httpx

from tests.apiservers.record import Object, revision_of

TIMEOUT_S = 60.0


class Expired(Exception):
    """410: the revision or the token is too old. `status` is the server's answer."""

    def __init__(self, status: Object) -> None:
        super().__init__(status.get("message"))
        self.status = status


class Api:
    """One server. `asked` counts answers by verb and code; `events` those of watches by type."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(
            base_url=url, verify=context, timeout=TIMEOUT_S, limits=limits
        )
        self.asked: Counter[str] = Counter()
        self.events: Counter[str] = Counter()

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def ask(
        self, verb: str, path: str, body: Object | None = None, **params: Any
    ) -> tuple[int, Object]:
        """Code and body of an answer. Verb "merge" is a PATCH that merges."""
        headers = {"Content-Type": "application/json"}
        if verb == "merge":
            headers["Content-Type"] = "application/merge-patch+json"
        answer = await self._http.request(
            "PATCH" if verb == "merge" else verb.upper(),
            path,
            content=json.dumps(body) if body is not None else None,
            headers=headers,
            params=params,
        )
        self.asked[f"{verb} {answer.status_code}"] += 1
        if answer.headers.get("content-type") != "application/json":  # As for an unknown path.
            return answer.status_code, {"message": answer.text}
        return answer.status_code, answer.json()

    @asynccontextmanager
    async def watch(self, path: str, **params: Any) -> AsyncIterator[Watch]:
        """A running watch."""
        watch = Watch(self, path, params)
        task = asyncio.create_task(watch.run(self._http))
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Watch:
    """The events of a watch so far. `ended`: None while it runs, then why it is over."""

    def __init__(self, api: Api, path: str, params: dict[str, Any]) -> None:
        self._api = api
        self._path = path
        self._params = {"watch": "true", **params}
        self._changed = asyncio.Condition()
        self.events: list[Object] = []
        self.ended: str | Expired | None = None

    async def run(self, http: httpx.AsyncClient) -> None:
        try:
            await self._read(http)
            await self._end("closed")
        except Expired as expired:
            await self._end(expired)
        except (httpx.HTTPError, ValueError) as error:
            await self._end(repr(error))

    async def _read(self, http: httpx.AsyncClient) -> None:
        async with http.stream("GET", self._path, params=self._params) as answer:
            self._api.asked[f"watch {answer.status_code}"] += 1
            if answer.status_code != 200:
                status = json.loads(await answer.aread())
                raise Expired(status) if answer.status_code == 410 else ValueError(status)
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise Expired(status) if status.get("code") == 410 else ValueError(status)
                self._api.events[event["type"]] += 1
                async with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()

    async def _end(self, why: str | Expired) -> None:
        async with self._changed:
            self.ended = why
            self._changed.notify_all()

    @property
    def revision(self) -> int:
        """Of the last event or bookmark, 0 before the first."""
        return revision_of(self.events[-1]["object"]) if self.events else 0

    async def reach(self, revision: int, timeout_s: float = TIMEOUT_S) -> bool:
        """Wait until it has come so far; False if it ended before, or not in time."""
        return await self._wait(lambda: self.revision >= revision, timeout_s)

    async def end(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Wait until it is over."""
        return await self._wait(lambda: self.ended is not None, timeout_s)

    async def initial(self, timeout_s: float = TIMEOUT_S) -> Sequence[Object] | None:
        """What came before the mark that ends the initial events, None if that didn't come."""
        if not await self._wait(lambda: self._mark() is not None, timeout_s):
            return None
        return self.events[: self._mark()]

    def _mark(self) -> int | None:
        for index, event in enumerate(self.events):
            notes = event["object"]["metadata"].get("annotations", {})
            if event["type"] == "BOOKMARK" and notes.get("k8s.io/initial-events-end") == "true":
                return index
        return None

    async def _wait(self, condition: Any, timeout_s: float) -> bool:
        async with self._changed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait_for(lambda: condition() or self.ended is not None)
            except TimeoutError:
                return False
        return bool(condition())
