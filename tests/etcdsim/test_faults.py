"""Faults: what they do to a stream, that they strike in every run, and that counts are right."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from etcdsim.errors import ErrCompacted
from etcdsim.event_faults import Drop, Duplicate, Reorder, Split
from etcdsim.fault import Fault, revision_of
from etcdsim.faults import FAULTS, parse_fault
from etcdsim.model import Event, prefix_range
from etcdsim.simulator import Simulator
from etcdsim.stream_faults import CompactRace, Stale
from etcdsim.watch import WatchResponse

ALL = (b"\0", b"\0")

#: Nothing is lost on its way and nothing altered.
LOSSLESS = {
    "reorder", "split", "duplicate", "delay", "late_progress", "early_progress", "cancel", "stale",
    "etcd_15220", "etcd_15271", "etcd_17247", "etcd_20221",
}  # fmt: skip
#: One strike can be several injections.
SEVERAL = {"etcd_15271", "etcd_17529", "etcd_18089", "lost_delete_at_compaction"}

#: They end the stream; the first two do nothing else.
BREAK_OFF = [
    "cancel", "compact_race", "restart_at_older_revision", "lost_delete_at_compaction",
    "etcd_15271", "etcd_18089", "etcd_20221",
]  # fmt: skip


class Client:
    """Lists, watches, and goes on behind the last revision when its stream is broken off."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.responses: list[WatchResponse] = []
        self.polls: list[list[WatchResponse]] = []  # what each drain gave
        self.at: list[int] = []  # the store's revision at each drain
        self.lists: list[tuple[int, int]] = []  # revision of the list, and the store's
        self._list()
        self.first = self.last

    def _list(self) -> None:
        self.last = self.simulator.feed.range(*ALL).revision
        self.lists.append((self.last, self.simulator.model.revision))
        self._watch()

    def _watch(self) -> None:
        self.stream = self.simulator.feed.watch(*ALL, self.last + 1)

    def drain(self) -> None:
        got: list[WatchResponse] = []
        while (response := self.stream.poll()) is not None:
            got.append(response)
            if response.compact_revision:
                self._list()
            elif response.canceled:
                self._watch()
            elif response.events:
                self.last = max(self.last, revision_of(response))
        self.polls.append(got)
        self.at.append(self.simulator.model.revision)
        self.responses += got


def run(
    *faults: Fault,
    profile: str = "churn",
    seed: int = 0,
    objects: int = 20,
    writes: int = 60,
    polled: bool = False,
) -> tuple[Client, list[WatchResponse]]:
    """A finished run -> the feed's client, and what it would have got without faults. `polled`:
    between any two writes, the added ones too."""
    simulator = Simulator(profile, seed=seed, objects=objects, faults=faults)
    simulator.load()
    client = Client(simulator)
    while simulator.writes < writes or (polled and simulator.owed):
        simulator.step()
        client.drain()
    simulator.finish()
    client.drain()
    while simulator.owed:  # its stream was broken off
        simulator.finish()
        client.drain()
    clean = [
        WatchResponse(revision, events)
        for revision, events in simulator.model.events(
            client.first + 1, simulator.model.revision + 1
        )
    ]
    return client, clean


def with_events(responses: list[WatchResponse]) -> list[WatchResponse]:
    return [response for response in responses if response.events]


def events_of(responses: list[WatchResponse]) -> Counter[Event]:
    return Counter(event for response in responses for event in response.events)


def expected_count(name: str, client: Client, clean: list[WatchResponse]) -> int:
    """How many injections the client's trace shows, counted from outside."""
    got = with_events(client.responses)
    match name:
        case "drop" | "corrupt_revision" | "corrupt_value":
            return (events_of(clean) - events_of(got)).total()
        case "lost_delete_at_compaction" | "etcd_18089":
            return (events_of(clean) - events_of(got)).total()
        case "duplicate" | "split" | "etcd_17247":
            return len(got) - len(clean)
        case "etcd_17529":
            return len(clean) - len(got)
        case "duplicate_revision":
            return sum(revision_of(one) == revision_of(two) for one, two in pairwise(got))
        case "reorder":
            return sum(revision_of(two) < revision_of(one) for one, two in pairwise(got))
        case "delay":
            return sum(len(with_events(poll)) > 1 for poll in client.polls)
        case "late_progress":
            return sum(
                late_marks(poll, at) for poll, at in zip(client.polls, client.at, strict=True)
            )
        case "cancel" | "compact_race":
            return sum(response.canceled for response in client.responses)
        case "stale":
            return sum(listed < store for listed, store in client.lists)
        case _:
            return out_of_place(client, progress=name not in {"etcd_15271", RESTART})


RESTART = "restart_at_older_revision"


def late_marks(poll: list[WatchResponse], at: int) -> int:
    """Marks that another response follows, or that name a revision before the store's."""
    marks = [index for index, response in enumerate(poll) if response.progress]
    return sum(index < len(poll) - 1 or poll[index].header_revision < at for index in marks)


def out_of_place(client: Client, progress: bool) -> int:
    """The marks that don't name the last revision before them, or the events not above it."""
    count, last = 0, client.first
    for response in client.responses:
        if response.progress:
            count += progress and response.header_revision != last
        elif response.events:
            count += not progress and revision_of(response) <= last
            last = max(last, revision_of(response))
    return count


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("rate", [1e-9, 0.05, 1.0])
@pytest.mark.parametrize("profile", ["churn", "hot_key", "lease_storm", "kubernetes"])
def test_every_run_has_one_and_the_count_is_right(name: str, rate: float, profile: str) -> None:
    for seed in range(4):
        for writes, objects in ((0, 5), (1, 1), (40, 30)):
            client, clean = run(
                FAULTS[name](rate), profile=profile, seed=seed, writes=writes, objects=objects,
                polled=name in {"delay", "late_progress"},
            )  # fmt: skip
            count = client.simulator.injected[name]
            assert count >= 1, (name, rate, profile, seed, writes)
            assert count == expected_count(name, client, clean)
            assert client.simulator.owed == ()
            if rate < 1e-6 and name not in SEVERAL:
                assert count == 1
            if name in LOSSLESS:
                assert set(events_of(client.responses)) == set(events_of(clean))


@pytest.mark.parametrize(
    "name", ["drop", "reorder", "split", "duplicate", "cancel", "early_progress"]
)
def test_rate_one_touches_everything_that_can_be_touched(name: str) -> None:
    client, clean = run(FAULTS[name](1.0), writes=100)
    got = with_events(client.responses)
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
        case _:
            assert got == clean
            assert client.simulator.injected == {name: len(clean)}
    assert client.responses[-1].progress or name == "cancel"


def test_rate_zero_touches_nothing() -> None:
    client, clean = run(*(fault(0) for fault in FAULTS.values()))
    assert client.simulator.injected == dict.fromkeys(FAULTS, 0)
    assert with_events(client.responses) == clean
    assert client.simulator.writes == 60


@pytest.mark.parametrize("seed", range(10))
def test_all_faults_together_and_the_same_twice(seed: int) -> None:
    faults = [Duplicate(0.1), Split(0.2), Drop(0.1), Reorder(0.1)]
    client, _ = run(*faults, seed=seed)
    again, _ = run(*reversed(faults), seed=seed)
    injected = client.simulator.injected
    assert all(injected.values())
    assert list(injected) == ["drop", "reorder", "split", "duplicate"]
    assert client.responses == again.responses
    assert injected == again.simulator.injected
    other, _ = run(*(type(fault)(fault.rate, seed=1) for fault in faults), seed=seed)
    assert other.responses != client.responses


@pytest.mark.parametrize("name", FAULTS)
def test_the_same_twice(name: str) -> None:
    client, _ = run(FAULTS[name](0.1), seed=3)
    again, _ = run(FAULTS[name](0.1), seed=3)
    assert client.responses == again.responses
    assert client.lists == again.lists


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_swapped_across_a_mark_and_marks_come_often(seed: int) -> None:
    client, clean = run(Reorder(0.5), seed=seed, writes=200)
    promised = last_mark = clean[0].header_revision - 1
    for response in client.responses:
        assert response.header_revision > promised or response.progress
        if response.progress:
            assert response.header_revision - last_mark <= 20
            promised = last_mark = response.header_revision
    assert promised == client.simulator.model.revision


@pytest.mark.parametrize("names", [*([name] for name in FAULTS), list(FAULTS)], ids="+".join)
def test_what_happens_does_not_depend_on_when_it_is_polled(names: list[str]) -> None:
    got = []
    for often in (True, False):
        faults = [FAULTS[name](0.1) for name in names]
        simulator = Simulator("churn", objects=20, faults=faults)
        simulator.load()
        stream = simulator.feed.watch(*ALL, simulator.model.revision + 1)
        responses: list[WatchResponse] = []
        for _ in range(60):
            simulator.step()
            if often:
                responses += iter(stream.poll, None)
        simulator.finish()
        got.append([*responses, *iter(stream.poll, None)])
    assert got[0] == got[1]


def test_what_a_closed_stream_held_back_is_not_counted_and_is_made_up_for() -> None:
    names = [name for name in FAULTS if name not in {"stale", *BREAK_OFF, *SEVERAL}]
    simulator = Simulator("churn", objects=20, faults=[FAULTS[name](1e-9) for name in names])
    simulator.load()
    stream = simulator.feed.watch(*ALL, 0)
    for _ in range(60):
        simulator.step()
    simulator.finish()
    assert simulator.owed == ()
    stream.close()
    assert stream.poll() is None
    assert simulator.injected == dict.fromkeys(names, 0)
    assert simulator.owed == tuple(names)
    assert simulator.finish() == 0  # nobody watches
    stream = simulator.feed.watch(*ALL, 0)
    assert simulator.finish() > 0
    while stream.poll():
        pass
    assert simulator.injected == dict.fromkeys(names, 1)


@pytest.mark.parametrize("name", BREAK_OFF)
def test_a_stream_that_is_broken_off_ends(name: str) -> None:
    simulator = Simulator("churn", objects=20, faults=[FAULTS[name](1e-9)])
    simulator.load()
    stream = simulator.feed.watch(*ALL, 0)
    for _ in range(60):
        simulator.step()
    simulator.finish()
    responses = list(iter(stream.poll, None))
    assert [response.canceled for response in responses].index(True) == len(responses) - 1
    simulator.step()
    assert stream.poll() is None
    assert simulator.feed.open_streams() == []


@pytest.mark.parametrize("name", BREAK_OFF)
def test_a_break_that_no_client_saw_does_not_count(name: str) -> None:
    simulator = Simulator("churn", objects=20, faults=[FAULTS[name](1e-9)])
    simulator.load()
    stream = simulator.feed.watch(*ALL, 0)
    for _ in range(60):
        simulator.step()
    simulator.finish()
    stream.close()
    assert simulator.injected == {name: 0}
    assert simulator.owed == (name,)


def test_what_was_compacted_in_a_race_is_gone_for_every_client() -> None:
    simulator = Simulator("churn", objects=20, faults=[CompactRace(1.0)])
    simulator.load()
    stream, pinned = simulator.feed.watch(*ALL, 0), simulator.model.revision
    first = simulator.feed.range(*ALL, revision=pinned, limit=2)
    simulator.step()
    simulator.step()
    (response,) = iter(stream.poll, None)
    assert response.compact_revision == pinned + 2
    with pytest.raises(ErrCompacted):  # between the pages of a list
        simulator.feed.range(first.kvs[-1].key + b"\0", ALL[1], revision=pinned, limit=2)
    assert simulator.truth.range(*ALL, revision=pinned).count == first.count
    again = simulator.feed.watch(*ALL, pinned + 1)
    assert again.poll() == response
    assert simulator.injected == {"compact_race": 1}
    assert simulator.feed.range(*ALL, revision=pinned + 2).kvs
    live = simulator.feed.watch(*ALL, pinned + 2)
    assert live.poll() is None  # the race is on again: it has no successor yet


def test_a_stale_read_is_the_truth_of_the_revision_that_it_names() -> None:
    simulator = Simulator("churn", objects=20, faults=[Stale(1.0)])
    simulator.load()
    for _ in range(30):
        simulator.step()
        found, current = simulator.feed.range(*ALL), simulator.model.revision
        assert current - 20 <= found.revision < current
        assert found.kvs == simulator.truth.range(*ALL, revision=found.revision).kvs
        assert simulator.feed.range(*ALL, revision=current).revision == current
    assert simulator.injected == {"stale": 30}
    simulator.model.compact(simulator.model.revision)
    assert simulator.feed.range(*ALL).revision == simulator.model.revision
    assert simulator.injected == {"stale": 30}


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
