"""The simulator's traffic on an etcd: here one that `etcdsim serve` is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from etcdsim import wire
from etcdsim.calls import Calls
from etcdsim.cli import main
from etcdsim.drive import GIVE_UP_S, Driver, Latencies
from etcdsim.model import prefix_range
from etcdsim.simulator import Simulator
from etcdsim.traffic import PROFILES
from tests.etcdsim.served import Served, client

PREFIX = b"/drive"


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as server:
        yield server


def contents(served: Served) -> dict[bytes, bytes]:
    with client(served.endpoint) as etcd:
        key, range_end = prefix_range(PREFIX)
        kvs = etcd.ask(wire.RANGE, key=key, range_end=range_end).kvs
        return {kv.key: kv.value for kv in kvs}


def expected(profile: str, seed: int, objects: int, writes: int) -> dict[bytes, bytes]:
    simulator = Simulator(profile, seed=seed, objects=objects)
    simulator.load()
    for _ in range(writes):
        simulator.step()
    return {PREFIX + kv.key: kv.value for kv in simulator.model.range(b"\0", b"\0").kvs}


def driver_of(calls: Any, profile: str = "kubernetes", **options: Any) -> Driver:
    given = {"clock": time.monotonic, "wait": lambda _: False} | options
    return Driver(calls, profile, seed=7, prefix=PREFIX, **given)


@pytest.mark.parametrize("profile", PROFILES)
def test_it_writes_what_the_simulator_writes(served: Served, profile: str) -> None:
    driver = driver_of(Calls(served.endpoint), profile, compact=100)
    driver.run(60, 300, None)
    assert contents(served) == expected(profile, 7, 60, 300)
    done = driver.summary()
    assert (done["writes"], done["failures"], done["conflicts"]) == (300, 0, 0)
    assert done["requests"] >= 360
    assert done["revision"] == served.member.model.revision
    assert served.member.model.compact_revision > 1


def test_a_second_run_finds_conflicts_and_writes_the_same(served: Served) -> None:
    driver_of(Calls(served.endpoint)).run(30, 50, None)
    again = driver_of(Calls(served.endpoint))
    again.run(30, 50, None)
    assert again.conflicts > 0
    wanted = expected("kubernetes", 7, 30, 50)
    assert wanted.items() <= contents(served).items()


class Flaky(Calls):
    """Every third answer is lost, after the request was done."""

    count = 0

    def ask(self, method: wire.Method, request: Any) -> Any:
        answer = super().ask(method, request)
        self.count += 1
        return None if self.count % 3 == 0 else answer


@pytest.mark.parametrize("profile", PROFILES)
def test_lost_answers_change_nothing_of_the_contents(served: Served, profile: str) -> None:
    driver = driver_of(Flaky(served.endpoint), profile)
    driver.run(20, 60, None)
    assert driver.failures > 20
    assert not driver.is_lost
    assert contents(served) == expected(profile, 7, 20, 60)


def test_an_etcd_that_goes_away_is_given_up(served: Served) -> None:
    class Gone(Calls):
        def ask(self, method: wire.Method, request: Any) -> Any:
            return None if method is wire.TXN else super().ask(method, request)

    now = [0.0]

    def wait(seconds: float) -> bool:
        now[0] += seconds
        return False

    driver = driver_of(Gone(served.endpoint), clock=lambda: now[0], wait=wait)
    driver.run(10, 10, None)
    assert driver.is_lost
    assert GIVE_UP_S <= now[0] < GIVE_UP_S + 1


def test_the_rate_and_the_duration_are_kept(served: Served) -> None:
    now = [0.0]

    def wait(seconds: float) -> bool:
        now[0] += seconds
        return False

    driver = driver_of(Calls(served.endpoint), clock=lambda: now[0], wait=wait, rate=20.0)
    driver.run(10, None, 4.0)
    assert 78 <= driver.requests <= 81
    assert driver.summary()["rate"] == pytest.approx(20, rel=0.03)


def test_quantiles() -> None:
    latencies = Latencies()
    assert latencies.quantile(0.5) is None
    for milliseconds in range(1, 1001):
        latencies.add(milliseconds / 1000)
    assert latencies.quantile(0.5) == pytest.approx(0.5, rel=0.011)
    assert latencies.quantile(1.0) == pytest.approx(1.0, rel=0.011)


def test_the_command(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["drive", "--etcd", served.endpoint, "--objects=5", "--seed=7", "--prefix=/drive"]
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert main([*flags, "--writes=20"]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    summary = json.loads(capsys.readouterr().out)
    assert summary["writes"] == 20
    assert summary["prefix"] == "/drive"
    assert contents(served) == expected("kubernetes", 7, 5, 20)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--profile=none"], "unknown profile"),
        (["--objects=0"], "at least 1 object"),
        (["--rate=0"], "not a rate"),
        (["--writes=1", "--for=1s"], "not allowed with"),
    ],
)
def test_mistakes(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drive", "--etcd=127.0.0.1:1", *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_signal_ends_it_with_the_summary_so_far(served: Served) -> None:
    command = [sys.executable, "-m", "etcdsim", "drive", "--etcd", served.endpoint, "--for=1h"]
    process = subprocess.Popen(
        [*command, "--objects=10", "--rate=50"], stdout=subprocess.PIPE, text=True
    )
    try:
        wanted = time.monotonic() + 20
        while served.member.model.revision < 5:
            assert time.monotonic() < wanted
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert json.loads(out)["requests"] >= 3


def test_no_etcd_there(capsys: pytest.CaptureFixture[str]) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert main(["drive", "--etcd=127.0.0.1:1"]) == 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "no etcd answers at 127.0.0.1:1" in capsys.readouterr().err
