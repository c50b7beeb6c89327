"""`btreecache get`, `list` and `watch`: what is shown of an etcd's objects, in every form."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from btreecache.cli import main, origin, printing
from btreecache.cli.printing import Shown
from btreecache.sources.simulated import SimulatedSource
from etcdsim import Simulator

RECORDED = [
    json.loads(line)
    for line in (Path(__file__).parent / "data/kube-objects.jsonl").read_text().splitlines()
]
AGE_FREE = 10**10


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Simulator:
    """What --sim opens: the recorded objects, no traffic, and something that is no object."""
    simulator = Simulator("churn", seed=1, objects=1)
    for one in RECORDED:
        simulator.model.put(one["key"].encode(), base64.b64decode(one["etcd_value"]))

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[SimulatedSource]:
        yield SimulatedSource(simulator.truth, "recorded")

    monkeypatch.setattr(origin, "opened", opened)
    return simulator


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main([*argv, "--sim", "churn"])
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def served(one: dict[str, Any], revision: int) -> dict[str, Any]:
    """The API server's own answer, at the revision that the object has here."""
    answer: dict[str, Any] = json.loads(one["json"])
    answer["metadata"]["resourceVersion"] = str(revision)
    if answer["kind"] == "PersistentVolumeClaim":
        del answer["status"]["phase"]  # a default: nobody stored it
    return answer


def without_nulls(value: Any) -> Any:
    """Newer servers leave out what that one wrote as null (creationTimestamp of templates)."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def test_a_list_as_json_is_what_the_server_answers(
    capsys: pytest.CaptureFixture[str], simulator: Simulator
) -> None:
    code, out, err = run(capsys, "list", "-o", "json")
    assert (code, err.count("\n")) == (0, 0)
    found = json.loads(out)
    assert (found["kind"], found["apiVersion"]) == ("List", "v1")
    assert found["metadata"] == {"resourceVersion": str(simulator.model.revision)}
    kvs = simulator.model.scan(b"/registry/", b"/registry0")
    revisions = {kv.key: kv.mod_revision for kv in kvs}
    wanted = {one["key"]: served(one, revisions[one["key"].encode()]) for one in RECORDED}
    same = [wanted[key] for key in sorted(wanted) if wanted[key]["apiVersion"] == stored(key)]
    assert len(same) >= 9
    items = {json.dumps(without_nulls(item), sort_keys=True) for item in found["items"]}
    for one in same:
        assert json.dumps(without_nulls(one), sort_keys=True) in items
    assert len(found["items"]) == len(RECORDED)


def stored(key: str) -> str:
    """The apiVersion that an object was stored as; it may have been asked for in another."""
    return str(next(one["apiVersion"] for one in RECORDED if one["key"] == key))


@pytest.mark.parametrize("form", printing.FORMS)
def test_every_form_shows_every_object(
    capsys: pytest.CaptureFixture[str], simulator: Simulator, form: str
) -> None:
    code, out, err = run(capsys, "list", "-o", form)
    assert (code, err) == (0, "")
    for one in RECORDED:
        assert json.loads(one["json"])["metadata"]["name"] in out
    if form == "name":
        assert out.splitlines() == sorted(one["key"] for one in RECORDED)
    if form == "yaml":
        assert out.count("---\n") == len(RECORDED)


def test_a_name_is_what_get_takes(capsys: pytest.CaptureFixture[str], simulator: Simulator) -> None:
    _, names, _ = run(capsys, "list", "-o", "name", "--prefix", "/registry/pods/")
    name = names.splitlines()[0]
    code, out, _ = run(capsys, "get", name, "-o", "json")
    assert code == 0
    assert json.loads(out)["kind"] == "Pod"
    _, out, _ = run(capsys, "get", name)
    assert out.splitlines()[0].split() == [
        "NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE",
    ]  # fmt: skip


def test_get_at_a_revision_and_of_nothing(
    capsys: pytest.CaptureFixture[str], simulator: Simulator
) -> None:
    key = RECORDED[0]["key"]
    before = simulator.model.revision
    simulator.model.delete_range(key.encode())
    assert run(capsys, "get", key, "--revision", str(before), "-o", "name") == (0, key + "\n", "")
    code, out, err = run(capsys, "get", key)
    assert (code, out) == (3, "")
    assert err.endswith("not found\n")
    # A prefix of a key is no key.
    assert run(capsys, "get", key[:-1], "--revision", str(before))[0] == 3


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(
    capsys: pytest.CaptureFixture[str], simulator: Simulator
) -> None:
    for value in (b"{", b"k8s\0\x0a\xff", b"k8s:enc:aescbc:v1:k:x"):
        simulator.model.put(b"/registry/pods/a\x1b/bad", value)
        code, out, err = run(capsys, "list", "-o", "name", "--prefix", "/registry/pods/")
        assert code == 3
        assert out.splitlines() == ["/registry/pods/shop/bare", "/registry/pods/shop/full"]
        assert err.count("\n") == 1
        assert "can't be decoded" in err
        assert "\x1b" not in err


def test_a_selector(capsys: pytest.CaptureFixture[str], simulator: Simulator) -> None:
    for selector, count in (("nobody=x", 0), ("!nobody", len(RECORDED))):
        code, out, err = run(capsys, "list", "-o", "name", "-l", selector)
        assert (code, len(out.splitlines())) == (0, count)
        assert ("no objects found" in err) == (not count)
    code, _, err = run(capsys, "list", "-l", "a in x")
    assert code == 2
    assert err.count("\n") == 1


def test_watch_from_a_revision_shows_each_change(
    capsys: pytest.CaptureFixture[str], simulator: Simulator
) -> None:
    model, key = simulator.model, RECORDED[0]["key"].encode()
    before = model.revision
    model.delete_range(key)
    model.put(key, base64.b64decode(RECORDED[0]["etcd_value"]))
    model.put(key, base64.b64decode(RECORDED[0]["etcd_value"]))
    common = ("watch", "--revision", str(before), "--events", "3", "--for", "30s")
    code, out, err = run(capsys, *common, "-o", "name")
    text = key.decode()
    assert (code, out, err) == (0, f"DELETED {text}\nADDED {text}\nMODIFIED {text}\n", "")
    _, out, _ = run(capsys, *common, "-o", "json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["type"] for event in events] == ["DELETED", "ADDED", "MODIFIED"]
    versions = [event["object"]["metadata"]["resourceVersion"] for event in events]
    assert versions == [str(before + at) for at in (1, 2, 3)]
    _, out, _ = run(capsys, *common)
    assert [line.split()[0] for line in out.splitlines()] == [
        "EVENT", "DELETED", "ADDED", "MODIFIED",
    ]  # fmt: skip


def test_watch_with_what_is_there(capsys: pytest.CaptureFixture[str], simulator: Simulator) -> None:
    some = "--events", str(len(RECORDED)), "--for", "30s"
    _, out, _ = run(capsys, "watch", "--initial", *some, "-o", "name")
    assert out.splitlines() == sorted(f"ADDED {one['key']}" for one in RECORDED)


def test_watch_ends_in_time(capsys: pytest.CaptureFixture[str], simulator: Simulator) -> None:
    assert run(capsys, "watch", "--for", "100ms", "-o", "name") == (0, "", "")


def shown(*texts: bytes) -> Sequence[Shown]:
    return [Shown(b"/k\xff\n/%d" % at, text) for at, text in enumerate(texts)]


def test_hostile_objects_reach_no_terminal() -> None:
    text = json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x\x1b[31m\n", "namespace": 7}}
    ).encode()
    (name,) = printing.names(shown(text))
    assert name == "/k\\udcff\\n/0\n"
    for line in printing.tables(shown(text), lambda: AGE_FREE):
        assert line.rstrip("\n").isprintable()


def test_blocks_of_a_table_and_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing, "BLOCK_ROWS", 2)

    def one(kind: str, name: str) -> bytes:
        return json.dumps(
            {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": name}}
        ).encode()

    texts = [one("A", name) for name in ("1", "2", "three")] + [one("B", "4")]
    assert "".join(printing.tables(shown(*texts), lambda: AGE_FREE)) == (
        "NAME   AGE\n1      <unknown>\n2      <unknown>\nthree   <unknown>\n\n"
        "NAME   AGE\n4      <unknown>\n"
    )
