"""Validation: clean traces are valid, one changed to break a guarantee is refused by its name."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from etcdsim.faults import parse_fault
from etcdsim.history import record
from etcdsim.model import ALL, Event, KeyValue
from etcdsim.prng import Prng
from etcdsim.record import record_simulated, rerun
from etcdsim.simulator import Simulator
from etcdsim.trace import (
    Origin,
    Response,
    Trace,
    WatchRequest,
    WatchTrace,
    Write,
    load_trace,
    write_trace,
)
from etcdsim.traffic import PROFILES
from etcdsim.txn import DeleteRange, Put
from etcdsim.validate import GUARANTEES, overall, validate
from tests.trace_changes import BREAKING, HARMLESS, changes

SEEDS = 20  # of each profile: each a trace, and some thirty changed ones


def traced(profile: str, seed: int, *faults: str) -> Trace:
    simulator = Simulator(profile, seed=seed, objects=10, faults=list(map(parse_fault, faults)))
    return record_simulated(simulator, 40, clients=2)


def lines(trace: Trace) -> list[bytes]:
    file = io.BytesIO()
    write_trace(trace, file)
    return file.getvalue().splitlines()


def broken(trace: Trace) -> set[str]:
    return {verdict.guarantee for verdict in validate(trace) if verdict.state == "broken"}


@pytest.mark.parametrize("profile", PROFILES)
def test_clean_traces_are_valid_and_changed_ones_as_labelled(profile: str) -> None:
    met: Counter[str] = Counter()
    for seed in range(SEEDS):
        trace = traced(profile, seed)
        assert overall(validate(trace)) == "valid", f"{profile} seed {seed}"
        for change in changes(trace, Prng(seed)):
            verdicts = validate(change.trace)
            assert change.is_met_by(verdicts), (
                f"{profile} seed {seed}: {change.name}: not {change.guarantee} {change.state}: "
                f"{[str(verdict) for verdict in verdicts if verdict.state != 'valid']}"
            )
            met[change.name] += 1
    # The simulator has no filters, and few transactions but those of churn and lease_storm.
    rare = {"kind filtered", "swapped inside a revision", "revision split", "fragments"}
    assert {name for name in BREAKING | HARMLESS if not met[name]} <= rare


@pytest.mark.parametrize(
    ("fault", "guarantees"),
    [
        ("drop", {"Reliable"}),
        ("duplicate", {"Unique"}),
        ("reorder", {"Ordered"}),
        ("split", {"Atomic"}),
        ("corrupt_value", {"Reliable"}),
        ("early_progress", {"Bookmarkable"}),
        ("etcd_15220", {"Bookmarkable"}),
        ("etcd_17247", {"Unique"}),
        ("etcd_17529", {"Reliable"}),
        ("delay", set()),
        ("late_progress", set()),
        ("cancel", set()),
        ("compact_race", set()),
        ("stale", set()),
    ],
)
def test_the_faults_of_the_simulator(fault: str, guarantees: set[str]) -> None:
    found = broken(traced("churn", 3, f"{fault}=0.1"))
    assert guarantees <= found
    assert guarantees or not found


def test_the_same_run_is_the_same_bytes_and_reads_back() -> None:
    trace = traced("churn", 5, "drop=0.1")
    assert lines(trace) == lines(traced("churn", 5, "drop=0.1"))
    assert load_trace(lines(trace)) == trace
    again, rerun_trace = rerun(trace)
    assert (again.splitlines(), rerun_trace) == (lines(trace), trace)


def test_a_trace_of_one_watch_is_judged_by_running_it_again() -> None:
    file = io.BytesIO()
    record(Simulator("churn", seed=4, objects=10, faults=[parse_fault("drop=0.1")]), 50, file)
    trace = load_trace(file.getvalue().splitlines())
    assert overall(validate(trace)) == "unknown"
    data, with_truth = rerun(trace)
    assert data == file.getvalue()
    assert broken(with_truth) == {"Reliable"}


# By hand: a store with one key under "k/", its truth from acknowledged transactions.

WRITES = (
    Write(0, (Put(b"k/a", b"1"),), (0,), 12),
    Write(1, (DeleteRange(b"k/x"),), (0,), 12),  # nothing there: no revision of its own
    Write(1, (Put(b"k/a", b"2"), Put(b"k/b", b"3")), (0, 0), 13),
    Write(0, (DeleteRange(b"k/", b"k0"),), (2,), 15),
)
A1, A2 = KeyValue(b"k/a", b"1", 12, 12, 1), KeyValue(b"k/a", b"2", 12, 13, 2)
B1 = KeyValue(b"k/b", b"3", 13, 13, 1)
EVENTS = (
    Event("put", A1),
    Event("put", A2, A1),
    Event("put", B1),
    Event("delete", KeyValue(b"k/a", b"", 0, 15, 0), A2),
    Event("delete", KeyValue(b"k/b", b"", 0, 15, 0), B1),
)
RESPONSES = (
    Response("created", 15),
    Response("events", 15, EVENTS),
    Response("progress", 16),
    Response("canceled", compact_revision=17),
)
BY_HAND = Trace(
    Origin("etcd", "transactions", "3.5.30", prefix=b"k/", first_revision=10),
    (WatchTrace(0, WatchRequest(b"k/", b"k0", 11, True, True, ()), RESPONSES),),
    end=17,
    writes=WRITES,
    final=(),
)


def with_writes(*writes: Write) -> Trace:
    return replace(BY_HAND, writes=writes)


def with_watch(request: WatchRequest, *responses: Response) -> Trace:
    return replace(BY_HAND, watches=(WatchTrace(0, request, responses),))


def test_transactions_are_a_truth() -> None:
    assert [verdict.state for verdict in validate(BY_HAND)] == ["valid"] * len(GUARANTEES)
    assert load_trace(lines(BY_HAND)) == BY_HAND


@pytest.mark.parametrize(
    ("trace", "reason"),
    [
        (with_writes(*WRITES, Write(2, (Put(b"k/c", b""),), (), None)), "client 2 was never answ"),
        (with_writes(*WRITES, replace(WRITES[0], revision=13)), "two writes at revision 13"),
        (with_writes(*WRITES[:3]), "the last read differs"),
        (with_writes(*WRITES[:2], WRITES[3]), "the delete at revision 15 deleted 2, not 1"),
        (with_writes(replace(WRITES[0], deleted=())), "revision 12 is not answered in full"),
        (replace(BY_HAND, end=14), "revision 15 is above the end, 14"),
        (with_watch(WatchRequest(b"k/", b"k0", 11)), "watch 0: the request was never answered"),
        (with_watch(WatchRequest(b"k/", b"k0", 10), RESPONSES[0]), "starts at 10, before the trut"),
        (with_watch(WatchRequest(b"k/", b"k1", 11), RESPONSES[0]), "doesn't cover its range"),
        (with_watch(WatchRequest(ALL, ALL, 11), RESPONSES[0]), "doesn't cover its range"),
        (
            with_watch(WatchRequest(b"k/", b"k0", 11), *RESPONSES, RESPONSES[2]),
            "something behind its cancel",
        ),
    ],
)
def test_without_its_assumptions_a_trace_is_unknown(trace: Trace, reason: str) -> None:
    verdicts = validate(trace)
    assert {verdict.state for verdict in verdicts} == {"unknown"}
    assert reason in verdicts[0].detail


def test_filters_and_single_keys() -> None:
    put_only = WatchRequest(b"k/a", b"", 11, filters=("nodelete",))
    good = (RESPONSES[0], Response("events", 15, EVENTS[:2]), RESPONSES[2])
    assert broken(with_watch(put_only, *good)) == set()
    seen = (RESPONSES[0], Response("events", 15, (*EVENTS[:2], EVENTS[3])), RESPONSES[2])
    assert broken(with_watch(put_only, *seen)) == {"Filter", "Reliable"}


def test_a_client_that_leaves_between_two_fragments() -> None:
    request = WatchRequest(b"k/", b"k0", 11)
    part = (RESPONSES[0], Response("events", 15, EVENTS[:2], fragment=True))
    assert broken(with_watch(request, *part)) == set()
    assert broken(with_watch(request, *part, RESPONSES[2])) == {"Reliable"}


def test_the_first_offending_response_is_named_in_one_line() -> None:
    wrong = replace(EVENTS[1], kv=replace(A2, value=b"x"))
    events = (EVENTS[0], wrong, *EVENTS[2:])
    trace = with_watch(BY_HAND.watches[0].request, RESPONSES[0], Response("events", 15, events))
    lines_ = [str(verdict) for verdict in validate(trace) if verdict.state == "broken"]
    assert lines_ == [
        "Reliable broken: watch 0 response 1 revision 13 key 'k/a': is not as persisted: value"
    ]


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, {"format": 3}, "line 1: "),
        (0, {"origin": "tape"}, "line 1: not a line of a trace: unknown origin 'tape'"),
        (0, {"first_revision": "1"}, "line 1: not a line of a trace: not an integer: '1'"),
        (1, {"type": "wrote"}, "line 2: not a line of a trace: unknown type 'wrote'"),
        (1, {"ops": [["put", "a2V5"]]}, "line 2: not a line of a trace"),
        (5, {"watch": 4}, "watch 4 is not the next one, 0"),
        (5, {"filters": ["nothing"]}, "unknown filter"),
        (6, {"watch": 7}, "line 7: not a line of a trace: there is no watch 7 yet"),
        (6, {"header_revision": None}, "line 7: not a line of a trace: not an integer: None"),
        (7, {"events": []}, "an events response without events"),
        (7, {"events": [[]]}, "line 8: not a line of a trace"),
        (7, {"events": [["put", 5, 5, 5, 5, 5, None]]}, "line 8: not a line of a trace"),
        (7, {"events": 3}, "line 8: not a line of a trace"),
    ],
)
def test_a_malformed_trace_is_refused(number: int, change: dict[str, object], message: str) -> None:
    good = [json.loads(line) for line in lines(BY_HAND)]
    assert [line["type"] for line in good][4:8] == ["write", "watch", "created", "events"]
    good[number] |= change
    with pytest.raises(ValueError, match=r"^line|^the trace") as caught:
        load_trace([json.dumps(line).encode() for line in good])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trace_cut_off_anywhere_is_refused() -> None:
    data = b"\n".join(lines(BY_HAND))
    for length in range(0, len(data), 7):
        with pytest.raises(ValueError, match=r"^(line \d+: |the trace is cut off)"):
            load_trace(data[:length].splitlines())


ODD = (None, 0, -1, True, 1.5, 10**30, "", "x", "AA==", "events", [], [[]], [None], ["put"], {})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for step, below in inner:
        yield (*path, step)
        if isinstance(below, dict | list):
            yield from places(below, (*path, step))


def attempt(trace: list[Any]) -> tuple[str, Trace | None]:
    try:
        return "", load_trace([json.dumps(line).encode() for line in trace])
    except ValueError as error:
        return str(error), None


def test_whatever_a_line_holds_it_is_judged_or_refused_in_one_line() -> None:
    prng = Prng(11)
    file = io.BytesIO()
    record(Simulator("churn", seed=1, objects=3), 6, file)
    judged = 0
    for number in range(1500):
        good = file.getvalue().splitlines() if number % 2 else lines(BY_HAND)
        trace = [json.loads(line) for line in good]
        line = prng.choice(trace)
        *way, last = prng.choice(list(places(line)))
        for step in way:
            line = line[step]
        line[last] = prng.choice(ODD)
        refused, loaded = attempt(trace)
        assert "\n" not in refused
        if loaded is not None:
            assert len(validate(loaded)) == len(GUARANTEES)
            judged += 1
    assert judged > 50
