"""One Watch call between the member and its client: where the faults of streams act.

The member's responses are taken apart into revisions, as the faults want them, and each watch of
the call has a line of its own. So the model and the watches that follow it know of no fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from google.protobuf.message import DecodeError

from etcdsim import wire
from etcdsim.fault import Line, compaction
from etcdsim.model import ALL, Event, KeyValue
from etcdsim.server.messages import fill_kv
from etcdsim.server.watching import FRAGMENT_BYTES, fragments
from etcdsim.server.wire_faults import WireFaults
from etcdsim.watch import WatchResponse

_EVERYBODY = -1  # the id of a mark for all watches of a call


@dataclass(slots=True)
class _Watch:
    """A watch of the call. `line`: what the faults do to it, None as long as there are none."""

    key: bytes
    range_end: bytes
    start_revision: int
    fragment: bool
    watch_id: int = _EVERYBODY
    line: Line | None = None

    @property
    def is_over(self) -> bool:
        """The faults ended it; the member doesn't know."""
        return self.line is not None and self.line.is_over


class FaultyWatch:
    """What the client of one Watch call asks, and what it gets. One thread.

    `header`: a response header of the member, of a revision or, with None, of the current one.
    """

    def __init__(self, faults: WireFaults, header: Callable[[int | None], Any]) -> None:
        self._faults, self._header = faults, header
        self._asked: deque[_Watch] = deque()  # what the member has yet to answer
        self._watches: dict[int, _Watch] = {}

    def asked(self, data: bytes) -> bytes:
        """What the member gets of a request: it fragments nothing, that is done behind the
        faults."""
        try:
            request = wire.WatchRequest.FromString(data)
        except DecodeError:
            return data  # the member refuses it
        if request.WhichOneof("request_union") != "create_request":
            return data
        create = request.create_request
        self._asked.append(
            _Watch(create.key or ALL, create.range_end, create.start_revision, create.fragment)
        )
        create.fragment = False
        return bytes(request.SerializeToString())

    def answered(self, data: bytes) -> Iterator[bytes]:
        """What the client gets of a response. Each is counted as received when it is taken."""
        response = wire.WatchResponse.FromString(data)
        if response.created:
            yield data
            yield from self._opened(response)
            return
        watch = self._watches.get(response.watch_id)
        if response.watch_id == _EVERYBODY:
            yield from self._mark_all(data, response)
        elif watch is None:
            yield data
        elif response.canceled and not response.compact_revision:
            yield from self._cancelled(watch, data)
        elif self._line_of(watch) is None:
            yield from self._parts(watch, response)
        else:
            yield from self._through(watch, _taken_apart(response))

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return any(watch.line is not None and watch.line.holds for watch in self._watches.values())

    def release(self) -> Iterator[bytes]:
        """What is held back, since nothing comes that it waits for."""
        for watch in tuple(self._watches.values()):
            if watch.line is not None:
                watch.line.release()
                yield from self._through(watch, [])

    def close(self) -> None:
        """The call is over: what is on its way was never injected."""
        for watch in self._watches.values():
            if watch.line is not None:
                watch.line.close()

    def _opened(self, response: Any) -> Iterator[bytes]:
        watch = self._asked.popleft()
        if response.canceled:
            return
        watch.watch_id = response.watch_id
        watch.start_revision = watch.start_revision or response.header.revision + 1
        self._watches[watch.watch_id] = watch
        compacted = self._faults.compacted
        if watch.start_revision < compacted:
            watch.line = Line(())
            yield from self._through(watch, [compaction(compacted)])

    def _cancelled(self, watch: _Watch, data: bytes) -> Iterator[bytes]:
        """The client gets its answer, and nothing that was on its way."""
        if watch.line is not None:
            watch.line.close()
        del self._watches[watch.watch_id]
        yield data

    def _line_of(self, watch: _Watch) -> Line | None:
        if watch.line is None and self._faults.is_on:
            watch.line = self._faults.line(watch.key, watch.range_end, watch.start_revision)
        return watch.line

    def _mark_all(self, data: bytes, response: Any) -> Iterator[bytes]:
        """A mark for all watches. What any of them would not get now goes to each one by one."""
        watches = [watch for watch in self._watches.values() if not watch.is_over]
        if not watches and self._watches:
            return
        mark = WatchResponse(response.header.revision, progress=True)
        gets = [(watch, self._marked(watch, mark)) for watch in watches]
        together = all(mark in got for _, got in gets)
        behind = []
        for watch, got in gets:
            place = got.index(mark) if together else len(got)
            yield from self._messages(watch, got[:place])
            behind.append((watch, got[place + 1 :]))
        if together:
            yield data
        for watch, got in behind:
            yield from self._messages(watch, got)

    def _marked(self, watch: _Watch, mark: WatchResponse) -> list[WatchResponse]:
        line = self._line_of(watch)
        if line is None:
            return [mark]
        line.push(mark)
        return list(iter(line.take, None))

    def _through(self, watch: _Watch, responses: list[WatchResponse]) -> Iterator[bytes]:
        assert watch.line is not None
        for response in responses:
            watch.line.push(response)
        yield from self._messages(watch, iter(watch.line.take, None))

    def _messages(self, watch: _Watch, responses: Iterable[WatchResponse]) -> Iterator[bytes]:
        for response in responses:
            yield from self._parts(watch, self._message(watch, response))

    def _message(self, watch: _Watch, response: WatchResponse) -> Any:
        broken_off = response.canceled and not response.compact_revision
        message = wire.WatchResponse(
            header=self._header(None if broken_off else response.header_revision),
            watch_id=watch.watch_id,
            canceled=response.canceled,
            compact_revision=response.compact_revision,
        )
        for event in response.events:
            _fill_event(message.events.add(), event)
        return message

    def _parts(self, watch: _Watch, response: Any) -> Iterator[bytes]:
        for part in fragments(response, FRAGMENT_BYTES) if watch.fragment else (response,):
            yield part.SerializeToString()


def _taken_apart(response: Any) -> list[WatchResponse]:
    """The response in revisions; a mark or an end stays what it is."""
    revision = response.header.revision
    if response.canceled:
        return [compaction(response.compact_revision)]
    if not response.events:
        return [WatchResponse(revision, progress=True)]
    events = [_event_of(event) for event in response.events]
    return [
        WatchResponse(revision, tuple(group))
        for _, group in groupby(events, lambda event: event.kv.mod_revision)
    ]


def _event_of(message: Any) -> Event:
    previous = _kv_of(message.prev_kv) if message.HasField("prev_kv") else None
    return Event("delete" if message.type else "put", _kv_of(message.kv), previous)


def _kv_of(kv: Any) -> KeyValue:
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def _fill_event(message: Any, event: Event) -> None:
    if event.kind == "delete":
        message.type = wire.Event.DELETE
    fill_kv(message.kv, event.kv)
    if event.prev_kv is not None:
        fill_kv(message.prev_kv, event.prev_kv)
