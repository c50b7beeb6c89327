"""Validate: etcd's watch guarantees, checked on a recorded trace.

The nine rules are those of etcd's own robustness tests, watch by watch, against the truth that the
trace holds. Assumptions come first: a truth that is incomplete or contradicts itself, or a request
without an answer, makes every verdict `unknown`; nobody is called broken by a broken measurement.

Not judged: reads and writes as such (linearizability), how long anything took, and what a trace
doesn't show, such as events that nothing behind them in the same watch covers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from etcdsim.model import Event, KeyValue, prefix_range
from etcdsim.trace import Response, Trace, WatchRequest, WatchTrace, Write
from etcdsim.txn import Put, bounds

State = Literal["valid", "broken", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one guarantee, over all watches of a trace.

    detail    why it isn't valid
    watch     of the first offending response, as `response` (its index in the watch, the answer to
              the request is 0), `revision` and `key` of what is wrong with it
    """

    guarantee: str
    state: State
    detail: str = ""
    watch: int | None = None
    response: int | None = None
    revision: int | None = None
    key: bytes | None = None

    def __str__(self) -> str:
        parts = [f"{self.guarantee} {self.state}"]
        if self.watch is not None:
            where = f"watch {self.watch} response {self.response} revision {self.revision}"
            parts.append(where + (f" key {_show(self.key)}" if self.key is not None else ""))
        return ": ".join([*parts, self.detail] if self.detail else parts)


@dataclass(frozen=True, slots=True)
class _Offence:
    response: int
    revision: int
    key: bytes | None
    detail: str


class _Unknown(Exception):
    """An assumption doesn't hold."""


def overall(verdicts: Sequence[Verdict]) -> State:
    """What the verdicts on a trace come to: broken before unknown before valid."""
    states = {verdict.state for verdict in verdicts}
    return "broken" if "broken" in states else "unknown" if "unknown" in states else "valid"


def validate(trace: Trace) -> list[Verdict]:
    """The verdict on each guarantee, in the order of GUARANTEES. O(events * log events)."""
    try:
        truth = _Truth(trace)
        watches = [
            _Watch(number, watch, truth, trace) for number, watch in enumerate(trace.watches)
        ]
    except _Unknown as error:
        return [Verdict(name, "unknown", str(error)) for name in GUARANTEES]
    return [_judge(name, check, watches) for name, check in GUARANTEES.items()]


def _judge(name: str, check: _Check, watches: Sequence[_Watch]) -> Verdict:
    for watch in watches:
        found = next(check(watch), None)
        if found is not None:
            return Verdict(
                name, "broken", found.detail, watch.number, found.response, found.revision,
                found.key,
            )  # fmt: skip
    return Verdict(name, "valid")


# The truth


class _Truth:
    """Every persisted event in order, and what each key was before any revision."""

    def __init__(self, trace: Trace) -> None:
        self.events: list[Event] = []
        self.revisions: list[int] = []
        self.positions: dict[tuple[int, bytes], int] = {}
        self._histories: dict[bytes, tuple[list[int], list[KeyValue | None]]] = {}
        self._live: dict[bytes, KeyValue] = {}
        match trace.header.truth:
            case "model":
                self._add_model(trace)
            case "transactions":
                self._add_writes(trace)
            case _:
                raise _Unknown("the trace holds no truth")
        if self.revisions and self.revisions[-1] > trace.end:
            raise _Unknown(f"revision {self.revisions[-1]} is above the end, {trace.end}")
        if trace.final is not None and list(trace.final) != sorted(
            self._live.values(), key=lambda kv: kv.key
        ):
            raise _Unknown("the last read differs from what the recorded writes come to")

    def _add_model(self, trace: Trace) -> None:
        revision = trace.header.first_revision
        for events in trace.truth:
            revision += 1
            for event in events:
                kv = event.kv
                if kv.mod_revision != revision:
                    raise _Unknown(f"the truth has no revision {revision}, or out of order")
                if event != self._event(kv.key, kv.value, revision, event.kind):
                    raise _Unknown(f"the truth contradicts itself at revision {revision}")
                self._add(event)
        if revision != trace.end:
            raise _Unknown(f"the truth ends at revision {revision}, the trace at {trace.end}")

    def _add_writes(self, trace: Trace) -> None:
        answered: list[tuple[int, Write]] = []
        for write in trace.writes:
            if write.revision is None:
                raise _Unknown(f"a write of client {write.client} was never answered")
            if len(write.deleted) != len(write.ops):
                raise _Unknown(f"the write at revision {write.revision} is not answered in full")
            if any(write.deleted) or any(isinstance(op, Put) for op in write.ops):
                answered.append((write.revision, write))
        answered.sort(key=lambda pair: pair[0])
        last = trace.header.first_revision
        for revision, write in answered:
            if revision <= last:
                raise _Unknown(f"two writes at revision {revision}, or one before the first")
            last = revision
            for op, deleted in zip(write.ops, write.deleted, strict=True):
                if isinstance(op, Put):
                    self._add(self._event(op.key, op.value, revision, "put"))
                    continue
                low, high = bounds(op.key, op.range_end)
                keys = [key for key in self._live if key >= low and (high is None or key < high)]
                if len(keys) != deleted:
                    raise _Unknown(
                        f"the delete at revision {revision} deleted {deleted}, not {len(keys)}"
                    )
                for key in sorted(keys):
                    self._add(self._event(key, b"", revision, "delete"))

    def _event(
        self, key: bytes, value: bytes, revision: int, kind: Literal["put", "delete"]
    ) -> Event:
        # What etcd makes of this change.
        if kind == "delete":
            return Event("delete", KeyValue(key, b"", 0, revision, 0))
        before = self._live.get(key)
        created, version = (before.create_revision, before.version) if before else (revision, 0)
        return Event("put", KeyValue(key, value, created, revision, version + 1))

    def _add(self, event: Event) -> None:
        key, revision = event.kv.key, event.kv.mod_revision
        if (revision, key) in self.positions:
            raise _Unknown(f"the truth has the key {_show(key)} twice at revision {revision}")
        if event.kind == "put":
            self._live[key] = event.kv
        elif self._live.pop(key, None) is None:
            raise _Unknown(f"the truth deletes what isn't there at revision {revision}")
        self.positions[revision, key] = len(self.events)
        self.events.append(event)
        self.revisions.append(revision)
        revisions, kvs = self._histories.setdefault(key, ([], []))
        revisions.append(revision)
        kvs.append(event.kv if event.kind == "put" else None)

    def before(self, key: bytes, revision: int) -> KeyValue | None:
        """The key as it was at revision - 1."""
        revisions, kvs = self._histories.get(key, ((), ()))
        index = bisect_left(revisions, revision)
        return kvs[index - 1] if index else None

    def between(self, first: int, last: int) -> Sequence[Event]:
        """The events of first <= revision <= last."""
        low, high = bisect_left(self.revisions, first), bisect_right(self.revisions, last)
        return self.events[low:high]


class _Watch:
    """One watch with the truth that it should have shown. Raises _Unknown if that isn't known.

    requested  the first revision that it should show. If it starts "now" that is behind the header
               of the answer, or at the first event if that is older: etcd 3.5.30 reads the header
               after it has begun to watch.
    """

    def __init__(self, number: int, watch: WatchTrace, truth: _Truth, trace: Trace) -> None:
        self.number, self.truth, self.end = number, truth, trace.end
        self.request, self.responses = watch.request, watch.responses
        if not self.responses or self.responses[0].kind != "created":
            raise _Unknown(f"watch {number}: the request was never answered")
        kinds = [response.kind for response in self.responses]
        if "created" in kinds[1:] or "canceled" in kinds[:-1]:
            raise _Unknown(f"watch {number}: answered twice, or something behind its cancel")
        self._low, self._high = bounds(self.request.key or b"\0", self.request.range_end)
        if not _is_within(self._low, self._high, trace.header.prefix):
            raise _Unknown(f"watch {number}: the truth doesn't cover its range")
        start = self.request.start_revision
        if 0 < start <= trace.header.first_revision:
            raise _Unknown(f"watch {number}: it starts at {start}, before the truth does")
        first = next((event.kv.mod_revision for _, event in self.events()), trace.end + 1)
        self.requested = start or min(self.responses[0].header_revision + 1, first)

    def in_range(self, key: bytes) -> bool:
        return key >= self._low and (self._high is None or key < self._high)

    def matches(self, event: Event) -> bool:
        return self.in_range(event.kv.key) and not _is_filtered(self.request, event)

    def events(self) -> Iterator[tuple[int, Event]]:
        """(index of the response, event), as they came."""
        for index, response in enumerate(self.responses):
            for event in response.events:
                yield index, event

    def expected(self, first: int, last: int) -> list[Event]:
        return [event for event in self.truth.between(first, last) if self.matches(event)]


def _is_within(low: bytes, high: bytes | None, prefix: bytes) -> bool:
    if not prefix:
        return True
    first, last = bounds(*prefix_range(prefix))
    return low >= first and (last is None or (high is not None and high <= last))


def _is_filtered(request: WatchRequest, event: Event) -> bool:
    return ("noput" if event.kind == "put" else "nodelete") in request.filters


def _show(key: bytes | None) -> str:
    return repr((key or b"").decode("utf-8", "backslashreplace"))


def _named(index: int, event: Event, detail: str) -> _Offence:
    return _Offence(index, event.kv.mod_revision, event.kv.key, detail)


# The guarantees: each yields its offences, the first one first


def _ordered(watch: _Watch) -> Iterator[_Offence]:
    """Events by revision, in the order of the transaction inside one. And a header is never older
    than the events under it, nor newer than the store is at the end."""
    last_revision, last_position = 0, -1
    for index, event in watch.events():
        revision = event.kv.mod_revision
        position = watch.truth.positions.get((revision, event.kv.key), -1)
        if revision < last_revision:
            yield _named(index, event, f"comes behind revision {last_revision}")
        elif revision == last_revision and -1 < position < last_position:
            yield _named(index, event, "comes behind a later change of its transaction")
        last_revision = revision
        last_position = position
    for index, response in enumerate(watch.responses):
        newest = max((event.kv.mod_revision for event in response.events), default=0)
        header = response.header_revision
        if response.kind == "events" and header < newest:
            yield _Offence(index, newest, None, f"is above its header, revision {header}")
        if response.kind != "progress" and header > watch.end:
            yield _Offence(index, header, None, f"the store is only at {watch.end} at the end")


def _unique(watch: _Watch) -> Iterator[_Offence]:
    """A key at a revision comes at most once."""
    seen: dict[tuple[int, bytes], int] = {}
    for index, event in watch.events():
        change = (event.kv.mod_revision, event.kv.key)
        if change in seen:
            yield _named(index, event, f"came in response {seen[change]} already")
        seen[change] = index


def _atomic(watch: _Watch) -> Iterator[_Offence]:
    """A revision is never split over two responses, unless they are fragments of one."""
    before: Response | None = None
    for index, response in enumerate(watch.responses):
        if response.kind != "events":
            continue
        first = response.events[0]
        if before is not None and not before.fragment:
            last = before.events[-1].kv.mod_revision
            if first.kv.mod_revision == last:
                yield _named(index, first, "the revision began in the response before")
        before = response


def _reliable(watch: _Watch) -> Iterator[_Offence]:
    """From the revision asked for to the last one seen, by event or mark: all the events that there
    are, as they are."""
    got = list(watch.events())
    marks = [r.header_revision for r in watch.responses if r.kind == "progress"]
    last_event = max((event.kv.mod_revision for _, event in got), default=0)
    expected = watch.expected(watch.requested, max([last_event, *marks]))
    for (index, event), persisted in zip(got, expected, strict=False):
        if _is_same(event, persisted):
            continue
        place = (event.kv.mod_revision, event.kv.key)
        if place == (persisted.kv.mod_revision, persisted.kv.key):
            yield _named(index, event, f"is not as persisted: {_difference(event, persisted)}")
        elif (
            watch.truth.positions.get(place, -1)
            > watch.truth.positions[persisted.kv.mod_revision, persisted.kv.key]
        ):
            yield _named(index, persisted, "is missing before this response, or too late")
        else:
            yield _named(index, event, "was not persisted, or belongs elsewhere")
    if len(got) > len(expected):
        index, event = got[len(expected)]
        yield _named(index, event, "was not persisted, or belongs elsewhere")
    if len(got) < len(expected):
        missing = expected[len(got)]
        if not _is_cut_off(watch, missing):
            yield _named(_covering(watch, missing), missing, "is missing; this response covers it")


def _is_cut_off(watch: _Watch, missing: Event) -> bool:
    # The client left between two fragments: the rest of the revision was still to come.
    last = watch.responses[-1]
    return last.fragment and missing.kv.mod_revision >= last.events[-1].kv.mod_revision


def _covering(watch: _Watch, missing: Event) -> int:
    for index, response in enumerate(watch.responses):
        revisions = [event.kv.mod_revision for event in response.events]
        if response.kind == "progress":
            revisions = [response.header_revision]
        if revisions and max(revisions) >= missing.kv.mod_revision:
            return index
    return len(watch.responses) - 1


def _is_same(event: Event, persisted: Event) -> bool:
    return event.kind == persisted.kind and event.kv == persisted.kv


def _difference(event: Event, persisted: Event) -> str:
    if event.kind != persisted.kind:
        return f"{event.kind}, not {persisted.kind}"
    for name in ("value", "create_revision", "version"):
        here, there = getattr(event.kv, name), getattr(persisted.kv, name)
        if here != there:
            return "value" if name == "value" else f"{name} {here}, not {there}"
    return "lease"


def _resumable(watch: _Watch) -> Iterator[_Offence]:
    """The first event is the first that there is from the revision asked for on."""
    for index, event in watch.events():
        persisted = next(iter(watch.expected(watch.requested, watch.end)), None)
        if persisted is None:
            yield _named(index, event, f"there is no event from {watch.requested} on")
        elif not _is_same(event, persisted):
            at = persisted.kv.mod_revision
            yield _named(
                index, event, f"the first event from {watch.requested} on is another, at {at}"
            )
        return


def _bookmarkable(watch: _Watch) -> Iterator[_Offence]:
    """After a mark no event up to it; no mark below an earlier one or an event before it, or above
    what the store is at in the end."""
    mark = last_event = 0
    for index, response in enumerate(watch.responses):
        for event in response.events:
            if event.kv.mod_revision <= mark:
                yield _named(index, event, f"comes behind the mark at {mark}")
            last_event = max(last_event, event.kv.mod_revision)
        if response.kind == "progress":
            revision = response.header_revision
            for limit, what in ((mark, "the mark"), (last_event, "the event")):
                if revision < limit:
                    yield _Offence(index, revision, None, f"a mark behind {what} at {limit}")
            if revision > watch.end:
                yield _Offence(
                    index, revision, None, f"a mark; the store is only at {watch.end} at the end"
                )
            mark = max(mark, revision)


def _prev_kv(watch: _Watch) -> Iterator[_Offence]:
    """What an event says was there before was there. It may say nothing: that may be compacted."""
    for index, event in watch.events():
        if event.prev_kv is not None:
            before = watch.truth.before(event.kv.key, event.kv.mod_revision)
            if before is None:
                yield _named(index, event, "prev_kv of a key that didn't exist")
            elif event.prev_kv != before:
                yield _named(index, event, f"prev_kv is not that of revision {before.mod_revision}")


def _is_create(watch: _Watch) -> Iterator[_Offence]:
    """A put says that it created the key just if there was none before."""
    for index, event in watch.events():
        if event.kind == "put":
            creates = event.kv.create_revision == event.kv.mod_revision
            existed = watch.truth.before(event.kv.key, event.kv.mod_revision) is not None
            if creates == existed:
                claim = "says that it creates" if creates else "doesn't say that it creates"
                yield _named(index, event, f"{claim}; the key {'exists' if existed else 'is new'}")


def _filter(watch: _Watch) -> Iterator[_Offence]:
    """Every event is of a key, and of a kind, that was asked for."""
    for index, event in watch.events():
        if not watch.in_range(event.kv.key):
            yield _named(index, event, "is outside the range asked for")
        elif _is_filtered(watch.request, event):
            yield _named(index, event, f"a {event.kind} was not asked for")


_Check = Callable[[_Watch], Iterator[_Offence]]

#: By etcd's names (tests/robustness/validate).
GUARANTEES: dict[str, _Check] = {
    "Ordered": _ordered,
    "Unique": _unique,
    "Atomic": _atomic,
    "Reliable": _reliable,
    "Resumable": _resumable,
    "Bookmarkable": _bookmarkable,
    "PrevKV": _prev_kv,
    "IsCreate": _is_create,
    "Filter": _filter,
}


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the JSON output has it."""
    key = None if verdict.key is None else verdict.key.decode("utf-8", "backslashreplace")
    return {
        "guarantee": verdict.guarantee, "state": verdict.state, "detail": verdict.detail,
        "watch": verdict.watch, "response": verdict.response, "revision": verdict.revision,
        "key": key,
    }  # fmt: skip
