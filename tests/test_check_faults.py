"""Every fault on a few seeds of each profile; `make sim` runs the same on as many as you like."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from btreecache.cli import main as command
from btreecache.cli.simulation import Simulation
from btreecache.window import Bounds
from etcdsim import FAULTS, PROFILES
from tests.sim import EXPECTED, RATE, Run, campaign, is_expected, main, run_one

SEEDS = range(len(PROFILES))
GUARANTEES = Path(__file__).parents[1] / "docs/guarantees.md"
CLI = Path(__file__).parents[1] / "docs/cli.md"
ETCDSIM = Path(__file__).parents[1] / "docs/etcdsim.md"

SURVIVED = [fault for fault in FAULTS if EXPECTED[fault] == "survived"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", ["clean", *FAULTS])
def test_every_fault_ends_as_expected_and_clean_runs_are_consistent(fault: str, seed: int) -> None:
    run = run_one(fault, seed, objects=100, writes=300)
    assert is_expected(run), run


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_strikes_even_in_the_shortest_run(fault: str) -> None:
    run = run_one(fault, seed=5, objects=1, writes=0)
    assert is_expected(run), run


def rows(page: Path, columns: int) -> list[tuple[str, ...]]:
    """The first `columns` cells of the rows about a fault, in the order of the page."""
    pattern = r"^\| `([a-z0-9_]+)` \| " + r"([^|]+) \| " * (columns - 1)
    found = re.findall(pattern, page.read_text(), re.M)
    tuples = [row if isinstance(row, tuple) else (row,) for row in found]
    return [row for row in tuples if row[0] in FAULTS]


def test_the_guarantees_say_what_is_expected_of_every_fault() -> None:
    assert set(EXPECTED) == set(FAULTS)
    assert rows(GUARANTEES, 2) == list(EXPECTED.items())


def test_the_simulator_says_what_every_fault_does() -> None:
    assert sorted(rows(ETCDSIM, 1)) == sorted((name,) for name in FAULTS)


def test_the_command_and_its_page_name_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command(["check", "--help"])
    for text in (capsys.readouterr().out, CLI.read_text()):
        assert [name for name in FAULTS if not re.search(rf"\b{name}\b", text)] == []


GOOD: Run = {
    "verdict": "consistent", "injected": 1, "feed_faults": 0, "differences": 0, "writes": 5,
    "revisions_checked": 6,
}  # fmt: skip
BAD: Run = {**GOOD, "verdict": "inconsistent"}
BY_FEED, BY_DIFFERENCE = {**BAD, "feed_faults": 1}, {**BAD, "differences": 1}


@pytest.mark.parametrize(
    ("fault", "expected", "others"),
    [
        ("clean", [GOOD], [BY_FEED, BY_DIFFERENCE, {**GOOD, "revisions_checked": 5}]),
        ("cancel", [GOOD], [BY_FEED, BY_DIFFERENCE, {**GOOD, "verdict": "unknown"}]),
        ("cancel", [], [{**GOOD, "injected": 0}, {**GOOD, "revisions_checked": 0}]),
        ("split", [BY_FEED], [GOOD, BY_DIFFERENCE, {**BY_FEED, "injected": 0}]),
        ("corrupt_value", [BY_DIFFERENCE], [GOOD, BY_FEED, {**BY_DIFFERENCE, "feed_faults": 1}]),
        ("drop", [BY_FEED, BY_DIFFERENCE], [GOOD, {**BY_DIFFERENCE, "injected": 0}]),
    ],
)
def test_what_is_expected(fault: str, expected: list[Run], others: list[Run]) -> None:
    assert all(is_expected({**run, "fault": fault}) for run in expected)
    assert not any(is_expected({**run, "fault": fault}) for run in others)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_that_is_survived_is_survived_together(seed: int) -> None:
    """Lists from a lagging member after a compaction, streams broken off while one is behind."""
    simulation = Simulation(
        sorted(PROFILES)[seed],
        seed=seed,
        objects=60,
        faults=[f"{fault}={10 * RATE}" for fault in SURVIVED],
        prefix=b"",
        mode="values",
        bounds=Bounds(age_s=None),
    )
    stopping = threading.Event()
    simulation.write(300, stopping, lambda done: None)
    outcome = simulation.check("all", stopping, lambda done: None)
    assert (outcome.verdict, outcome.reason) == ("consistent", "")
    assert all(simulation.simulator.injected.values())


def test_a_campaign_resumes_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "runs.jsonl"
    first = list(campaign(["clean"], range(2), 20, 30, jobs=1, out=out))
    again = list(campaign(["clean"], range(3), 20, 30, jobs=1, out=out))
    assert again[:2] == first
    assert [run["seed"] for run in again] == [0, 1, 2]
    assert len(out.read_text().splitlines()) == 3


def test_an_unexpected_run_fails_the_campaign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs.jsonl"
    run = run_one("clean", 0, objects=20, writes=30)
    out.write_text(json.dumps({**run, "verdict": "unknown"}) + "\n")
    options = ["--seeds", "0:1", "--fault", "clean", "--objects", "20", "--writes", "30"]
    assert main([*options, "--out", str(out)]) == 1
    assert "btreecache check --sim" in capsys.readouterr().err
