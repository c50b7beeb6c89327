"""Faults between gRPC and the member: calls that fail, connections and members that go.

They sit around what answers a call, so that the member and its services know of none, and the same
member can be served without them beside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from etcdsim import services, wire
from etcdsim.errors import ErrCompacted, ErrLeaderChanged, ErrNoLeader, ErrTimeout, EtcdError
from etcdsim.lease import Lessor
from etcdsim.server.faulty_watch import FaultyWatch
from etcdsim.server.front import Front
from etcdsim.server.listening import Listening
from etcdsim.server.malformed import Malformed, parse
from etcdsim.server.member import Handlers, Member
from etcdsim.server.wire_faults import Dice, WireFaults

SLOW_S_MAX = 0.25  # that `slow` holds an answer back
LEADERLESS_S = 0.3  # that a leader change takes
DOWN_S = 0.3  # that a restart takes
HELD_S_MAX = 0.5  # that a fault holds back a watch's responses while no others come

_TIMED_OUT = ErrTimeout().text
#: What a call that was not done may hear, and one that may have been.
_REFUSALS = (ErrNoLeader().text, ErrLeaderChanged().text)
_DOUBTS = (
    _TIMED_OUT,
    f"{_TIMED_OUT}, possibly due to previous leader failure",
    f"{_TIMED_OUT}, possibly due to connection lost",
)
_STREAM_ENDS = (ErrNoLeader().text, "etcdserver: server stopped")

#: What a member answers without a leader.
_LOCAL = {
    method.path
    for method in (
        *(wire.STATUS, services.HASH, services.HASH_KV, services.SNAPSHOT, services.DEFRAGMENT),
        *(services.MEMBER_LIST, services.HEALTH_CHECK, services.HEALTH_WATCH),
    )
}


class FaultyListening:
    """As `Listening`, with faults between the member and its clients.

    `endpoint`: HOST:PORT of the front, where clients connect. One event loop.
    """

    def __init__(
        self, member: Member, lessor: Lessor, handlers: Handlers, faults: WireFaults
    ) -> None:
        self.faults = faults
        self._member, self._lessor = member, lessor
        self._listening = Listening(member, handlers, interceptors=[_Interceptor(self)])
        self._front: Front
        self._leaderless_until_s = member.clock()
        self._led: set[asyncio.Task[Any]] = set()  # calls that want to hear of a lost leader
        self._restarting: asyncio.Task[None] | None = None
        self.endpoint = ""

    async def start(self, address: str) -> None:
        """Serve on HOST:PORT, port 0 for a free one. Raises OSError."""
        await self._listening.start("127.0.0.1:0")
        self._front = Front(self._listening.endpoint)
        try:
            await self._front.start(address)
        except OSError:
            await self._listening.stop(0)
            raise
        self.endpoint = self._front.endpoint
        self._member.client_url = f"http://{self.endpoint}"

    async def stop(self, grace_s: float) -> None:
        """End all calls and the server, within about `grace_s` seconds."""
        if self._restarting is not None:
            self._restarting.cancel()
        await self._listening.stop(grace_s)
        await self._front.stop(grace_s)

    def reset(self, peer: str | None = None) -> None:
        """Reset the connection of gRPC's `peer`, by default every one."""
        if peer is None:
            self._front.reset_all()
        else:
            self._front.reset(peer.partition(":")[2])

    def restart(self) -> None:
        """Go down with every connection, and come back on the same port soon."""
        if self._front.is_up:
            self._elect()
            self._front.down()
            self._restarting = asyncio.ensure_future(self._come_back())

    async def _come_back(self) -> None:
        await asyncio.sleep(DOWN_S)
        await self._front.up()

    def change_leader(self) -> None:
        """Lose the leader: calls that need one fail for a moment, streams that want one end."""
        self._elect()
        self._leaderless_until_s = self._member.clock() + LEADERLESS_S
        for task in tuple(self._led):
            self._led.remove(task)
            task.cancel()

    def _elect(self) -> None:
        self._member.raft_term += 1
        self._lessor.renew()  # so a new leader begins

    @property
    def _is_leaderless(self) -> bool:
        return self._member.clock() < self._leaderless_until_s

    # Around unary calls

    async def ask(self, path: str, context: Any, answer: Callable[..., Any]) -> Any:
        """A unary call, struck before or after it is done."""
        data = await context.read()
        if data is grpc.aio.EOF:
            return await answer(None, _Asked(context, data))
        dice = self.faults.of_calls
        struck = dice.roll()
        late = bool(dice.prng.below(2))
        if struck and not late:
            await self._strike(struck, dice, context, _REFUSALS + _DOUBTS)
        try:
            self._check_leader(path, data, context)
            data, answered_at = self._asked(path, data)
        except EtcdError as error:
            await context.abort(getattr(grpc.StatusCode, error.code_name), error.text)
        response = await answer(None, _Asked(context, data))
        if struck and late:
            await self._strike(struck, dice, context, _DOUBTS)
        return _at(answered_at, response) if answered_at else response

    def _check_leader(self, path: str, data: bytes, context: Any) -> None:
        if not self._is_leaderless:
            return
        if _wants_leader(context):
            raise ErrNoLeader
        if path == wire.RANGE.path:
            request = _parsed(wire.RangeRequest, data)
            if request is None or not request.serializable:
                raise ErrLeaderChanged
        elif path not in _LOCAL:
            raise EtcdError("UNAVAILABLE", _DOUBTS[1])

    def _asked(self, path: str, data: bytes) -> tuple[bytes, int]:
        """What the member is asked instead; the revision that its header must name, 0 for any."""
        faults, model = self.faults, self._member.model
        message = {wire.RANGE.path: wire.RangeRequest, wire.TXN.path: wire.TxnRequest}.get(path)
        if message is None or not (faults.is_on or faults.compacted):
            return data, 0
        request = _parsed(message, data)
        if request is None:
            return data, 0
        if path == wire.TXN.path or request.revision > 0:
            if _reads_below(request, faults.compacted):
                raise ErrCompacted
            return data, 0
        floor = max(model.compact_revision, faults.compacted, 1)
        revision = faults.answered_at(model.revision, floor)
        if revision == model.revision:
            return data, 0
        request.revision = revision
        return bytes(request.SerializeToString()), revision

    # Around streams

    async def converse(self, path: str, context: Any, serve: Callable[..., Any]) -> Any:
        """A call with a stream of responses, each of which may be struck."""
        wants_leader = _wants_leader(context)
        if wants_leader and self._is_leaderless:
            await context.abort(grpc.StatusCode.UNAVAILABLE, ErrNoLeader().text)
        task = asyncio.current_task()
        assert task is not None
        if wants_leader:
            self._led.add(task)
        call = (_WatchCall if path == wire.WATCH.path else _Call)(self, context)
        try:
            await serve(None, call)
        except asyncio.CancelledError:
            if not wants_leader or task in self._led:  # the client gave up
                raise
            task.uncancel()
            await context.abort(grpc.StatusCode.UNAVAILABLE, ErrNoLeader().text)
        finally:
            self._led.discard(task)
            call.close()

    async def strike_response(self, dice: Dice, context: Any) -> None:
        """A response of a stream is about to leave."""
        struck = dice.roll()
        if struck:
            await self._strike(struck, dice, context, _STREAM_ENDS)

    async def _strike(
        self, struck: list[str], dice: Dice, context: Any, texts: tuple[str, ...]
    ) -> None:
        """Let the faults act; raises gRPC's AbortError if the call is over."""
        for name in struck:
            match name:
                case "slow":
                    await asyncio.sleep(SLOW_S_MAX * (1 + dice.prng.below(1000)) / 1000)
                case "leader_change":
                    self.change_leader()
                case "unavailable":
                    await context.abort(grpc.StatusCode.UNAVAILABLE, dice.prng.choice(texts))
                case "reset":
                    self.reset(context.peer())
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
                case "restart":
                    self.restart()
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped")

    def watch(self) -> FaultyWatch:
        return FaultyWatch(self.faults, self._member.header)


class _Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Hands every call to `FaultyListening`."""

    def __init__(self, faulty: FaultyListening) -> None:
        self._faulty = faulty

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler, path = await continuation(details), details.method
        if handler.stream_unary is not None:

            async def ask(_: Any, context: Any) -> Any:
                return await self._faulty.ask(path, context, handler.stream_unary)

            return grpc.stream_unary_rpc_method_handler(ask)

        async def converse(_: Any, context: Any) -> None:
            await self._faulty.converse(path, context, handler.stream_stream)

        return grpc.stream_stream_rpc_method_handler(converse)


class _Asked:
    """gRPC's context of a unary call, and the request that the member gets to read."""

    def __init__(self, context: Any, request: Any) -> None:
        self._context, self._request = context, request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        return self._request


class _Call:
    """gRPC's context of a call with a stream of responses, each of which may be struck. All else
    is as the context has it."""

    def __init__(self, faulty: FaultyListening, context: Any) -> None:
        self._faulty, self._context = faulty, context
        self._dice = faulty.faults.of_stream()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, data: bytes) -> None:
        await self._faulty.strike_response(self._dice, self._context)
        await self._context.write(data)

    def close(self) -> None:
        """The call is over."""


class _WatchCall(_Call):
    """That of a Watch call: the faults of streams act on what goes through it."""

    def __init__(self, faulty: FaultyListening, context: Any) -> None:
        super().__init__(faulty, context)
        self._watch = faulty.watch()
        self._writing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Future[None] | None = None

    async def read(self) -> Any:
        data = await self._context.read()
        return data if data is grpc.aio.EOF else self._watch.asked(data)

    async def write(self, data: bytes) -> None:
        async with self._writing:
            for left in self._watch.answered(data):
                await super().write(left)
        if self._watch.holds:
            self._wait_for_more()

    def _wait_for_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(HELD_S_MAX, self._start_release)

    def _start_release(self) -> None:
        self._releasing = asyncio.ensure_future(self._release())
        self._releasing.add_done_callback(_look_at)

    async def _release(self) -> None:
        async with self._writing:
            for left in self._watch.release():
                await self._context.write(left)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._releasing is not None:
            self._releasing.cancel()
        self._watch.close()


def _look_at(done: asyncio.Future[None]) -> None:
    # It can't be written to a client that is gone; the call ends for that too.
    if not done.cancelled():
        done.exception()


def _wants_leader(context: Any) -> bool:
    return ("hasleader", "true") in map(tuple, context.invocation_metadata() or ())


def _parsed(message: Any, data: bytes) -> Any:
    """The message; None for bytes that are none, which the member will refuse."""
    try:
        return parse(message, data)
    except Malformed:
        return None


def _reads_below(request: Any, revision: int) -> bool:
    """Whether a RangeRequest, or a TxnRequest whichever way it goes, reads below a revision."""
    if isinstance(request, wire.RangeRequest):
        return bool(0 < request.revision < revision)
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind in ("request_range", "request_txn") and _reads_below(getattr(op, kind), revision):
            return True
    return False


def _at(revision: int, data: bytes) -> bytes:
    """A RangeResponse of a member whose newest revision is this one."""
    response = wire.RangeResponse.FromString(data)
    response.header.revision = revision
    return bytes(response.SerializeToString())
