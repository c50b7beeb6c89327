"""A sample of the long run, and proof that its judge can tell right from wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pytest

from btreecache import plan, reader, watch_stream
from btreecache.continue_token import Position
from btreecache.errors import BadRequest, BtreecacheError, Compacted, FutureRevision, Invalid
from btreecache.reads import ListPage
from btreecache.selectors import FieldSelector, LabelSelector
from tests.fuzz import __main__ as command
from tests.fuzz import naive
from tests.fuzz.fuzzer import Fuzzer, Run, run_one
from tests.fuzz.judge import REASONS, Violation
from tests.fuzz.requests import Request

SEEDS = range(10)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [run_one(seed, 250) for seed in SEEDS]


def test_only_documented_outcomes(runs: list[Run]) -> None:
    for run in runs:
        assert not run["violations"], (run["seed"], run["violations"][0])
        assert sum(run["outcomes"].values()) == 250


def test_every_documented_outcome_is_met(runs: list[Run]) -> None:
    met = {outcome for run in runs for outcome in run["outcomes"]}
    assert met >= {"get", "list", "page", "watch", "routed", *map(str, REASONS)}


@pytest.mark.parametrize("seed", range(4))
def test_a_megabyte_is_an_input_like_others(seed: int) -> None:
    fuzzer = Fuzzer(Random(seed))
    fuzzer.ask(fuzzer.requests.huge())
    assert fuzzer.outcomes.total() == 1


def test_a_seed_is_a_reproduction(runs: list[Run]) -> None:
    assert run_one(SEEDS[3], 250)["outcomes"] == runs[3]["outcomes"]


# Bugs that the judge has to find.


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """A method of Reader whose answers are changed."""
    kept = getattr(reader.Reader, name)

    def method(*arguments: object, **named: object) -> object:
        return change(kept(*arguments, **named))

    return lambda patch: patch.setattr(reader.Reader, name, method)


def one_short(page: ListPage) -> ListPage:
    return page._replace(elements=page.elements[:-1])


def no_token(page: ListPage) -> ListPage:
    return page._replace(meta=replace(page.meta, continue_token=""))


def elsewhen(page: ListPage) -> ListPage:
    revision = str(int(page.meta.resource_version) - 1)
    return page._replace(meta=replace(page.meta, resource_version=revision))


def deaf_to_deletes(patch: pytest.MonkeyPatch) -> None:
    kept = watch_stream._changes
    patch.setattr(
        watch_stream,
        "_changes",
        lambda *given: (event for event in kept(*given) if event.type != "DELETED"),
    )


def lenient_version(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 19 else 0


def attribute(owner: Any, name: str, value: object) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(owner, name, value)


BUGS = {
    "a status of 500": attribute(BadRequest, "status", 500),
    "a status that no table has": attribute(Invalid, "status", 418),
    "another reason": attribute(Compacted, "reason", "Gone"),
    "504 without its cause": attribute(FutureRevision, "details", BtreecacheError.details),
    "422 without causes": attribute(Invalid, "details", lambda self: {}),
    "no message": attribute(BadRequest, "message", lambda self: ""),
    "an endless message": attribute(BadRequest, "message", lambda self: "x" * 10**6),
    "a message that isn't UTF-8": attribute(BadRequest, "message", lambda self: "\ud800"),
    "a details that isn't JSON": attribute(BadRequest, "details", lambda self: {"name": b""}),
    "another exception": lambda patch: patch.setattr("btreecache.options._integer", int),
    "410 for what is kept": attribute(
        plan._Read, "latest", lambda self, least: plan.Refuse(Compacted(least))
    ),
    "504 for what is there": attribute(
        plan._Read, "exact", lambda self, at: plan.Refuse(FutureRevision(at + 1, at))
    ),
    "a wait without end": attribute(plan, "_deadline", lambda situation, timeout_s: inf),
    "an element is missing": changed("list", one_short),
    "more are left and no token": changed("list", no_token),
    "another revision is said": changed("list", elsewhen),
    "a stale answer": attribute(plan._Read, "newest", lambda self: self.latest(0)),
    "labels don't count": attribute(LabelSelector, "matches_pairs", lambda self, pairs: True),
    "fields don't count": attribute(FieldSelector, "bind", lambda *_: lambda values: True),
    "any digits are digits": attribute(plan, "parse_resource_version", lenient_version),
    "any token will do": attribute(plan, "decode", lambda token, prefix: Position(prefix, -1)),
    "deletes aren't told": deaf_to_deletes,
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_judge_finds(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[bug](monkeypatch)
    assert any(run_one(seed, 250)["violations"] for seed in SEEDS)


def test_the_judge_finds_a_selector_cut_at_nul(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream's lexer takes a NUL for the end, and answers for more than was asked."""
    fuzzer = Fuzzer(Random("fuzz 0"))
    asked = Request("list", None, None, "labelSelector=app%00,no")
    fuzzer.ask(asked)
    assert fuzzer.outcomes == {"400": 1}
    parse = LabelSelector.parse
    monkeypatch.setattr(LabelSelector, "parse", lambda text: parse(text.split("\0")[0]))
    with pytest.raises(Violation, match="not of the answer"):
        fuzzer.ask(asked)


# What selectors and tokens mean.


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("", {}, None),
        ("a", {"a": ""}, {"b": ""}),
        ("! a", {"b": ""}, {"a": ""}),
        ("a=", {"a": ""}, {"a": "x"}),
        ("a == x", {"a": "x"}, {}),
        ("a!=x", {}, {"a": "x"}),
        ("a in (x,,y )", {"a": ""}, {"a": "z"}),
        ("a notin (x)", {}, {"a": "x"}),
        ("a>4", {"a": "10"}, {"a": "4"}),
        ("a<4", {"a": "-1"}, {"a": "x"}),
        ("a in (x,y),b", {"a": "y", "b": ""}, {"a": "y"}),
    ],
)
def test_naive_labels(text: str, yes: dict[str, str], no: dict[str, str] | None) -> None:
    matches = naive.labels(text)
    assert matches is not None
    assert matches(yes)
    assert no is None or not matches(no)


@pytest.mark.parametrize("text", ["a b", "a in x", "=", "a in (x", "a in (x y)"])
def test_naive_labels_leave_what_is_not_plain(text: str) -> None:
    assert naive.labels(text) is None


def test_naive_fields() -> None:
    matches = naive.fields(r"n=a\,b,m!=x,", aliases=False)
    assert matches is not None
    assert matches({"n": "a,b"})
    assert not matches({"n": "a,b", "m": "x"})
    assert naive.fields("=,", aliases=False) is naive.everything
    assert naive.fields("n", aliases=False) is None


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiJhL2IifQ", (b"a/b", 5)),
        ("eyJydiI6IjUifQ", None),
        ("bnVsbA", None),
        ("?", None),
    ],
)
def test_naive_tokens(text: str, meaning: tuple[bytes, int] | None) -> None:
    assert naive.token(text) == meaning


# The command.


def test_a_violation_is_told_with_its_line_and_only_its_seed_is_run_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[int] = []

    def run(seed: int, requests: int) -> dict[str, Any]:
        ran.append(seed)
        bad = [{"index": 7, "request": "get x", "error": "wrong\n"}] if seed == 2 else []
        return {
            "seed": seed, "requests": requests, "took_s": 0.1, "slowest_s": 2.0, "slowest": "s",
            "outcomes": {"get": 9, "violation": len(bad)}, "violations": bad, "most_mb": 99.0,
            "biggest": "b",
        }  # fmt: skip

    monkeypatch.setattr(command, "run_one", run)
    out = tmp_path / "fuzz.jsonl"
    asked = ["--seeds", "0:4", "--requests", "10", "--out", str(out)]
    assert command.main(asked) == 1
    first = capsys.readouterr()
    assert "python -m tests.fuzz --seeds 2:3 --requests 10 --out -" in first.err
    assert "seed 2, request 7: get x" in first.err
    with out.open("a") as torn:
        torn.write('{"seed": 3')
    assert command.main(asked) == 1
    assert ran == [0, 1, 2, 3, 2]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "seeds 0:4: 4 x 10 requests, 0 s, 1 violations"
    assert last == first.out.splitlines()[-1]
    assert len(out.read_text().splitlines()) == 5
    assert command.main(["--seeds", "0:2", "--requests", "10", "--out", "-"]) == 0
