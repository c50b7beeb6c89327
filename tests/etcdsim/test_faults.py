"""Faults: what they do to a stream, that they strike in every run, and that counts are right."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from etcdsim.faults import FAULTS, Drop, Duplicate, Fault, Reorder, Split, parse_fault
from etcdsim.model import Event, prefix_range
from etcdsim.simulator import Simulator
from etcdsim.watch import WatchResponse

ALL = (b"\0", b"\0")


def run(
    *faults: Fault, profile: str = "churn", seed: int = 0, objects: int = 20, writes: int = 60
) -> tuple[Simulator, list[WatchResponse], list[WatchResponse]]:
    """A finished run -> what the feed's client got, and what it would have got without faults."""
    simulator = Simulator(profile, seed=seed, objects=objects, faults=faults)
    simulator.load()
    start = simulator.model.revision + 1
    stream = simulator.feed.watch(*ALL, start)
    responses: list[WatchResponse] = []
    for _ in range(writes):
        simulator.step()
        responses += iter(stream.poll, None)
    simulator.finish()
    responses += iter(stream.poll, None)
    clean = [
        WatchResponse(revision, events)
        for revision, events in simulator.model.events(start, simulator.model.revision + 1)
    ]
    return simulator, responses, clean


def with_events(responses: list[WatchResponse]) -> list[WatchResponse]:
    return [response for response in responses if response.events]


def events_of(responses: list[WatchResponse]) -> Counter[Event]:
    return Counter(event for response in responses for event in response.events)


def expected_count(name: str, responses: list[WatchResponse], clean: list[WatchResponse]) -> int:
    """How many injections the stream shows, counted from outside."""
    got = with_events(responses)
    revisions = [response.header_revision for response in got]
    match name:
        case "drop":
            return (events_of(clean) - events_of(got)).total()
        case "duplicate":
            return len(got) - len(clean)
        case "split":
            return len(got) - len(clean)
        case _:
            return sum(later < sooner for sooner, later in pairwise(revisions))


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("rate", [1e-9, 0.05, 1.0])
@pytest.mark.parametrize("profile", ["churn", "hot_key", "lease_storm", "kubernetes"])
def test_every_run_has_one_and_the_count_is_right(name: str, rate: float, profile: str) -> None:
    for seed in range(4):
        for writes, objects in ((0, 5), (1, 1), (40, 30)):
            simulator, responses, clean = run(
                FAULTS[name](rate), profile=profile, seed=seed, writes=writes, objects=objects
            )
            count = simulator.injected[name]
            assert count >= 1, (name, rate, profile, seed, writes)
            assert count == expected_count(name, responses, clean)
            assert simulator.owed == ()
            if rate < 1e-6:
                assert count == 1
            if name != "drop":
                assert set(events_of(responses)) == set(events_of(clean))


@pytest.mark.parametrize("name", FAULTS)
def test_rate_one_touches_everything_that_can_be_touched(name: str) -> None:
    _, responses, clean = run(FAULTS[name](1.0), writes=100)
    got = with_events(responses)
    match name:
        case "drop":
            assert got == []
        case "duplicate":
            assert got == [response for response in clean for _ in range(2)]
        case "split":
            assert len(got) == sum(min(2, len(response.events)) for response in clean)
        case "reorder":
            assert [r.header_revision for r in got] != [r.header_revision for r in clean]
            assert len(got) == len(clean)
    assert responses[-1].progress


def test_rate_zero_touches_nothing() -> None:
    simulator, responses, clean = run(*(fault(0) for fault in FAULTS.values()))
    assert simulator.injected == dict.fromkeys(FAULTS, 0)
    assert with_events(responses) == clean
    assert simulator.writes == 60


@pytest.mark.parametrize("seed", range(10))
def test_all_faults_together_and_the_same_twice(seed: int) -> None:
    faults = [Duplicate(0.1), Split(0.2), Drop(0.1), Reorder(0.1)]
    simulator, responses, _ = run(*faults, seed=seed)
    again, same, _ = run(*reversed(faults), seed=seed)
    assert all(simulator.injected.values())
    assert list(simulator.injected) == ["drop", "reorder", "split", "duplicate"]
    assert responses == same
    assert simulator.injected == again.injected
    other = run(*(type(fault)(fault.rate, seed=1) for fault in faults), seed=seed)[1]
    assert other != responses


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_swapped_across_a_mark_and_marks_come_often(seed: int) -> None:
    simulator, responses, clean = run(Reorder(0.5), seed=seed, writes=200)
    promised = last_mark = clean[0].header_revision - 1
    for response in responses:
        assert response.header_revision > promised or response.progress
        if response.progress:
            assert response.header_revision - last_mark <= 20
            promised = last_mark = response.header_revision
    assert promised == simulator.model.revision


def test_what_happens_does_not_depend_on_when_it_is_polled() -> None:
    faults = [fault(0.1) for fault in FAULTS.values()]
    _, often, _ = run(*faults)
    simulator = Simulator("churn", objects=20, faults=faults)
    simulator.load()
    stream = simulator.feed.watch(*ALL, simulator.model.revision + 1)
    for _ in range(60):
        simulator.step()
    simulator.finish()
    assert list(iter(stream.poll, None)) == often


def test_what_a_closed_stream_held_back_is_not_counted_and_is_made_up_for() -> None:
    simulator = Simulator("churn", objects=20, faults=[f(1e-9) for f in FAULTS.values()])
    simulator.load()
    stream = simulator.feed.watch(*ALL, 0)
    for _ in range(60):
        simulator.step()
    simulator.finish()
    assert simulator.owed == ()
    stream.close()
    assert stream.poll() is None
    assert simulator.injected == dict.fromkeys(FAULTS, 0)
    assert simulator.owed == tuple(FAULTS)
    assert simulator.finish() == 0  # nobody watches
    stream = simulator.feed.watch(*ALL, 0)
    assert simulator.finish() > 0
    while stream.poll():
        pass
    assert simulator.injected == dict.fromkeys(FAULTS, 1)


@pytest.mark.parametrize("name", ["drop", "duplicate"])
def test_a_watch_of_few_keys_gets_its_fault_too(name: str) -> None:
    for seed in range(5):
        simulator = Simulator("kubernetes", seed=seed, objects=100, faults=[FAULTS[name](1e-9)])
        simulator.load()
        stream = simulator.feed.watch(*prefix_range(b"/registry/secrets/"), 0)
        assert 0 < simulator.finish() < 1000
        while stream.poll():
            pass
        assert simulator.injected == {name: 1}


def test_what_can_not_be_touched_is_owed() -> None:
    simulator = Simulator("kubernetes", objects=10, faults=[Split(1.0)])
    simulator.load()
    stream = simulator.feed.watch(*prefix_range(b"/registry/leases/"), 0)
    assert simulator.finish() == 1000
    while stream.poll():
        pass
    assert simulator.injected == {"split": 0}
    assert simulator.owed == ("split",)


def test_truth_is_never_touched() -> None:
    simulator = Simulator("churn", objects=20, faults=[Drop(1.0)])
    simulator.load()
    stream = simulator.truth.watch(*ALL, simulator.model.revision + 1)
    for _ in range(50):
        simulator.step()
    got = list(iter(stream.poll, None))
    assert sum(len(r.events) for r in got) == sum(
        len(events) for _, events in simulator.model.events(22, 72)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lag=0.1", "unknown fault 'lag': known faults are drop, reorder, split, duplicate"),
        ("", "unknown fault ''"),
        ("drop", "fault drop: expected drop=RATE"),
        ("drop=", "fault drop: the rate is not a number: ''"),
        ("drop=often", "fault drop: the rate is not a number: 'often'"),
        ("drop=1.5", "fault drop: the rate must be from 0 to 1, not 1.5"),
        ("drop=-0.1", "fault drop: the rate must be from 0 to 1"),
        ("split=nan", "fault split: the rate must be from 0 to 1, not nan"),
        ("split=inf", "fault split: the rate must be from 0 to 1, not inf"),
    ],
)
def test_a_fault_that_makes_no_sense(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_fault(text)


def test_parse_and_print() -> None:
    assert parse_fault("drop=1e-9") == Drop(1e-9)
    assert str(parse_fault("reorder=0.25")) == "reorder=0.25"
    with pytest.raises(ValueError, match="fault drop is given twice"):
        Simulator("churn", objects=1, faults=[Drop(0.1), Drop(0.2)])
