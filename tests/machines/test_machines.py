"""Hypothesis drives every machine, and throws steps out of what it finds until all matter."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.machines.__main__ import main, run_one
from tests.machines.machines import MACHINES
from tests.machines.model import Machine, small_sizes

#: One number makes one step: few choices, so that shrinking throws out whole steps quickly.
NUMBERS = st.integers(0, 9999)

IN_CI = settings(
    max_examples=25,
    stateful_step_count=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def driven(machine: type[Machine]) -> type[RuleBasedStateMachine]:
    class Driven(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.sizes = ExitStack()
            self.sizes.enter_context(small_sizes())
            self.machine: Machine | None = None

        @initialize(number=NUMBERS)
        def begin(self, number: int) -> None:
            self.machine = machine(Random(number))

        @rule(number=NUMBERS)
        def step(self, number: int) -> None:
            assert self.machine is not None
            try:
                self.machine.step(Random(number))
            finally:
                note(self.machine.log[-1])

        def teardown(self) -> None:
            with self.sizes:
                if self.machine is not None:
                    self.machine.finish()

    return Driven


@pytest.mark.parametrize("name", MACHINES)
def test_hypothesis_finds_no_violation(name: str) -> None:
    run_state_machine_as_test(driven(MACHINES[name]), settings=IN_CI)


@pytest.mark.parametrize("name", MACHINES)
def test_seeds_of_the_long_run(name: str) -> None:
    for seed in range(10):
        run = run_one((name, seed), 200)
        assert run["error"] is None, run["error"]


class Doomed(Machine):
    """Fails at the third step of an odd seed."""

    rules = ("count",)

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.odd = rng.random() < 0.5

    def count(self, rng: Random) -> None:
        assert not (self.odd and len(self.log) == 3)


def test_a_failure_is_told_with_its_line_and_only_it_is_run_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MACHINES, "doomed", Doomed)
    out = tmp_path / "machines.jsonl"
    command = ["--machine", "doomed", "--seeds", "0:20", "--jobs", "1", "--out", str(out)]
    assert main(command) == 1
    first = capsys.readouterr()
    lines = [line.strip() for line in first.err.splitlines() if "--seeds" in line]
    assert lines
    assert len(out.read_text().splitlines()) == 20
    seeds = lines[0].split("--seeds ")[1].split()[0]
    again = ["--jobs", "1", "--out", str(tmp_path / "again")]
    assert main(["--machine", "doomed", "--seeds", seeds, *again]) == 1
    with out.open("a") as torn:
        torn.write('{"machine": "doo')
    assert main(command) == 1
    assert len(out.read_text().splitlines()) == 20 + len(lines)
    assert capsys.readouterr().out.splitlines()[-1] == first.out.splitlines()[-1]


@pytest.mark.parametrize("name", MACHINES)
def test_a_seed_is_a_reproduction(name: str) -> None:
    logs = []
    for _ in range(2):
        rng = Random(f"{name} 1")
        with small_sizes():
            machine = MACHINES[name](rng)
            for _ in range(100):
                machine.step(rng)
        logs.append(machine.log)
    assert logs[0] == logs[1]
    assert len({entry.split()[0] for entry in logs[0]}) >= len({*machine.rules}) - 1
