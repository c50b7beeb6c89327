"""`etcdsim serve` inside a test: a member on a real port, its loop in a thread; and a client."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from etcdsim import wire
from etcdsim.server.faulty import FaultyListening
from etcdsim.server.leasing import expire_leases
from etcdsim.server.listening import Listening, Server
from etcdsim.server.member import VERSION, Handlers
from etcdsim.server.serving import Simulation
from etcdsim.server.watching import WatchHub
from etcdsim.server.wire_faults import WireFaults

TIMEOUT_S = 10.0


class Served:
    """A running member. `do` runs a function on its loop and waits for the result."""

    def __init__(self, version: str = VERSION, progress_notify_interval_s: float = 600.0) -> None:
        self.simulation = Simulation(
            time.monotonic,
            itertools.count(7_000_000).__next__,
            version=version,
            progress_notify_interval_s=progress_notify_interval_s,
        )
        self.member, self.lessor = self.simulation.member, self.simulation.lessor
        self.hub = WatchHub(self.member)
        self.endpoint = ""
        self.loop: asyncio.AbstractEventLoop
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        handlers = {**self.simulation.handlers, wire.WATCH: self.hub.watch}
        self.loop = asyncio.get_running_loop()
        servers = self.servers(handlers)
        for server in servers:
            await server.start("127.0.0.1:0")
        expiry = asyncio.ensure_future(expire_leases(self.lessor, self.simulation.writes))
        self.endpoint = servers[0].endpoint
        self._started.set()
        await self._stop.wait()
        expiry.cancel()
        for server in servers:
            await server.stop(0)

    def servers(self, handlers: Handlers) -> list[Server]:
        """What is served; the first is `endpoint`."""
        return [Listening(self.member, handlers)]

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._started.wait(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def do(self, function: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(TIMEOUT_S)


class FaultyServed(Served):
    """A member with faults before it, and without them at `truth`."""

    def __init__(self, rates: Mapping[str, float], seed: int = 0) -> None:
        super().__init__()
        self.faults = WireFaults(rates, seed)
        self.faulty: FaultyListening
        self._truth: Listening

    def servers(self, handlers: Handlers) -> list[Server]:
        self.faulty = FaultyListening(self.member, self.lessor, handlers, self.faults)
        self._truth = Listening(self.member, self.simulation.handlers)
        return [self.faulty, self._truth]

    @property
    def truth(self) -> str:
        """HOST:PORT"""
        return self._truth.endpoint

    def injected(self) -> dict[str, int]:
        """The faults that struck, and how often."""
        counts: dict[str, int] = self.do(lambda: self.faults.injected)
        return {name: count for name, count in counts.items() if count}


@contextmanager
def client(endpoint: str) -> Iterator[Client]:
    """A client with a connection of its own."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    with grpc.insecure_channel(endpoint, options=options) as channel:
        yield Client(channel)


class Client:
    """Unary calls and streams of any method of the API."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def ask(self, method: wire.Method, **fields: Any) -> Any:
        call = self._channel.unary_unary(
            method.path,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=method.response.FromString,
        )
        return call(method.request(**fields), timeout=TIMEOUT_S, wait_for_ready=True)

    def put(self, key: bytes, value: bytes, **fields: Any) -> int:
        return int(self.ask(wire.PUT, key=key, value=value, **fields).header.revision)

    def delete(self, key: bytes, range_end: bytes = b"") -> int:
        answer = self.ask(wire.DELETE_RANGE, key=key, range_end=range_end)
        return int(answer.header.revision)

    def compact(self, revision: int) -> None:
        self.ask(wire.COMPACT, revision=revision)

    def stream(self, method: wire.Method = wire.WATCH, metadata: Any = None) -> Conversation:
        return Conversation(self._channel, method, metadata)


class Conversation:
    """A stream of requests and one of responses; the responses are read by a thread."""

    def __init__(self, channel: Any, method: wire.Method, metadata: Any = None) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._method = method
        self.call = channel.stream_stream(
            method.path,
            request_serializer=lambda request: (
                request if isinstance(request, bytes) else request.SerializeToString()
            ),
            response_deserializer=method.response.FromString,
        )(iter(self._requests.get, None), metadata=metadata)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for response in self.call:
                self._responses.put(response)
        except grpc.RpcError:
            pass
        self._responses.put(None)

    def send(self, request: Any) -> None:
        self._requests.put(request)

    def half_close(self) -> None:
        self._requests.put(None)

    def create(self, key: bytes, range_end: bytes = b"", **fields: Any) -> None:
        request = wire.WatchCreateRequest(key=key, range_end=range_end, **fields)
        self.send(wire.WatchRequest(create_request=request))

    def cancel_watch(self, watch_id: int) -> None:
        request = wire.WatchCancelRequest(watch_id=watch_id)
        self.send(wire.WatchRequest(cancel_request=request))

    def ask_progress(self) -> None:
        self.send(wire.WatchRequest(progress_request=wire.WatchProgressRequest()))

    def next(self, timeout_s: float = TIMEOUT_S) -> Any:
        """The next response; None at the end of the stream. Raises queue.Empty."""
        return self._responses.get(timeout=timeout_s)

    def poll(self, timeout_s: float) -> Any:
        """The next response, None if none comes in time or any more."""
        try:
            return self._responses.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def nothing(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for a while."""
        return self.poll(seconds) is None

    def end(self) -> tuple[str, str]:
        """Code and text of the end of the stream, which must come now."""
        while self.next() is not None:
            pass
        return self.call.code().name, self.call.details()

    def close(self) -> None:
        self.call.cancel()
        self._requests.put(None)
