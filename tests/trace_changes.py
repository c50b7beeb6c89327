"""One change to a clean trace, labelled by construction: what it must break, or that it is none.

Nothing here asks the validator, or computes what it computes. A label follows from how the change
was made and from the original being clean: an event that was altered is not what was persisted; a
response that was dropped held events that a later one covers. A change is made at a seeded place;
where a trace has none for it, there is no change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from etcdsim.model import Event, KeyValue
from etcdsim.prng import Prng
from etcdsim.trace import Response, Trace, WatchTrace
from etcdsim.validate import Verdict


@dataclass(frozen=True)
class Change:
    """`guarantee` must be broken; None: `state` is what must not (valid) or must (unknown) come."""

    name: str
    trace: Trace
    guarantee: str | None
    state: Literal["broken", "valid", "unknown"]

    def is_met_by(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether verdicts on the changed trace agree with the label."""
        broken = {verdict.guarantee for verdict in verdicts if verdict.state == "broken"}
        if self.state == "broken":
            return self.guarantee in broken
        if self.state == "unknown":
            return all(verdict.state == "unknown" for verdict in verdicts)
        return not broken


Responses = list[Response]
#: A change at one response of a watch -> the watch's new responses and the guarantee that they
#: break, None if there is nothing to change at this place.
Made = tuple[Responses, str | None] | None
At = Callable[[Trace, WatchTrace, int, Prng], Made]


def _revisions(response: Response) -> list[int]:
    return [event.kv.mod_revision for event in response.events]


def _with(watch: WatchTrace, index: int, *instead: Response) -> Responses:
    responses = list(watch.responses)
    responses[index : index + 1] = instead
    return responses


def _is_sure(watch: WatchTrace, revision: int) -> bool:
    """The watch had to show a change at `revision`: one from "now" on, only behind its answer."""
    return bool(watch.request.start_revision) or revision > watch.responses[0].header_revision


def _altered(alter: Callable[[Event], Event | None], guarantee: str) -> At:
    def at(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
        response = watch.responses[index]
        if not response.events:
            return None
        place = prng.below(len(response.events))
        event = response.events[place]
        other = alter(event)
        if other is None or not _is_sure(watch, event.kv.mod_revision):
            return None
        events = (*response.events[:place], other, *response.events[place + 1 :])
        return _with(watch, index, replace(response, events=events)), guarantee

    return at


def _kv(event: Event, **fields: object) -> Event:
    return replace(event, kv=replace(event.kv, **fields))  # type: ignore[arg-type]


def _other_value(event: Event) -> Event | None:
    return _kv(event, value=event.kv.value + b"!") if event.kind == "put" else None


def _other_type(event: Event) -> Event:
    key, revision = event.kv.key, event.kv.mod_revision
    if event.kind == "put":
        return replace(event, kind="delete", kv=KeyValue(key, b"", 0, revision, 0))
    return replace(event, kind="put", kv=KeyValue(key, b"", revision, revision, 1))


def _other_version(event: Event) -> Event | None:
    return _kv(event, version=event.kv.version + 1) if event.kind == "put" else None


def _other_create(event: Event) -> Event | None:
    if event.kind == "delete":
        return None
    revision = event.kv.mod_revision
    is_create = event.kv.create_revision == revision
    return _kv(event, create_revision=revision - 1 if is_create else revision)


def _other_prev_kv(event: Event) -> Event | None:
    if event.prev_kv is None:
        return None
    return replace(event, prev_kv=replace(event.prev_kv, value=event.prev_kv.value + b"!"))


def _no_prev_kv(event: Event) -> Event | None:
    return replace(event, prev_kv=None) if event.prev_kv else None


def _key_outside(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    end = watch.request.range_end
    if end == b"\0":
        return None
    response = watch.responses[index]
    outside = end + b"!" if end else watch.request.key + b"!"
    if not response.events:
        return None
    events = (_kv(response.events[0], key=outside), *response.events[1:])
    return _with(watch, index, replace(response, events=events)), "Filter"


def _of_filtered_kind(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    response = watch.responses[index]
    if not response.events or not watch.request.filters:
        return None
    events = (_other_type(response.events[0]), *response.events[1:])
    return _with(watch, index, replace(response, events=events)), "Filter"


def _header(place: Callable[[Trace, WatchTrace, int], int | None], guarantee: str | None) -> At:
    def at(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
        response = watch.responses[index]
        header = place(trace, watch, index)
        if header is None or header == response.header_revision:
            return None
        return _with(watch, index, replace(response, header_revision=header)), guarantee

    return at


def _header_below_events(trace: Trace, watch: WatchTrace, index: int) -> int | None:
    revisions = _revisions(watch.responses[index])
    return revisions[-1] - 1 if revisions else None


def _header_of_later(trace: Trace, watch: WatchTrace, index: int) -> int | None:
    return trace.end if watch.responses[index].kind == "events" else None


def _created_header_of_fixed_start(trace: Trace, watch: WatchTrace, index: int) -> int | None:
    return trace.end if index == 0 and watch.request.start_revision else None


def _created_header_too_early(trace: Trace, watch: WatchTrace, index: int) -> int | None:
    # Below an event that another watch got and this one, from "now" on, would have had to show.
    request, later = watch.request, watch.responses[1:]
    first = next((_revisions(response)[0] for response in later if response.events), 0)
    if index or request.start_revision or not first:
        return None
    last_key = request.range_end or request.key + b"\0"
    for other in trace.watches:
        for response in other.responses:
            for event in response.events:
                revision = event.kv.mod_revision
                in_range = request.key <= event.kv.key and (
                    last_key == b"\0" or event.kv.key < last_key
                )
                wanted = ("noput" if event.kind == "put" else "nodelete") not in request.filters
                if in_range and wanted and revision < first:
                    return revision - 1
    return None


def _header_above_end(kinds: tuple[str, ...]) -> Callable[[Trace, WatchTrace, int], int | None]:
    return lambda trace, watch, index: (
        trace.end + 1 + index if watch.responses[index].kind in kinds else None
    )


def _mark_below(trace: Trace, watch: WatchTrace, index: int) -> int | None:
    if watch.responses[index].kind != "progress":
        return None
    before = watch.responses[1:index]
    known = [r for response in before for r in (_revisions(response) or [response.header_revision])]
    return max(known) - 1 if known else None


def _mark_of_later_event(trace: Trace, watch: WatchTrace, index: int) -> int | None:
    if watch.responses[index].kind != "progress":
        return None
    later = [r for response in watch.responses[index + 1 :] for r in _revisions(response)]
    return later[0] if later else None


def _drop(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    dropped, later = _revisions(watch.responses[index]), watch.responses[index + 1 :]
    sure = [revision for revision in dropped if _is_sure(watch, revision)]
    covered = any(response.kind in ("events", "progress") for response in later)
    return (_with(watch, index), "Reliable") if sure and covered else None


def _drop_first(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    dropped, later = _revisions(watch.responses[index]), watch.responses[index + 1 :]
    is_first = not any(response.events for response in watch.responses[:index])
    if not dropped or not is_first or not _is_sure(watch, dropped[0]):
        return None
    covered = any(response.events for response in later)
    return (_with(watch, index), "Resumable") if covered else None


def _drop_last(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    later = watch.responses[index + 1 :]
    if not watch.responses[index].events or any(r.kind != "canceled" for r in later):
        return None
    return _with(watch, index), None


def _drop_mark(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    return (_with(watch, index), None) if watch.responses[index].kind == "progress" else None


def _double(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    response = watch.responses[index]
    last = len(watch.responses) - (watch.responses[-1].kind == "canceled")
    if not response.events:
        return None
    responses = list(watch.responses)
    responses.insert(index + 1 + prng.below(last - index), response)
    return responses, "Unique"


def _double_mark(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    response = watch.responses[index]
    if response.kind != "progress":
        return None
    return _with(watch, index, response, response), None


def _swapped(first: str, second: str, guarantee: str) -> At:
    def at(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
        others = [
            other
            for other in range(index + 1, len(watch.responses))
            if watch.responses[other].kind == second
        ]
        if watch.responses[index].kind != first or not others:
            return None
        other = prng.choice(others)
        responses = list(watch.responses)
        responses[index], responses[other] = responses[other], responses[index]
        return responses, guarantee

    return at


def _swap_inside(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    response = watch.responses[index]
    for place in range(1, len(response.events)):
        one, two = response.events[place - 1 : place + 1]
        if one.kv.mod_revision == two.kv.mod_revision:
            events = (*response.events[: place - 1], two, one, *response.events[place + 1 :])
            return _with(watch, index, replace(response, events=events)), "Ordered"
    return None


def _split(*, fragment: bool) -> At:
    def at(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
        response = watch.responses[index]
        revisions = _revisions(response)
        for place in range(1, len(revisions)):
            if revisions[place - 1] == revisions[place]:
                head = replace(response, events=response.events[:place], fragment=fragment)
                tail = replace(response, events=response.events[place:])
                return _with(watch, index, head, tail), None if fragment else "Atomic"
        return None

    return at


def _merge(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    if index == 0 or not (watch.responses[index].events and watch.responses[index - 1].events):
        return None
    one, two = watch.responses[index - 1 : index + 1]
    responses = list(watch.responses)
    responses[index - 1 : index + 1] = [replace(two, events=one.events + two.events)]
    return responses, None


def _unanswered(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    return (list(watch.responses[1:]), None) if index == 0 else None


def _raised(by: int) -> Callable[[Event], Event]:
    return lambda event: _kv(event, mod_revision=event.kv.mod_revision + by)


def _lowered(trace: Trace, watch: WatchTrace, index: int, prng: Prng) -> Made:
    if not watch.request.start_revision:
        return None
    lower = _altered(lambda event: _kv(event, mod_revision=event.kv.mod_revision - 1), "Reliable")
    return lower(trace, watch, index, prng)


BREAKING: dict[str, At] = {
    "key": _altered(lambda event: _kv(event, key=event.kv.key + b"~"), "Reliable"),
    "key outside": _key_outside,
    "kind filtered": _of_filtered_kind,
    "value": _altered(_other_value, "Reliable"),
    "type": _altered(_other_type, "Reliable"),
    "mod_revision + 1": _altered(_raised(1), "Reliable"),
    "mod_revision + 7": _altered(_raised(7), "Reliable"),
    "mod_revision - 1": _lowered,
    "version": _altered(_other_version, "Reliable"),
    "create_revision": _altered(_other_create, "IsCreate"),
    "prev_kv": _altered(_other_prev_kv, "PrevKV"),
    "header below its events": _header(_header_below_events, "Ordered"),
    "header above the end": _header(_header_above_end(("created", "events")), "Ordered"),
    "created header too early": _header(_created_header_too_early, "Reliable"),
    "mark above the end": _header(_header_above_end(("progress",)), "Bookmarkable"),
    "mark below what came before": _header(_mark_below, "Bookmarkable"),
    "mark above a later event": _header(_mark_of_later_event, "Bookmarkable"),
    "response dropped": _drop,
    "first response dropped": _drop_first,
    "response doubled": _double,
    "two swapped": _swapped("events", "events", "Ordered"),
    "events and a mark swapped": _swapped("events", "progress", "Bookmarkable"),
    "a mark and events swapped": _swapped("progress", "events", "Bookmarkable"),
    "swapped inside a revision": _swap_inside,
    "revision split": _split(fragment=False),
}

HARMLESS: dict[str, At] = {
    "no prev_kv": _altered(_no_prev_kv, ""),
    "header of a later revision": _header(_header_of_later, None),
    "created header of a fixed start": _header(_created_header_of_fixed_start, None),
    "last response dropped": _drop_last,
    "mark dropped": _drop_mark,
    "mark doubled": _double_mark,
    "fragments": _split(fragment=True),
    "responses merged": _merge,
}

UNKNOWN: dict[str, At] = {"request unanswered": _unanswered}


def _somewhere(trace: Trace, at: At, prng: Prng) -> tuple[Trace, str | None] | None:
    places = [
        (number, index)
        for number, watch in enumerate(trace.watches)
        for index in range(len(watch.responses))
    ]
    first = prng.below(max(1, len(places)))
    for number, index in places[first:] + places[:first]:
        watch = trace.watches[number]
        made = at(trace, watch, index, prng)
        if made is not None:
            responses, guarantee = made
            changed = replace(watch, responses=tuple(responses))
            watches = (*trace.watches[:number], changed, *trace.watches[number + 1 :])
            return replace(trace, watches=watches), guarantee
    return None


def _of_truth(trace: Trace, prng: Prng) -> Iterator[tuple[str, Trace]]:
    if trace.truth:
        place = prng.below(len(trace.truth))
        yield (
            "truth incomplete",
            replace(trace, truth=trace.truth[:place] + trace.truth[place + 1 :]),
        )
    if trace.writes:
        place = prng.below(len(trace.writes))
        unanswered = replace(trace.writes[place], revision=None)
        writes = (*trace.writes[:place], unanswered, *trace.writes[place + 1 :])
        yield "write unanswered", replace(trace, writes=writes)


def changes(trace: Trace, prng: Prng) -> Iterator[Change]:
    """One change of each kind that the trace has a place for."""
    for name, at in BREAKING.items():
        found = _somewhere(trace, at, prng)
        if found is not None:
            yield Change(name, found[0], found[1], "broken")
    for name, at in HARMLESS.items():
        found = _somewhere(trace, at, prng)
        if found is not None:
            yield Change(name, found[0], None, "valid")
    for name, at in UNKNOWN.items():
        found = _somewhere(trace, at, prng)
        if found is not None:
            yield Change(name, found[0], None, "unknown")
    for name, changed in _of_truth(trace, prng):
        yield Change(name, changed, None, "unknown")
