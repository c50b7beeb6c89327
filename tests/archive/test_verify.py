"""`archive info`, `verify`, `pack`: what is damaged is named, and nothing crashes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace
from ZODB.POSException import ReadConflictError
from ZODB.utils import p64

from btreecache import Store
from btreecache.archive import Archive, verify
from btreecache.archive.records import NAME, Branch, Group, Leaf, Run
from btreecache.archive.storage import open_database
from btreecache.archive.verify import Verification
from btreecache.cli import main
from btreecache.digest import recompute
from btreecache.errors import BtreecacheError

KEYS = 200


def made(path: Path, seed: int = 0, revisions: int = 400) -> str:
    """An archive of random writes in groups of 40; its URI."""
    rng, uri = Random(seed), str(path / "archive")
    with Archive.open(uri, group_revisions=40, group_age_s=3600.0) as archive:
        store = Store(archive=archive.history())
        for _ in range(revisions):
            store.put(b"/k/%04d" % rng.randrange(KEYS), rng.randbytes(rng.choice([3, 60])))
            if rng.random() < 0.1:
                store.delete(b"/k/%04d" % rng.randrange(KEYS))
        assert archive.flush()
    return uri


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(["archive", *argv])
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    assert captured.err.count("\n") <= 1
    return code, captured.out, captured.err


def test_what_is_sound_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = made(tmp_path)
    code, out, _ = run(capsys, "verify", "--archive", uri, "-o", "json")
    found = json.loads(out)
    assert (code, found["verdict"], found["problems"]) == (0, "sound", [])
    assert found["groups"] == found["checkpoints"] > 10
    assert found["batches"] > 400
    code, out, _ = run(capsys, "info", "--archive", uri, "-o", "json")
    (history,) = json.loads(out)["histories"]
    assert code == 0
    assert history["groups"] == found["groups"]
    assert history["batches"] == found["batches"]
    assert (history["oldest"], history["gaps"]) == (1, [])
    with Archive.open(uri, read_only=True) as archive, archive.snapshot() as newest:
        assert (history["durable"], history["elements"]) == (newest.revision, len(newest))
    code, out, _ = run(capsys, "info", "--archive", uri)
    assert f"durable       {newest.revision} at " in out
    code, out, _ = run(capsys, "verify", "--archive", uri)
    assert out.splitlines()[-1].split() == ["verdict", "sound"]


def nowhere(connection: Any, kind: type) -> Any:
    """A reference to a record that there is none of."""
    ghost = kind.__new__(kind)
    ghost._p_oid, ghost._p_jar = p64(1 << 40), connection
    return ghost


def first_leaf(root: Any) -> tuple[Leaf, str]:
    record, path = root, "root"
    while isinstance(record, Branch):
        record, path = record.state[2][0], f"{path}/0"
    return record, path


def leaf_to_no_run(group: Group, connection: Any) -> str:
    leaf, path = first_leaf(group.read().root)
    prefix, suffixes, _, sizes, places = leaf.state
    leaf.state = (prefix, suffixes, (nowhere(connection, Run),) * len(sizes), sizes, places)
    return f"{path}: run 0x10000000000: broken reference"


def branch_to_no_leaf(group: Group, connection: Any) -> str:
    root = group.read().root
    height, keys, children, counts = root.state
    root.state = (height, keys, (nowhere(connection, Leaf), *children[1:]), counts)
    return "root/0: leaf 0x10000000000: broken reference"


def group_to_no_root(group: Group, connection: Any) -> str:
    group.state = group.read()._replace(root=nowhere(connection, Branch))[:]
    return "root: branch 0x10000000000: broken reference"


def another_value(group: Group, _: Any) -> str:
    run = first_leaf(group.read().root)[0].state[2][0]
    first, *others = run.state
    run.state = (replace(first, value=first.value + b"!", check=None), *others)
    return "the digest of its elements is not the one that was saved"


def another_value_than_checked(group: Group, _: Any) -> str:
    run = first_leaf(group.read().root)[0].state[2][0]
    first, *others = run.state
    run.state = (replace(first, value=first.value + b"!"), *others)
    return "is not what was written"


def another_key(group: Group, _: Any) -> str:
    run = first_leaf(group.read().root)[0].state[2][0]
    run.state = tuple(replace(each, key=each.key + b"!", check=None) for each in run.state)
    return "does not hold b'/k/00"


def a_place_beyond(group: Group, _: Any) -> str:
    leaf = first_leaf(group.read().root)[0]
    *rest, places = leaf.state
    leaf.state = (*rest, (places[0], 10**6, *places[2:]))
    return "at place 1000000"


def a_wrong_count(group: Group, _: Any) -> str:
    root = group.read().root
    height, keys, children, counts = root.state
    root.state = (height, keys, children, (counts[0] + 1, *counts[1:]))
    return "elements are promised"


def a_cycle(group: Group, _: Any) -> str:
    root = group.read().root
    height, keys, children, counts = root.state
    root.state = (height, keys, (root, *children[1:]), counts)
    return "ValueError: a branch of height 1"


def separators_that_lie(group: Group, _: Any) -> str:
    root = group.read().root
    height, keys, *rest = root.state
    root.state = (height, (keys[0], keys[1] + b"~", *keys[2:]), *rest)
    return "I1 at root"


def another_form(group: Group, _: Any) -> str:
    first_leaf(group.read().root)[0].state = (1, 2, ())
    return "StateLoadError: "


def a_lost_batch(group: Group, _: Any) -> str:
    log = group.read().log
    runs, batches, digest = log.state
    log.state = (runs, (*batches[:3], *batches[4:]), digest)
    return "log: "


def batches_in_disorder(group: Group, _: Any) -> str:
    log = group.read().log
    runs, batches, digest = log.state
    log.state = (runs, batches[::-1], digest)
    return "log: batch"


def a_log_to_no_run(group: Group, connection: Any) -> str:
    log = group.read().log
    runs, batches, digest = log.state
    log.state = ((nowhere(connection, Run), *runs[1:]), batches, digest)
    return "log: run 0x10000000000: broken reference"


def a_wrong_base(group: Group, _: Any) -> str:
    group.state = group.read()._replace(base=7)[:]
    return "log: its base, the checkpoint at 7, is not there"


DAMAGES = [
    leaf_to_no_run, branch_to_no_leaf, group_to_no_root, another_value, another_value_than_checked,
    another_key,
    a_place_beyond, a_wrong_count, a_cycle, separators_that_lie, another_form, a_lost_batch,
    batches_in_disorder, a_log_to_no_run, a_wrong_base,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_named(
    damage: Callable[[Group, Any], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = made(tmp_path)
    database = open_database(uri, read_only=False)
    with database.transaction() as connection:
        groups = connection.root()[NAME].state[1][b""].read().groups
        revision = list(groups.keys())[5]
        expected = damage(groups[revision], connection)
    database.close()
    code, out, _ = run(capsys, "verify", "--archive", uri)
    lines = [line for line in out.splitlines() if line.startswith("history")]
    assert code == 1
    assert any(f"group {revision} " in line or f"group {revision}:" in line for line in lines)
    assert any(expected in line for line in lines), lines
    assert out.splitlines()[-1].split() == ["verdict", "broken"]
    code, out, _ = run(capsys, "verify", "--archive", uri, "-o", "json")
    assert code == 1
    assert json.loads(out)["problems_total"] == len(lines)


def digests(uri: str) -> dict[int, int]:
    """Of every revision that can be read."""
    found = {}
    with Archive.open(uri, read_only=True) as archive, archive.reading() as reading:
        for revision in range(reading.oldest, reading.newest + 1):
            found[revision] = recompute(reading.snapshot(revision), "values")
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ZODB's open files
def test_a_flipped_bit_is_found_or_harms_nothing(tmp_path: Path) -> None:
    """No bit in the file makes verify fail, and where it finds nothing every read is right."""
    uri = made(tmp_path, revisions=120)
    whole, right = Path(uri).read_bytes(), digests(uri)
    Path(uri + ".index").unlink()
    rng, broken = Random(8), 0
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[rng.randrange(4, len(whole))] ^= 1 << rng.randrange(8)
        Path(uri).write_bytes(damaged)
        try:
            with (
                Archive.open(uri, read_only=True) as archive,
                archive.reading() as walk,
                archive.reading() as replay,
            ):
                found = [*Verification(walk, replay).problems()]
        except BtreecacheError:
            broken += 1
            continue
        broken += bool(found)
        if not found:
            there = digests(uri)
            # A transaction whose frame is damaged ends the file: a prefix, and no other.
            assert there == {revision: right[revision] for revision in there}
    assert broken > 6


@pytest.mark.parametrize("times", [1, 1_000])
def test_what_a_pack_takes_away_meanwhile_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    uri, left = made(tmp_path, revisions=50), times

    def contents_of(run: Run) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise ReadConflictError
        return original(run)

    original = verify.contents_of
    monkeypatch.setattr(verify, "contents_of", contents_of)
    with (
        Archive.open(uri, read_only=True) as archive,
        archive.reading() as walk,
        archive.reading() as replay,
    ):
        problems = [*Verification(walk, replay).problems()]
    assert bool(problems) == (times > 1)


def test_pack_forgets_and_sets_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = made(tmp_path)
    right = digests(uri)
    size = os.path.getsize(uri)
    code, out, _ = run(capsys, "pack", "--archive", uri, "--keep-revisions", "100")
    assert code == 0
    assert os.path.getsize(uri) < size
    before, after = (line.split() for line in out.splitlines()[-2:])
    assert (before[0], after[0]) == ("before", "after")
    assert int(after[1].replace(",", "")) == os.path.getsize(uri)
    left = digests(uri)
    assert 60 <= len(left) <= 140  # Groups go whole, and have about 40.
    assert left == {revision: right[revision] for revision in left}
    assert run(capsys, "verify", "--archive", uri)[0] == 0
    code, out, _ = run(capsys, "pack", "--archive", uri, "--thin", "1ms=1d")
    code, out, _ = run(capsys, "info", "--archive", uri, "-o", "json")
    assert json.loads(out)["histories"][0]["groups"] <= 3
    assert run(capsys, "verify", "--archive", uri)[0] == 0


WRITER = """
import sys
from itertools import count
from btreecache import Store
from btreecache.archive import Archive, verify
with Archive.open(sys.argv[1], group_age_s=0.01) as archive:
    store = Store(archive=archive.history(b"/k/"))
    for i in count():
        store.put(b"/k/%d" % (i % 100), b"%d" % i)
        if i == 1000:
            archive.flush()
            print("ready", flush=True)
"""


def test_beside_a_writer_and_after_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(tmp_path / "archive")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, uri], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        for _ in range(3):
            code, out, err = run(capsys, "verify", "--archive", uri)
            assert (code, err) == (0, ""), out
        code, _, err = run(capsys, "pack", "--archive", uri)
        assert (code, "another process has" in err) == (3, True)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    code, out, err = run(capsys, "verify", "--archive", uri)
    assert (code, err) == (0, ""), out
    assert run(capsys, "info", "--archive", uri, "-o", "json")[0] == 0
    assert run(capsys, "pack", "--archive", uri)[0] == 0


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["info", "--archive", "NONE"], 3, "there is no archive"),
        (["info", "--archive", "http://x/"], 2, "an archive is a path, zeo:// or postgresql://"),
        (["verify", "--archive", "URI", "--prefix", "/x"], 2, "no history of '/x'"),
        (["pack", "--archive", "URI", "--thin", "1h=1m,1m=1s"], 2, "ages must ascend"),
        (["pack", "--archive", "URI", "--keep-bytes", "ten"], 2, "expected a number of bytes"),
        (["pack", "--archive", "URI", "--keep-age", "0s"], 2, "a duration must be positive"),
        (["pack", "--archive", "NONE"], 3, "there is no archive"),
    ],
)
def test_what_is_refused(
    argv: list[str], code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"URI": made(tmp_path, revisions=10), "NONE": str(tmp_path / "none")}
    found, out, err = run(capsys, *[names.get(word, word) for word in argv])
    assert (found, out) == (code, "")
    assert text in err
