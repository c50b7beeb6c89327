"""Traces: the same run is the same bytes, here and on every other Python, and reads back whole."""

from __future__ import annotations

import io
from hashlib import sha256

import pytest

from etcdsim.faults import FAULTS
from etcdsim.history import End, Entry, Header, Listing, TraceWriter, read_trace, record
from etcdsim.simulator import Simulator
from etcdsim.traffic import PROFILES
from etcdsim.watch import WatchResponse

# Of `etcdsim record --profile P --seed 7 --objects 60 --writes 150`. A change of these is a change
# of what every seed means: say so in the changelog.
PINNED = {
    "kubernetes": "8da826b8aa5b4e2201378bf62ed173fe31d3ef4a3e1e8ed00dbf4372367e0cb9",
    "churn": "41af6c8ddd7b74173329741d41624e0446610ede5ec59260aadaa8f3eab248ee",
    "hot_key": "600b241da445ba0867387043e1bb9e254aa2d44c6d78c85ec2d821ce667cd5d4",
    "lease_storm": "534a4efe047bbcd4a393ab75fad8bad78c49cd48828d3bb9146ae0be3d944853",
}


def trace(profile: str, seed: int = 7, rate: float | None = None) -> tuple[str, bytes]:
    faults = [] if rate is None else [fault(rate) for fault in FAULTS.values()]
    simulator = Simulator(profile, seed=seed, objects=60, faults=faults)
    file = io.BytesIO()
    return record(simulator, 150, file).sha256, file.getvalue()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_seed_means_the_same_as_ever(profile: str) -> None:
    digest, content = trace(profile)
    assert digest == sha256(content).hexdigest() == PINNED[profile]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("rate", [None, 0.05])
def test_the_same_seed_twice_and_another(profile: str, rate: float | None) -> None:
    assert trace(profile, 1, rate) == trace(profile, 1, rate)
    assert trace(profile, 1, rate)[0] != trace(profile, 2, rate)[0]


@pytest.mark.parametrize("profile", PROFILES)
def test_read_back(profile: str) -> None:
    simulator = Simulator(profile, seed=3, objects=1100, faults=[FAULTS["drop"](0.02)])
    file = io.BytesIO()
    record(simulator, 100, file)
    header, *entries, end = read_trace(file.getvalue().splitlines())
    assert header == Header(profile, 3, 1100, 100, ("drop=0.02",))
    pages = [entry for entry in entries if isinstance(entry, Listing)]
    responses = [entry for entry in entries if isinstance(entry, WatchResponse)]
    assert end == End(simulator.model.revision, len(responses), simulator.injected)
    listed = [kv for page in pages for kv in page.kvs]
    assert listed == simulator.model.range(b"\0", b"\0", revision=1101).kvs
    assert [page.more for page in pages] == [True, True, False]
    happened = {e for _, events in simulator.model.events(1102, end.revision + 1) for e in events}
    seen = {event for response in responses for event in response.events}
    assert seen < happened
    assert len(happened - seen) == simulator.injected["drop"]
    assert responses[-1] == WatchResponse(end.revision, progress=True)


def test_a_canceled_watch_reads_back() -> None:
    file = io.BytesIO()
    writer = TraceWriter(file)
    entries: list[Entry] = [
        Header("churn", 0, 1, 0, ()),
        WatchResponse(0, compact_revision=9, canceled=True),
        End(9, 1, {}),
    ]
    for entry in entries:
        writer.write(entry)
    assert list(read_trace(file.getvalue().splitlines())) == entries


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: [], "cut off"),
        (lambda lines: lines[1:], "line 1: a trace begins with its one header"),
        (lambda lines: [*lines, lines[-1]], "the trace has ended before"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], "line 2: a trace begins"),
        (lambda lines: [lines[0], b"{}", *lines[1:]], "line 2: not a line of a trace"),
        (lambda lines: [lines[0], b"[", *lines[1:]], "line 2: not a line of a trace"),
        (lambda lines: [lines[0].replace(b'"format":1', b'"format":9')], "unknown format 9"),
    ],
)
def test_a_damaged_trace_is_refused(damage: object, message: str) -> None:
    lines = trace("hot_key")[1].splitlines()
    with pytest.raises(ValueError, match=message):
        list(read_trace(damage(lines)))  # type: ignore[operator]
