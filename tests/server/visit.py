"""One request to an ASGI application without a server, for what a real connection can't do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from starlette.types import ASGIApp


class Visit(NamedTuple):
    """What came of it. `left`: the client went before the answer was complete."""

    messages: list[dict[str, Any]]
    left: bool

    @property
    def status(self) -> int | None:
        return next((one["status"] for one in self.messages if "status" in one), None)

    @property
    def body(self) -> bytes:
        return b"".join(one.get("body", b"") for one in self.messages)


async def visit(
    app: ASGIApp,
    path: str,
    query: bytes = b"",
    *,
    method: str = "GET",
    headers: Iterable[tuple[bytes, bytes]] = (),
    leave_after_s: float = 10.0,
    end_within_s: float = 2.0,
    **more: object,
) -> Visit:
    """Ask, and go away after a time; then the application has to return soon. `more` goes into the
    scope."""
    gone = asyncio.Event()
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": path,
        "query_string": query, "headers": [*headers], "server": ("127.0.0.1", 80),
        "scheme": "http", "root_path": "", **more,
    }  # fmt: skip
    task = asyncio.ensure_future(app(scope, receive, send))
    await asyncio.wait({task}, timeout=leave_after_s)
    left = not task.done()
    gone.set()
    await asyncio.wait_for(task, end_within_s)
    return Visit(sent, left)
