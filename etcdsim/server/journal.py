"""Journal: writes that are on disk before anybody can see what they did.

As in etcd's raft log, what is logged is the request. Requests queue up; all that have come are one
record, which a thread brings to disk; then they are done, in order, told to watchers and answered.
So many clients share one fsync, and reads go on meanwhile. What a request does depends on nothing
but what was done before, so the same requests make the same store again.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, NamedTuple

import msgspec
from google.protobuf.message import DecodeError

from etcdsim import services, wire
from etcdsim.errors import (
    DamagedLogError,
    DataDirError,
    ErrNoSpace,
    ErrTooManyRequests,
    EtcdError,
)
from etcdsim.lease import Lessor
from etcdsim.server.checkpoint import checkpoint, restore
from etcdsim.server.hashing import one_slice
from etcdsim.server.log import Log
from etcdsim.server.member import Handlers, Member
from etcdsim.server.writes import apply, is_write, new_answer

QUEUE_MAX = 5000  # etcd's maxGapBetweenApplyAndCommitIndex
_GROUP_BYTES = 4 * 1024 * 1024  # the largest request fits in with room to spare
_GROUP_MAX = 1000  # done in one go while everybody else waits
#: The log may grow by so much, and by what the last checkpoint took, before the next one.
_GROWTH_BYTES, _GROWTH_COMPACTED_BYTES = 32 * 1024 * 1024, 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_Entry = tuple[str, bytes]  # the path of a method, and a request
_entries = msgspec.msgpack.Decoder(list[_Entry])


class _Proposal(NamedTuple):
    method: wire.Method
    request: Any
    answer: asyncio.Future[Any]


class Journal:
    """`Writes` of a member that is new; it becomes what the log tells, if that tells anything.

    `appliers`: what does the writes. One event loop, and a thread for the disk. Raises
    DataDirError, DamagedLogError, OSError.
    """

    def __init__(
        self,
        member: Member,
        lessor: Lessor,
        appliers: Handlers,
        log: Log,
        growth_bytes: tuple[int, int] = (_GROWTH_BYTES, _GROWTH_COMPACTED_BYTES),
    ) -> None:
        self._member, self._lessor, self._appliers, self._log = member, lessor, appliers, log
        self._growth_bytes = growth_bytes  # without and with a compaction
        self._queue: deque[_Proposal] = deque()
        self._draining: asyncio.Task[None] | None = None
        self._closing = False
        self._disk = ThreadPoolExecutor(1, "etcdsim-log")
        try:
            if log.size:
                self._replay()
            else:
                log.replace(checkpoint(member, lessor))
        except BaseException:
            log.close()
            raise
        self._plan(log.base)

    def _plan(self, base: int) -> None:
        self._base, self._compact_revision = base, self._member.model.compact_revision

    def _replay(self) -> None:
        try:
            with closing(self._log.records()) as records:
                restore(self._member, self._lessor, records)
                self._redo(records)
        except DataDirError as error:
            raise type(error)(f"{self._log.path}: {error}") from None
        self._lessor.renew()
        self._member.tell()

    def _redo(self, records: Iterator[bytes]) -> None:
        methods = {method.path: method for method in self._appliers}
        try:
            for record in records:
                for path, data in _entries.decode(record):
                    method = methods[path]
                    _outcome(self._appliers, method, method.request.FromString(data))
        except (msgspec.MsgspecError, KeyError, DecodeError):
            raise DamagedLogError("a record holds what is no request") from None

    def guard(self, handlers: Handlers) -> Handlers:
        """The same, but what writes goes through the journal."""
        return {
            method: handlers[method]
            if method.stream or method.answers or method not in self._appliers
            else self._guarded(method, handlers[method])
            for method in handlers
        }

    def _guarded(self, method: wire.Method, handler: Any) -> Callable[[Any], Any]:
        def answer(request: Any) -> Any:
            if is_write(method, request):
                return self.submit(method, request)
            return handler(request)

        return answer

    def submit(self, method: wire.Method, request: Any) -> asyncio.Future[Any]:
        """See Writes. ErrTooManyRequests, ErrNoSpace and UNAVAILABLE: it isn't done."""
        answer = new_answer()
        if len(self._queue) >= QUEUE_MAX:
            answer.set_exception(ErrTooManyRequests())
            return answer
        self._queue.append(_Proposal(method, self._settled(method, request), answer))
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())
        return answer

    def _settled(self, method: wire.Method, request: Any) -> Any:
        """The request with all that is left to chance decided."""
        if method is services.LEASE_GRANT and not request.ID:
            request.ID = self._lessor.free_id()
        return request

    async def _drain(self) -> None:
        try:
            while self._queue:
                await self._commit(*self._next_group())
                if self._is_grown() and await self._is_hashed():
                    await self._checkpoint()
        finally:
            self._draining = None

    async def _commit(self, group: list[_Proposal], record: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._disk, self._log.append, record)
        except Exception as error:  # of ZODB too: who waits hears of it, whatever it is
            for proposal in group:
                _set(proposal.answer, _refusal(error))
            return
        for method, request, answer in group:
            outcome = _outcome(self._appliers, method, request)
            self._member.tell()
            _set(answer, outcome)

    def _next_group(self) -> tuple[list[_Proposal], bytes]:
        group: list[_Proposal] = []
        entries: list[_Entry] = []
        size = 0
        while self._queue and size < _GROUP_BYTES and len(group) < _GROUP_MAX:
            proposal = self._queue.popleft()
            data = proposal.request.SerializeToString()
            size += len(data)
            group.append(proposal)
            entries.append((proposal.method.path, data))
        return group, msgspec.msgpack.encode(entries)

    def _is_grown(self) -> bool:
        grown = self._log.size - self._base
        compacted = self._member.model.compact_revision > self._compact_revision
        return grown > max(self._growth_bytes[compacted], self._base)

    async def _is_hashed(self) -> bool:
        """Whether all hashes are made that belong into a checkpoint; makes them while no writes
        come."""
        while (hashing := self._member.hashes.unfinished) is not None:
            if self._queue or self._closing:
                return False
            await one_slice(hashing)
        return True

    async def _checkpoint(self) -> None:
        """Begin the log anew, with what is known now. If there is no room it goes on as it is."""
        records = checkpoint(self._member, self._lessor)
        loop = asyncio.get_running_loop()
        with suppress(Exception):
            await loop.run_in_executor(self._disk, self._log.replace, records)
        self._plan(self._log.size)

    async def close(self) -> None:
        """Do what was submitted, and close the log."""
        self._closing = True
        if self._draining is not None:
            await self._draining
        self._disk.shutdown()
        self._log.close()


def _outcome(appliers: Handlers, method: wire.Method, request: Any) -> Any:
    """The response, or the error in its place: whatever it is, it is the same at every replay."""
    try:
        return apply(appliers, method, request)
    except Exception as error:
        return error


def _set(answer: asyncio.Future[Any], outcome: Any) -> None:
    if answer.done():  # the client gave up
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _refusal(error: Exception) -> EtcdError:
    if isinstance(error, OSError) and error.errno in _FULL:
        return ErrNoSpace()
    return EtcdError("UNAVAILABLE", f"etcdsim: the log can't be written: {error}")
