"""Shared trips: both halves of the promise by interleavings that are made, not hoped for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from btreecache.errors import Unavailable
from btreecache.trips import PROGRESS_S, TRUST_S, AsyncTrips, ProgressRequests, Trips
from tests.fakes import Clock

LONG_S = 10.0


class Counted:
    """A lock that counts how often it was taken: who took it has come, or has left."""

    def __init__(self) -> None:
        self.lock, self.taken = threading.Lock(), 0

    def __enter__(self) -> None:
        self.lock.acquire()
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.0005)


class Road:
    """A source whose answer is read when a trip begins, and given when the test lets it."""

    def __init__(self) -> None:
        self.revision = 1
        self.begun = 0
        self.gates = [threading.Event() for _ in range(4)]
        self.errors: dict[int, BaseException] = {}

    def fetch(self) -> int:
        trip, read = self.begun, self.revision
        self.begun += 1
        assert self.gates[trip].wait(LONG_S)
        if trip in self.errors:
            raise self.errors[trip]
        return read


def shared(road: Road) -> tuple[Trips, Counted]:
    trips, lock = Trips(road.fetch), Counted()
    trips._lock = lock  # type: ignore[assignment]
    return trips, lock


def test_who_comes_during_a_trip_shares_the_next_one() -> None:
    road = Road()
    trips, lock = shared(road)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(trips.ask)
        until(lambda: road.begun == 1)
        road.revision = 2  # a write, and only then come the others
        others = [pool.submit(trips.ask) for _ in range(5)]
        until(lambda: lock.taken == 2 + 5)  # the first came and left, five came
        assert road.begun == 1, "one trip is under way at a time"
        road.gates[0].set()
        assert first.result(LONG_S) == 1
        until(lambda: road.begun == 2)
        road.gates[1].set()
        assert [other.result(LONG_S) for other in others] == [2] * 5
    assert road.begun == 2, "five reads, one trip"


def test_who_comes_after_a_trip_left_is_not_taken_along_however_late_it_returns() -> None:
    road = Road()
    trips, lock = shared(road)
    with ThreadPoolExecutor(4) as pool:
        asked = []
        for turn in range(3):
            asked.append(pool.submit(trips.ask))
            until(lambda turn=turn: lock.taken == (1, 3, 4)[turn] + (turn == 0))
            road.revision += 1
        # The second made the next trip, which has not left: the third, after two writes, joins it.
        for gate in road.gates:
            gate.set()
        assert [one.result(LONG_S) for one in asked] == [1, 4, 4]
    assert road.begun == 2


def test_no_answer_is_older_than_its_question() -> None:
    """The promise itself, with a source that is written to all the time."""
    revision = [0]
    trips = Trips(lambda: revision[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            revision[0] += 1

    def read() -> None:
        for _ in range(300):
            before = revision[0]
            assert trips.ask() >= before

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(read) for _ in range(4)]:
                done.result(LONG_S)
    finally:
        stop.set()
        writer.join()


def test_an_error_is_that_of_all_who_shared_and_of_nobody_else() -> None:
    road = Road()
    road.errors = {1: Unavailable("away"), 2: KeyboardInterrupt()}
    trips, lock = shared(road)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(trips.ask)
        until(lambda: road.begun == 1)
        others = [pool.submit(trips.ask) for _ in range(2)]
        until(lambda: lock.taken == 4)
        road.gates[0].set()
        road.gates[1].set()
        assert first.result(LONG_S) == 1
        for other in others:
            with pytest.raises(Unavailable, match="away"):
                other.result(LONG_S)
        # A thread that is interrupted on its way doesn't leave the others waiting.
        road.gates[3].set()
        until(lambda: road.begun == 2)
        leader = pool.submit(trips.ask)
        until(lambda: road.begun == 3)
        road.gates[2].set()
        with pytest.raises(KeyboardInterrupt):
            leader.result(LONG_S)
        assert trips.ask() == 1


def test_an_interrupted_leader_frees_those_who_share_its_trip() -> None:
    road = Road()
    road.errors = {1: KeyboardInterrupt()}
    trips, lock = shared(road)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(trips.ask)
        until(lambda: road.begun == 1)
        others = [pool.submit(trips.ask) for _ in range(3)]
        until(lambda: lock.taken == 5)
        for gate in road.gates:
            gate.set()
        assert first.result(LONG_S) == 1
        errors = [type(other.exception(LONG_S)) for other in others]
    assert sorted(error.__name__ for error in errors) == [
        "KeyboardInterrupt", "Unavailable", "Unavailable",
    ]  # fmt: skip


def test_who_is_cancelled_leaves_the_trip_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btreecache.trips.POLL_S", 0.01)
    road = Road()
    trips, lock = shared(road)
    cancelled = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(trips.ask)
        until(lambda: road.begun == 1)
        second = pool.submit(trips.ask)
        until(lambda: lock.taken == 3)
        third = pool.submit(trips.ask, cancelled.is_set)
        until(lambda: lock.taken == 4)
        cancelled.set()
        with pytest.raises(CancelledError):
            third.result(LONG_S)
        for gate in road.gates:
            gate.set()
        assert [first.result(LONG_S), second.result(LONG_S)] == [1, 1]


def test_tasks_share_trips_as_threads_do() -> None:
    road = Road()

    async def scene() -> None:
        trips = AsyncTrips(road.fetch)
        first = asyncio.create_task(trips.ask())
        await asyncio.to_thread(until, lambda: road.begun == 1)
        road.revision = 2
        others = [asyncio.create_task(trips.ask()) for _ in range(5)]
        await asyncio.sleep(0)
        others[0].cancel()
        assert road.begun == 1
        road.gates[0].set()
        assert await first == 1
        road.gates[1].set()
        assert await asyncio.gather(*others[1:]) == [2] * 4
        assert others[0].cancelled()
        assert road.begun == 2
        road.errors = {2: Unavailable("away")}
        road.gates[2].set()
        with pytest.raises(Unavailable, match="away"):
            await trips.ask()

    asyncio.run(asyncio.wait_for(scene(), LONG_S))


def test_a_trip_that_was_cancelled_takes_nobody_along() -> None:
    road = Road()

    async def scene() -> None:
        trips = AsyncTrips(road.fetch)
        first = asyncio.create_task(trips.ask())
        await asyncio.to_thread(until, lambda: road.begun == 1)
        second = asyncio.create_task(trips.ask())
        await asyncio.sleep(0)
        assert trips._waiting is not None
        trips._waiting.cancel()  # as a loop that shuts down does, before the trip could leave
        with pytest.raises(asyncio.CancelledError):
            await second
        for gate in road.gates:
            gate.set()
        assert await first == 1
        assert await trips.ask() == 1

    asyncio.run(asyncio.wait_for(scene(), LONG_S))


def test_progress_is_asked_for_once_an_interval_however_many_wait() -> None:
    clock, asked = Clock(), list[float]()

    def request() -> bool:
        asked.append(clock.now_s)
        return True

    requests = ProgressRequests(request, clock, 1.0)
    for second in range(5):
        clock.now_s = float(second)
        assert [requests.ask() for _ in range(100)] == [True] * 100
        clock.now_s += 0.5
        assert requests.ask()
    assert asked == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_the_word_of_a_stream_holds_for_a_while_and_a_refusal_shorter() -> None:
    clock, said, asked = Clock(), [True], list[float]()

    def request() -> bool:
        asked.append(clock.now_s)
        return said[0]

    requests = ProgressRequests(request, clock)
    assert requests.safe()
    said[0] = False
    clock.now_s = TRUST_S - 0.01
    assert requests.safe()
    clock.now_s = TRUST_S
    assert not requests.safe()
    said[0] = True
    clock.now_s = TRUST_S + PROGRESS_S / 2
    assert not requests.safe()
    clock.now_s = TRUST_S + PROGRESS_S * 1.5
    assert requests.safe()
    assert len(asked) == 3


def test_without_a_stream_progress_is_never_safe() -> None:
    requests = ProgressRequests(None, Clock())
    assert not requests.ask()
    assert not requests.safe()
