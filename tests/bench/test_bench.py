"""The benchmark measures right answers, and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.bench import harness, reads
from tests.bench.harness import ROWS, Row, command_of, run_size
from tests.bench.keys import pod_keys, read_key_file, write_key_file
from tests.bench.rivals import RIVALS, ImmutablesMap, Ours, Rival, merged_difference
from tests.bench.table import DASH, cell_text, duration, ratio, ratio_text, size, table

KEYS = pod_keys(400, Random(1))


@pytest.mark.parametrize("kind", RIVALS.values(), ids=list(RIVALS))
def test_every_rival_answers_as_a_dict_does(kind: type[Rival], tmp_path: Path) -> None:
    assert kind.missing() is None, "the dev extra brings every rival"
    rival: Any = kind(tmp_path)
    model = {key: b"%016d" % i for i, key in enumerate(KEYS[::2])}
    rival.load(sorted(model.items()))
    kept, wanted, rng = [rival.snapshot()], [dict(model)], Random(2)
    for step in range(20):
        key, value = rng.choice(KEYS), b"%016d" % (1000 + step)
        rival.put([(key, value)], kept)
        model[key] = value
        wanted.append(dict(model))
        key = rng.choice(sorted(model))
        rival.delete([key], kept)
        del model[key]
        wanted.append(dict(model))
    rival.advance([(KEYS[0], b"last"), (KEYS[399], b"last")])
    model |= {KEYS[0]: b"last", KEYS[399]: b"last"}
    kept.append(rival.snapshot())
    wanted.append(model)
    for snapshot, want in zip(kept, wanted, strict=True):
        assert rival.get(snapshot, KEYS) == [want.get(key) for key in KEYS]
        items = list(rival.items(snapshot))
        assert dict(items) == want
        assert len(items) == len(want)
    order, first = sorted(wanted[0].items()), kept[0]
    start, stop = order[50][0], order[90][0]
    if hasattr(rival, "page"):
        assert [tuple(pair) for pair in rival.page(first, start, 30)] == order[50:80]
        assert [tuple(pair) for pair in rival.page(first, order[190][0], 30)] == order[190:]
        assert rival.count(first, start, stop) == 40
    changed = {k for k in KEYS if wanted[0].get(k) != model.get(k)}
    assert rival.diff(first, kept[-1]) == len(changed)
    assert rival.diff(first, first) == 0
    kept.clear()
    rival.close()


def test_a_difference_counts_each_key_once() -> None:
    old = [(b"a", b"1"), (b"b", b"1"), (b"d", b"1")]
    new = [(b"b", b"2"), (b"c", b"1"), (b"d", b"1")]
    assert merged_difference(old, new) == merged_difference(new, old) == 3


def test_keys_have_the_shape_of_kubernetes_and_come_back_from_their_file(tmp_path: Path) -> None:
    assert pod_keys(400, Random(1)) == KEYS == sorted(set(KEYS))
    assert 50 < sum(map(len, KEYS)) / len(KEYS) < 64
    assert {key.count(b"/") for key in KEYS} == {4}
    write_key_file(tmp_path / "keys", 300, 100, Random(1))
    keys = read_key_file(tmp_path / "keys")
    assert sorted(keys) == KEYS
    assert keys[:300] == sorted(keys[:300])
    assert keys[0] < keys[300] < keys[399]
    assert keys[300:] != KEYS[300:], "spread among the loaded ones"


def test_figures_read_as_they_should() -> None:
    assert [duration(x) for x in (8.12e-7, 5.314e-6, 0.00123, 1.2, 9.9996e-4)] == [
        "812 ns", "5.31 µs", "1.23 ms", "1.20 s", "1.00 ms",
    ]  # fmt: skip
    assert [size(x) for x in (1622.4, 4.1e6)] == ["1,622 B", "4.10 MB"]
    assert [ratio_text(x) for x in (0.00312, 0.523, 1.479, 209.7)] == [
        "0.0031", "0.52", "1.48", "210",
    ]  # fmt: skip


def test_a_ratio_is_of_rounds_side_by_side() -> None:
    # A slow round of both sides is no difference: medians alone would say 1.0 / 2.0.
    assert ratio([1.0, 2.0, 9.0], [2.0, 4.0, 18.0]) == 0.5
    assert ratio([1.0, 1.0, 9.0], [2.0, 4.0, 9.0]) == 0.5
    assert ratio([3.0, 1.0], [1.0]) == 3.0


def cell(rival: str, row: str, *rounds: dict[str, Any]) -> dict[str, Any]:
    return {"size": 10, "row": row, "rival": rival, "rounds": list(rounds)}


def test_the_table_hides_nothing() -> None:
    cells = [
        cell("ours", "update", {"ops": 1000, "seconds": 0.002}),
        cell("other", "update", {"ops": 2, "seconds": 0.002}),
        cell("ours", "page", {"ops": 1000, "seconds": 0.002}),
        cell("other", "page", {}),
        cell("ours", "bytes", {"ops": 9, "live_bytes": 500.0, "rss_bytes": 700.0}),
        cell("other", "bytes", {"ops": 9, "rss_bytes": 1400.0}),
    ]
    lines = table(cells, ["ours", "other", "gone"], {"gone": "no module"}, "ours")
    assert lines[0] == "| keys | what | ours | other | gone |"
    assert lines[2:] == [
        "| 10 | update | 2.00 µs | 1.00 ms (0.002) n=2 | missing |",
        f"| 10 | page | 2.00 µs | {DASH} | missing |",
        "| 10 | bytes | 500 B live | 1,400 B rss (0.50) | missing |",
        "missing: gone: no module",
    ]
    assert cell_text(cell("x", "update"), None) == DASH


def test_a_run_gives_a_cell_for_each_row_and_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes, as `make bench` does; every row, tiny."""
    monkeypatch.setattr(harness, "EXTRA", 50)
    monkeypatch.setattr(harness, "OPS_MAX", 40)
    monkeypatch.setattr(harness, "WINDOW", 10)
    small = [
        Row(row.name, lambda rng, n, row=row: shrunk(row.request(rng, n)), row.once)
        for row in ROWS
        if "10,000" not in row.name
    ]
    names = [Ours.name, ImmutablesMap.name]
    cells, absent = run_size(200, names, small, rounds=2, budget_s=0.01)
    assert absent == {}
    assert {(c["row"], c["rival"]) for c in cells} == {
        (row, name) for row in [harness.LOAD, *(row.name for row in small)] for name in names
    }
    for one in cells:
        lacks = one["rival"] == ImmutablesMap.name and one["row"].startswith(("page", "range"))
        assert all((reply == {}) == lacks for reply in one["rounds"])
        assert lacks or all(reply["ops"] > 0 and reply["seconds"] > 0 for reply in one["rounds"])
    assert json.loads(json.dumps(cells)) == cells


def shrunk(request: dict[str, Any]) -> dict[str, Any]:
    """Few enough operations and keys for a test."""
    small = dict(request)
    if "n" in small:
        small["n"] = 2
    if "keys" in small and small["do"] in ("page", "count"):
        small["keys"] = small["keys"][:8]
    return small


def test_wrong_answers_end_the_run() -> None:
    same = {"a": [{"ops": 5, "seconds": 1.0, "answer": 7}], "b": [{"ops": 5, "answer": 7}]}
    harness._agree("get", same)
    with pytest.raises(RuntimeError, match=r"get: round 0, 5 operations: answers \{[78], [78]\}"):
        harness._agree("get", {**same, "c": [{"ops": 5, "answer": 8}]})


def test_a_rival_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ImmutablesMap, "needs", ("no_such_module",))
    assert command_of(ImmutablesMap.name, tmp_path) == "no_such_module is not installed"
    monkeypatch.setattr(harness, "GO_DRIVER", Path("no/such/driver"))
    assert command_of(harness.GO, tmp_path) == "no Go driver built"


def test_an_error_of_a_worker_is_an_error_of_the_run(tmp_path: Path) -> None:
    command = command_of(Ours.name, tmp_path)
    assert isinstance(command, list)
    contender = harness.Contender(Ours.name, command)
    try:
        with pytest.raises(RuntimeError, match="btreecache: load: FileNotFoundError"):
            contender.ask({"do": "load", "file": str(tmp_path / "none"), "n": 1})
    finally:
        contender.close()


def test_reads_are_measured() -> None:
    figures = reads.measure(2_000, 2)
    assert figures["walk_per_whole"] == pytest.approx(figures["walk_ms"] / figures["whole_ms"])
    assert min(figures.values()) > 0
