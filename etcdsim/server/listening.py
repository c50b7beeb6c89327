"""The gRPC server: bytes in, bytes out, and the statuses that etcd gives before a handler runs.

One generic handler answers every path, so that unknown methods, messages that are too large and
messages that are none get etcd's own codes and texts instead of those of gRPC's Python server.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import grpc

from etcdsim import wire
from etcdsim.errors import EtcdError
from etcdsim.server.malformed import Malformed, parse
from etcdsim.server.member import REQUEST_BYTES_MAX, Handlers, Member

MESSAGE_BYTES_MAX = REQUEST_BYTES_MAX + 512 * 1024
#: Up to here a message is read to be refused with etcd's text, beyond gRPC refuses it.
READ_BYTES_MAX = 16 * 1024 * 1024
STOP_GRACE_S = 0.2
_UNARY_MALFORMED = "error unmarshalling request"

_OPTIONS = [
    ("grpc.max_receive_message_length", READ_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server
    # gRPC disconnects who pings oftener than every 5 minutes; etcd allows every 5 seconds, and
    # its clients do so when idle.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_concurrent_streams", 0x7FFFFFFF),
]


class _Failure(Exception):
    """A status that isn't one of etcd's own errors."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def _parse(method: wire.Method, data: bytes) -> Any:
    if len(data) > MESSAGE_BYTES_MAX:
        text = f"grpc: received message larger than max ({len(data)} vs. {MESSAGE_BYTES_MAX})"
        raise _Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
    try:
        return parse(method.request, data)
    except Malformed as malformed:
        streams = method.stream or method.answers
        what = "failed to unmarshal the received message" if streams else _UNARY_MALFORMED
        raise _Failure(grpc.StatusCode.INTERNAL, f"grpc: {what}: {malformed}") from None


async def _only_request(method: wire.Method, context: Any) -> Any:
    """The one message of a call that isn't a stream of them; what comes behind it is ignored."""
    data = await context.read()
    if data is not grpc.aio.EOF:
        return _parse(method, data)
    if method.answers:
        text = "cardinality violation: received no request message from non-client-streaming RPC"
        raise _Failure(grpc.StatusCode.INTERNAL, text)
    raise _Failure(grpc.StatusCode.UNKNOWN, "EOF")


class _Stream:
    """`member.Call` over a gRPC call."""

    def __init__(self, method: wire.Method, context: Any, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        self._method, self._context = method, context

    async def read(self) -> Any:
        data = await self._context.read()
        return None if data is grpc.aio.EOF else _parse(self._method, data)

    async def write(self, message: Any) -> None:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        await self._context.write(data)


class _Router(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Finds what answers a path."""

    def __init__(self, member: Member, handlers: Handlers) -> None:
        self._member = member
        self._routes = {method.path: self._route(method, handlers[method]) for method in handlers}
        self._services = {path.split("/")[1] for path in self._routes}
        self._running: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def stop(self, grace_s: float) -> None:
        """End what is under way: callers that read hear that the server stopped."""
        self._stopping = True
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=grace_s)

    def service(self, details: Any) -> Any:
        return self._routes.get(details.method) or self._unknown(details.method)

    def _unknown(self, path: str) -> Any:
        service, slash, name = path.removeprefix("/").rpartition("/")
        if not slash:
            text = f'malformed method name: "{path}"'
        elif service in self._services:
            text = f"unknown method {name} for service {service}"
        else:
            text = f"unknown service {service}"

        async def refuse(context: Any) -> None:
            raise _Failure(grpc.StatusCode.UNIMPLEMENTED, text)

        async def answer(_: Any, context: Any) -> None:
            await self._guarded(refuse, context)

        return grpc.stream_stream_rpc_method_handler(answer)

    def _route(self, method: wire.Method, handler: Any) -> Any:
        # gRPC reads no request itself: it leaves a call without one hanging, without a status.
        if method.stream or method.answers:

            async def converse(_: Any, context: Any) -> None:
                async def run(metadata: dict[str, str]) -> None:
                    call = _Stream(method, context, metadata)
                    if method.stream:
                        await handler(call)
                        return
                    request = await _only_request(method, context)
                    self._member.permit(method, request, metadata)
                    await handler(request, call)

                await self._guarded(run, context)

            return grpc.stream_stream_rpc_method_handler(converse)

        async def ask(_: Any, context: Any) -> bytes:
            async def run(metadata: dict[str, str]) -> bytes:
                request = await _only_request(method, context)
                self._member.permit(method, request, metadata)
                try:
                    response = handler(request)
                finally:
                    self._member.tell()
                if inspect.isawaitable(response):
                    response = await response
                return bytes(response.SerializeToString())

            return bytes(await self._guarded(run, context))

        return grpc.stream_unary_rpc_method_handler(ask)

    async def _guarded(self, run: Callable[[Any], Awaitable[Any]], context: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await run(_metadata(context))
        except EtcdError as error:
            await context.abort(getattr(grpc.StatusCode, error.code_name), error.text)
        except _Failure as failure:
            await context.abort(failure.code, failure.text)
        except asyncio.CancelledError:
            if not self._stopping:  # the client gave up
                raise
            task.uncancel()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped")
        finally:
            self._running.discard(task)


def _metadata(context: Any) -> dict[str, str]:
    """The text metadata of a call."""
    pairs = context.invocation_metadata() or ()
    return {key: value for key, value in pairs if isinstance(value, str)}


class Listening:
    """A server on its port. `endpoint`: HOST:PORT."""

    def __init__(
        self, member: Member, handlers: Handlers, interceptors: Sequence[Any] | None = None
    ) -> None:
        self.endpoint = ""
        self._member = member
        self._router = _Router(member, handlers)
        self._server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
        self._server.add_generic_rpc_handlers((self._router,))

    async def start(self, address: str) -> None:
        """Serve on HOST:PORT, port 0 for a free one. Raises OSError."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise OSError(f"can't listen on {address}") from None
        self.endpoint = f"{address.rpartition(':')[0]}:{port}"
        if not self._member.client_url:  # clients hear of the first
            self._member.client_url = f"http://{self.endpoint}"
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """End all calls and the server, within about `grace_s` seconds."""
        await self._router.stop(grace_s)
        await self._server.stop(grace_s)


async def listen(member: Member, handlers: Handlers, address: str) -> tuple[Any, int]:
    """Serve on HOST:PORT, port 0 for a free one -> (server, its port); `await server.stop(grace)`
    ends it. Raises OSError."""
    listening = Listening(member, handlers)
    await listening.start(address)
    return listening, int(listening.endpoint.rpartition(":")[2])


class Server(Protocol):
    """Whatever has a port; as `Listening`."""

    endpoint: str

    async def start(self, address: str) -> None: ...

    async def stop(self, grace_s: float) -> None: ...


async def serve(servers: Sequence[tuple[Server, str]], ready: Callable[[], None]) -> None:
    """Serve each on its HOST:PORT until SIGTERM or SIGINT; `ready` is called once all are served.

    Raises OSError if one of the addresses can't be had.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as started:
        for server, address in servers:
            await server.start(address)
            started.push_async_callback(server.stop, STOP_GRACE_S)
        ready()
        await stop.wait()
