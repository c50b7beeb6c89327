"""Every fault on a few seeds of each profile; `make sim` runs the same on as many as you like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from etcdsim import FAULTS, PROFILES
from tests.sim import campaign, is_expected, main, run_one

SEEDS = range(len(PROFILES))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", ["clean", *FAULTS])
def test_every_fault_is_caught_and_nothing_else(fault: str, seed: int) -> None:
    run = run_one(fault, seed, objects=100, writes=300)
    assert is_expected(run), run


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_strikes_even_in_the_shortest_run(fault: str) -> None:
    run = run_one(fault, seed=5, objects=1, writes=0)
    assert is_expected(run), run


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
