"""What clients ask: a relay in front of the server that writes down the head of every request.

`BTREECACHE_UPDATE=1` writes the files in `requests/` anew, a section for each test that ran.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

REQUESTS = Path(__file__).parent / "requests"
TIMEOUT_S = 10.0

#: What is other at every run or with what is served, and what stands for it.
_VARIABLE = (
    (re.compile(r"^/apis/[^/?]+/v\d\w*/?$"), "/apis/GROUP/VERSION"),
    (re.compile(r"(?<=\bresourceVersion=)[1-9]\d*"), "N"),
    (re.compile(r"(?<=\bcontinue=)[^&]+"), "TOKEN"),
    (re.compile(r"(?<=\bhash=)\w+"), "HASH"),
    (re.compile(r"(?<=\btimeoutSeconds=)\d+"), "N"),
    # Go keeps the parts of one in a map, which has no order.
    (re.compile(r"(?<=\bfieldSelector=)[^&]+"), lambda found: _in_order(found[0])),
)
_VERSION = re.compile(r"(?<=/)v?\d+\.[^\s/]*|(?<=kubernetes/)\S+")


def _in_order(selector: str) -> str:
    return "%2C".join(sorted(selector.split("%2C")))


def asked(head: bytes) -> str:
    """The head of a request as one line, without what no two runs have in common."""
    first, *rest = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    for pattern, shown in _VARIABLE:
        target = pattern.sub(shown, target)
    headers = {
        name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)
    }
    agent = _VERSION.sub("*", headers.get("user-agent", ""))
    return f"{method} {target}  Accept: {headers.get('accept', '')}  User-Agent: {agent}"


class Relay:
    """`with` runs it, in a thread of its own. `requests`: what was asked so far, in order.

    url     what clients are to be given
    begun   how many of the requests only made the client ready
    """

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.requests: list[str] = []
        self.begun = 0
        self.url = ""

    def client_is_ready(self) -> None:
        """What it asked until now, it asks in every test."""
        self.begun = len(self.requests)

    def __enter__(self) -> Relay:
        self._thread.start()
        assert self._ready.wait(TIMEOUT_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        relays: set[asyncio.Task[None]] = set()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            relays.add(task)
            try:
                await self._relay(reader, writer)
            finally:
                relays.discard(task)

        async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
            self.url = "http://127.0.0.1:{1}".format(*server.sockets[0].getsockname())
            self._ready.set()
            await self._end.wait()
            for task in [*relays]:
                task.cancel()
            await asyncio.gather(*relays, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, until either side has closed it."""
        back, forth = await asyncio.open_connection(self._server.hostname, self._server.port)
        sides = [
            asyncio.ensure_future(self._requests(reader, forth)),
            asyncio.ensure_future(_copy(back, writer)),
        ]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            forth.close()
            writer.close()

    async def _requests(self, reader: asyncio.StreamReader, forth: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(asked(head))
            length = re.search(rb"(?im)^content-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            forth.write(head + body)
            await forth.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
        await writer.drain()


class Log:
    """The file of a client: for each test, what it asked, each request once."""

    def __init__(self, client: str) -> None:
        self._path = REQUESTS / f"{client}.txt"

    def sections(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                if line.startswith("# "):
                    found[line[2:]] = []
                elif line:
                    found[[*found][-1]].append(line)
        return found

    def check(self, test: str, requests: Sequence[str]) -> None:
        """What a test asked is what it asked before. In the order of arrival in the file, compared
        without it: some clients ask several things at a time."""
        once = [*dict.fromkeys(requests)]
        sections = self.sections()
        same = sorted(once) == sorted(sections.get(test, []))
        if not os.environ.get("BTREECACHE_UPDATE"):
            assert same, f"{self._path.name}: {test} asks {once}"
        elif not same:
            sections[test] = once
            blocks = ("\n".join([f"# {name}", *lines]) for name, lines in sorted(sections.items()))
            self._path.write_text("\n\n".join(blocks) + "\n")
