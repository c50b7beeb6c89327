"""Rounds: every rival is asked for one round of an operation after the other, k times over."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.bench.keys import write_key_file
from tests.bench.rivals import RIVALS

ROOT = Path(__file__).parents[2]
GO_DRIVER = Path(".cache/bench/go/driver")
GO = "google/btree (Go)"

#: Revisions in the window of `slide`; items of a page; keys besides the loaded ones, for insert
#: and miss; operations of a round.
WINDOW = 1_000
PAGE = 500
EXTRA = 20_000
OPS_MAX = 20_000
#: One snapshot in memory is measured over as many as this budget allows, at most OPS_MAX.
RETAINED_BUDGET_S = 1.0

Request = dict[str, Any]
Reply = dict[str, Any]


class Row(NamedTuple):
    """One line of the table: `request(rng, n)` makes what one round asks for."""

    name: str
    request: Callable[[Random, int], Request]
    once: bool = False


def _some(rng: Random, n: int, count: int = OPS_MAX) -> list[int]:
    return [rng.randrange(n) for _ in range(count)]


def _spare(rng: Random, n: int) -> list[int]:
    return rng.sample(range(n, n + EXTRA), EXTRA)


def _ranges(rng: Random, n: int) -> list[int]:
    return [end for _ in range(500) for end in sorted(rng.sample(range(n), 2))]


def _diff(apart: int) -> Row:
    return Row(
        f"diff, {apart:,} apart",
        lambda rng, n: {"do": "diff", "apart": apart, "keys": _some(rng, n, apart), "n": 200},
    )


ROWS = (
    Row("update, kept", lambda rng, n: {"do": "put", "keys": _some(rng, n)}),
    Row("update, window full", lambda rng, n: {"do": "slide", "keys": _some(rng, n),
                                               "window": WINDOW}),
    Row("insert, kept", lambda rng, n: {"do": "put", "keys": _spare(rng, n),
                                        "insert": True}),
    Row("delete, kept", lambda rng, n: {"do": "delete", "keys": _spare(rng, n)}),
    Row("get, hit", lambda rng, n: {"do": "get", "keys": _some(rng, n)}),
    Row("get, miss", lambda rng, n: {"do": "get", "keys": _spare(rng, n)}),
    Row("page of 500, past", lambda rng, n: {"do": "page", "keys": _some(rng, n, 500),
                                             "limit": PAGE}),
    Row("full scan", lambda rng, n: {"do": "scan", "n": 50}),
    Row("range count", lambda rng, n: {"do": "count", "keys": _ranges(rng, n)}),
    _diff(1),
    _diff(100),
    _diff(10_000),
    Row("bytes a snapshot", lambda rng, n: {"do": "retained", "keys": _some(rng, n)}, once=True),
)  # fmt: skip
LOAD = "initial load, per key"


class Contender:
    """A process that answers requests."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request: Request) -> Reply:
        """One request; RuntimeError if the process fails in it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        reply: Reply = json.loads(line) if line else {"error": "it ended"}
        if reply.get("error"):
            raise RuntimeError(f"{self.name}: {request['do']}: {reply['error']}")
        return reply

    def close(self) -> None:
        """End the process; one that hangs in its own cleaning up is killed."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def command_of(name: str, folder: Path) -> list[str] | str:
    """How to start a contender, or why not. `btreecache@PATH`: the btreecache of that path."""
    if name == GO:
        return [str(ROOT / GO_DRIVER)] if (ROOT / GO_DRIVER).exists() else "no Go driver built"
    kind, _, tree = name.partition("@")
    if missing := RIVALS[kind].missing():
        return f"{missing} is not installed"
    command = [sys.executable, "-m", "tests.bench.worker", kind, str(folder)]
    return [*command, "--tree", tree] if tree else command


@contextmanager
def started(names: Sequence[str]) -> Iterator[tuple[list[Contender], dict[str, str]]]:
    """The contenders that could be started, and why the others could not."""
    running, absent = [], {}
    with ExitStack() as stack:
        for name in names:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            command = command_of(name, folder)
            if isinstance(command, str):
                absent[name] = command
            else:
                running.append(Contender(name, command))
                stack.callback(running[-1].close)
        yield running, absent


def row_of(
    row: Row, size: int, contenders: list[Contender], rng: Random, *, rounds: int, budget_s: float
) -> dict[str, list[Reply]]:
    """`rounds` rounds of one operation, the contenders in another order in each.

    One that has taken 10 budgets and at least 2 s in all is not asked again. Deletes are of what
    the same contender's inserts have added, so they add it first, untimed.
    """
    replies: dict[str, list[Reply]] = {c.name: [] for c in contenders}
    spent = dict.fromkeys(replies, 0.0)
    once = row.once or rounds == 1
    for turn in range(1 if once else rounds):
        request = row.request(rng, size) | {"stamp": 10**9 + turn * 10**7 + rng.randrange(10**6)}
        request["budget_s"] = RETAINED_BUDGET_S if row.once else budget_s
        for contender in rng.sample(contenders, len(contenders)):
            replied = replies[contender.name]
            if spent[contender.name] > max(2.0, 10 * budget_s) or (replied and replied[-1] == {}):
                continue
            began = time.perf_counter()
            reply = _one(contender, request)
            spent[contender.name] += time.perf_counter() - began
            replied.append({} if "lacks" in reply else reply)
    _agree(row.name, replies)
    return replies


def _one(contender: Contender, request: Request) -> Reply:
    """One round, that leaves as many keys as it found."""
    if request["do"] == "delete":
        added = contender.ask(request | {"do": "put"})["ops"]
        return contender.ask(request | {"keys": request["keys"][:added], "budget_s": 1e9})
    reply = contender.ask(request)
    if request["do"] == "put" and request.get("insert"):
        contender.ask(request | {"do": "delete", "keys": request["keys"][: reply["ops"]],
                                 "budget_s": 1e9})  # fmt: skip
    return reply


def _agree(name: str, replies: dict[str, list[Reply]]) -> None:
    """A benchmark of wrong answers is worth nothing: equal work must have equal answers."""
    answers = {
        (turn, reply["ops"] if not name.startswith("diff") else 0, reply["answer"])
        for rounds in replies.values()
        for turn, reply in enumerate(rounds)
        if "answer" in reply
    }
    same_work: dict[tuple[int, int], set[int]] = {}
    for turn, ops, answer in answers:
        same_work.setdefault((turn, ops), set()).add(answer)
    for (turn, ops), different in same_work.items():
        if len(different) > 1:
            raise RuntimeError(f"{name}: round {turn}, {ops} operations: answers {different}")


def run_size(
    size: int,
    names: Sequence[str],
    rows: Sequence[Row],
    *,
    rounds: int,
    budget_s: float,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[dict[str, Any]], dict[str, str]]:  # fmt: skip
    """All `rows` at one size: a cell for each row and contender, and the contenders missing."""
    rng, cells = Random(size), []
    with tempfile.TemporaryDirectory() as folder, started(names) as (contenders, absent):
        file = Path(folder) / "keys"
        write_key_file(file, size, EXTRA, rng)
        loads = {c.name: [c.ask({"do": "load", "file": str(file), "n": size})] for c in contenders}
        tables = [(LOAD, loads)]
        for row in rows:
            say(f"{size:,}: {row.name}")
            tables.append(
                (row.name, row_of(row, size, contenders, rng, rounds=rounds, budget_s=budget_s))
            )
        for name, replies in tables:
            cells += [
                {"size": size, "row": name, "rival": rival, "rounds": done}
                for rival, done in replies.items()
            ]
    return cells, absent
