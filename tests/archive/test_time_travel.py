"""`list`, `get`, `diff` and `log` over an archive and over a source: what a plain model says."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from btreecache import Store
from btreecache.archive import Archive, Retention
from btreecache.archive.pending import Pending
from btreecache.cli import main, origin
from btreecache.cli.arguments import moment
from btreecache.sources.simulated import SimulatedSource
from etcdsim import Simulator

PREFIX = "/registry/configmaps/d/"
BEGAN_S = 1_700_000_000.0

States = dict[int, dict[str, str]]


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def document(name: str, data: str) -> bytes:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "d"},
            "data": {"text": data},
        }
    ).encode()


class World:
    """Random writes to an archive, a second each, and what there was at each revision."""

    def __init__(self, path: Path, group_revisions: int, revisions: int = 80) -> None:
        self.uri = str(path / "archive")
        self.now_s = BEGAN_S
        self.states: States = {}
        self.rng = Random(group_revisions)
        with self.open(group_revisions) as archive:
            self.store = Store(archive=archive.history(b"/registry/"))
            self.write(revisions)
            archive.flush()

    def open(self, group_revisions: int = 10, **options: Any) -> Archive:
        return Archive.open(
            self.uri, wall=lambda: self.now_s, group_revisions=group_revisions,
            group_age_s=3600.0, **options,
        )  # fmt: skip

    def write(self, revisions: int) -> None:
        state = dict(self.states[max(self.states)]) if self.states else {}
        self.states.setdefault(self.store.revision, dict(state))
        for _ in range(revisions):
            self.now_s += 1.0
            name = f"c{self.rng.randrange(6)}"
            key = (PREFIX + name).encode()
            if name in state and self.rng.random() < 0.3:
                self.store.delete(key)
                del state[name]
            else:
                state[name] = str(self.rng.randrange(10**6))
                self.store.put(key, document(name, state[name]))
            self.states[self.store.revision] = dict(state)

    def history(self, name: str, upto: int | None = None) -> list[tuple[int, str]]:
        """(revision, change) of one object, the oldest first."""
        found, before = [], None
        for revision, state in sorted(self.states.items()):
            now = state.get(name)
            if upto is not None and revision > upto:
                break
            if now != before:
                change = "created" if before is None else "deleted" if now is None else "updated"
                found.append((revision, change))
            before = now
        return found


@pytest.fixture(params=[1, 7, 1000])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, request.param)


def test_every_revision_is_listed_and_got(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for revision in [*world.states][::11]:
        state = world.states[revision]
        at = "--revision" if revision % 2 else "--at"
        code, out, _ = run(capsys, "list", "--archive", world.uri, at, str(revision), "-o", "json")
        found = json.loads(out)
        assert code == 0
        assert found["metadata"]["resourceVersion"] == str(revision)
        assert {o["metadata"]["name"]: o["data"]["text"] for o in found["items"]} == state
        for name in sorted(state)[:1]:
            argv = ("get", PREFIX + name, "--archive", world.uri, at, str(revision), "-o", "json")
            assert json.loads(run(capsys, *argv)[1])["data"]["text"] == state[name]
    code, out, err = run(capsys, "get", PREFIX + "nobody", "--archive", world.uri)
    assert (code, out, err.endswith("not found\n")) == (3, "", True)


def test_times_are_those_of_arrival(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for revision in [*world.states][1::23]:
        at_s = BEGAN_S + revision - 1
        for text in (f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}",
                     f"{datetime.fromtimestamp(at_s + 0.5, UTC).isoformat()}"):  # fmt: skip
            code, out, _ = run(capsys, "list", "--archive", world.uri, "--at", text, "-o", "json")
            assert json.loads(out)["metadata"]["resourceVersion"] == str(revision)
    before = f"{datetime.fromtimestamp(BEGAN_S - 1, UTC).isoformat()}"
    code, out, err = run(capsys, "list", "--archive", world.uri, "--at", before)
    assert (code, out) == (3, "")
    assert "nothing was archived" in err


def test_diff_of_any_two(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    revisions = sorted(world.states)
    for _ in range(12):
        old, new = world.rng.choice(revisions), world.rng.choice(revisions)
        was, now = world.states[old], world.states[new]
        common = ("diff", "--archive", world.uri, str(old), str(new))
        code, out, _ = run(capsys, *common, "-o", "json")
        assert code == 0
        found = {}
        for line in map(json.loads, out.splitlines()):
            name = line["key"].removeprefix(PREFIX)
            found[name] = tuple(line.get(s, {}).get("data", {}).get("text") for s in ("old", "new"))
        # A key that was deleted and made anew with one text is another object.
        wanted = {n: (was.get(n), now.get(n)) for n in {*was, *now} if was.get(n) != now.get(n)}
        assert {n: v for n, v in found.items() if v[0] != v[1]} == wanted
        code, out, _ = run(capsys, *common)
        *lines, total = out.splitlines()
        assert [line.split()[1] for line in lines] == sorted(PREFIX + name for name in found)
        assert total.endswith(f"from revision {old} to {new}")
        code, out, _ = run(capsys, *common, "-o", "unified")
        for name, (before, after) in wanted.items():
            assert before is None or f'-  text: "{before}"' in out, name
            assert after is None or f'+  text: "{after}"' in out, name


def log(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    _, out, _ = run(capsys, "log", *argv, "-o", "json")
    return [json.loads(line) for line in out.splitlines()]


def test_log_is_the_history_of_an_object(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        name = f"c{number}"
        wanted = world.history(name)
        found = log(capsys, PREFIX + name, "--archive", world.uri, "--reverse")
        changes = [one for one in found if one["change"] != "gap"]
        assert [(one["revision"], one["change"]) for one in changes] == wanted
        for one in changes:
            at_s = datetime.fromisoformat(one["time"]).timestamp()
            assert at_s == BEGAN_S + one["revision"] - 1
        newest = log(capsys, PREFIX + name, "--archive", world.uri, "-n", "2")
        assert [(one["revision"], one["change"]) for one in newest] == wanted[-2:][::-1]
        upto = wanted[len(wanted) // 2][0]
        some = log(capsys, PREFIX + name, "--archive", world.uri, "--reverse", "--at", str(upto))
        changes = [one for one in some if one["change"] != "gap"]
        assert [(one["revision"], one["change"]) for one in changes] == world.history(name, upto)
    _, out, _ = run(capsys, "log", PREFIX + "c1", "-p", "--archive", world.uri)
    assert out.count("+++ ") == len(world.history("c1"))
    code, out, err = run(capsys, "log", PREFIX + "nobody", "--archive", world.uri)
    assert (code, err.endswith("not found\n")) == (3, True)


def test_gaps_and_what_is_gone_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path, 10, revisions=40)
    with world.open() as archive:
        world.store = Store(archive=archive.history(b"/registry/"))
        archive.flush()
        # What comes while nothing can be taken is a gap.
        history = archive.history(b"/registry/")
        assert isinstance(history.pending, Pending)
        history.pending._revisions_max = 0
        world.write(30)
        history.pending._revisions_max = 1000
        assert archive.flush()  # Until it has caught up, all that comes is dropped.
        world.write(30)
        assert archive.flush()
    revision = 41 + 15
    code, out, err = run(capsys, "list", "--archive", world.uri, "--revision", str(revision))
    assert (code, out) == (3, "")
    assert "was not archived: overflow" in err
    for name in ("c0", "c1", "c2", "c3", "c4", "c5"):
        found = log(capsys, PREFIX + name, "--archive", world.uri, "--reverse")
        known = {(one["revision"], one["change"]) for one in found}
        wanted = {*world.history(name)}
        assert {one for one in wanted if not 41 < one[0] <= 72} <= known
        assert any("overflow" in one.get("note", "") for one in found)
    code, _, err = run(capsys, "diff", "--archive", world.uri, "5", "1000")
    assert (code, "Too large resource version" in err) == (3, True)
    with world.open(retention=Retention(revisions=20)) as archive:
        archive.trim(Retention(revisions=20))
    code, _, err = run(capsys, "log", PREFIX + "c1", "--archive", world.uri, "--at", "5")
    assert (code, "too old resource version: 5" in err) == (3, True)


def test_which_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = str(tmp_path / "archive")
    with Archive.open(uri) as archive:
        for kind in (b"pods", b"nodes"):
            store = Store(archive=archive.history(b"/registry/" + kind + b"/"))
            store.put(b"/registry/" + kind + b"/d/x", document(kind.decode(), "1"))
        archive.flush()
    for key in ("pods", "nodes"):
        for argv in (("get", f"/registry/{key}/d/x"), ("list", "--prefix", f"/registry/{key}/"),
                     ("list", "--prefix", f"/registry/{key}/d/")):  # fmt: skip
            code, out, _ = run(capsys, *argv, "--archive", uri, "-o", "name")
            assert (code, out) == (0, f"/registry/{key}/d/x\n")
    for argv in (("list",), ("list", "--prefix", "/registry/"), ("get", "/x")):
        code, out, err = run(capsys, *argv, "--archive", uri)
        assert (code, out) == (2, "")
        assert "/registry/nodes/" in err.replace("'", "")
    code, _, err = run(capsys, "list", "--archive", uri, "--seed", "1")
    assert (code, err) == (2, "btreecache: --seed needs --etcd or --sim\n")


def test_nothing_of_a_value_reaches_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(tmp_path / "archive")
    with Archive.open(uri) as archive:
        store = Store(archive=archive.history())
        key = b"/registry/x\x1b[31m\n\xff"
        for value in (
            document("a", "\x1b[2J\x9b"),
            document("a", "\u202e\r"),
            b"\x1b[31m",
            b"k8s\0",
        ):
            store.put(key, value)
        archive.flush()
    name = os.fsdecode(key)
    for argv in (("diff", "1", "3", "-o", "unified"), ("diff", "1", "5"), ("log", name, "-p"),
                 ("diff", "3", "5", "-o", "unified"), ("log", name, "-o", "json"),
                 ("diff", "3", "5", "-o", "json")):  # fmt: skip
        code, out, err = run(capsys, *argv, "--archive", uri)
        assert out
        assert code == (3 if "can't be decoded" in err else 0)
        assert all(line.isprintable() for line in (out + err).splitlines())
        assert "\r" not in out


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Simulator:
    simulator = Simulator("churn", seed=1, objects=1)

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[SimulatedSource]:
        yield SimulatedSource(simulator.truth, "simulated")

    monkeypatch.setattr(origin, "opened", opened)
    return simulator


def test_over_a_source(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    model, key = simulator.model, (PREFIX + "x").encode()
    source = "--sim", "churn"
    began = model.revision
    model.put(key, document("x", "1"))
    model.delete_range(key)
    created = model.put(key, document("x", "2"))
    model.put((PREFIX + "y").encode(), document("y", "1"))
    model.put(key, document("x", "3"))
    found = log(capsys, key.decode(), *source)
    assert [(one["revision"] - began, one["change"]) for one in found] == [
        (5, "updated"), (3, "created"),
    ]  # fmt: skip
    assert created is not None
    _, out, _ = run(capsys, "diff", str(began), *source, "--prefix", PREFIX)
    assert out.splitlines()[:-1] == [f"+ {PREFIX}x", f"+ {PREFIX}y"]
    _, out, _ = run(capsys, "diff", str(began + 3), str(began + 5), *source)
    assert out.splitlines()[:-1] == [f"~ {PREFIX}x", f"+ {PREFIX}y"]
    _, out, _ = run(capsys, "diff", str(began + 1), str(began + 2), *source)
    assert out.splitlines()[:-1] == [f"- {PREFIX}x"]
    model.compact(began + 4)
    assert [one["change"] for one in log(capsys, key.decode(), *source)] == ["updated", "created"]
    code, _, err = run(capsys, "diff", str(began + 1), *source)
    assert (code, "too old resource version" in err) == (3, True)
    code, _, err = run(capsys, "list", "--at", "10m", *source)
    assert (code, "times" in err) == (2, True)


NOON = datetime(2026, 11, 24, 12, 0).astimezone()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("17", 17),
        ("2026-11-24T15:00Z", datetime(2026, 11, 24, 15, tzinfo=UTC)),
        ("2026-11-24t15:00:01.5z", datetime(2026, 11, 24, 15, 0, 1, 500_000, UTC)),
        ("2026-11-24T15:00:00+02:00", datetime(2026, 11, 24, 13, tzinfo=UTC)),
        ("2026-11-24T15:00", datetime(2026, 11, 24, 15).astimezone()),
        ("11:00", datetime(2026, 11, 24, 11).astimezone()),
        ("15:00", datetime(2026, 11, 23, 15).astimezone()),
        ("10m", datetime(2026, 11, 24, 11, 50).astimezone()),
        ("1d", datetime(2026, 11, 23, 12).astimezone()),
    ],
)
def test_moments(text: str, found: object) -> None:
    assert moment(text, NOON.timestamp) == found


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "now", "25:00", "2026-13-01", "1e9", "9" * 19, "9" * 18 + "d"]
)
def test_no_moments(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        moment(text, NOON.timestamp)
