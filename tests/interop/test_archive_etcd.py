"""An archive made of what etcdctl prints, and `diff` and `log` over a real etcd."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from btreecache.archive import Archive
from btreecache.cli import main
from btreecache.sources.etcd import EtcdSource
from tests.interop.conftest import ROOT, etcd_binary
from tests.interop.etcd_server import EtcdServer, Writer

pytestmark = pytest.mark.interop

PREFIX = b"/registry/configmaps/"


def document(name: str, text: str) -> bytes:
    value = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "text": text}
    return json.dumps(value).encode()


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def etcdctl(request: pytest.FixtureRequest, endpoint: str, *argv: str) -> bytes:
    """What the etcdctl beside the server prints."""
    version = request.node.callspec.params["etcd"]
    binary = etcd_binary(version).with_name("etcdctl")
    command = [str(binary), "--endpoints", endpoint, *argv]
    return subprocess.run(command, check=True, capture_output=True, timeout=30, cwd=ROOT).stdout


def test_what_etcdctl_prints_is_imported(
    etcd: EtcdServer, writer: Writer, request: pytest.FixtureRequest, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for number in range(50):
        writer.put(PREFIX + b"d/%d" % number, bytes([number]) * number)
    writer.put(PREFIX + b"\xff\x00", b"")
    for number in range(0, 50, 3):
        writer.put(PREFIX + b"d/%d" % number, b"again")
    writer.put(b"/registry/pods/d/x", b"x")
    path, uri = tmp_path / "etcd.json", str(tmp_path / "archive")
    path.write_bytes(etcdctl(request, etcd.endpoint, "get", "--prefix", PREFIX.decode(), "-wjson"))
    argv = ("archive", "import", "--archive", uri, "--prefix", PREFIX.decode(), "-f", str(path))
    code, out, _ = run(capsys, *argv)
    assert (code, out) == (0, f"imported {PREFIX.decode()}: 1 revisions\n")
    source = EtcdSource(etcd.endpoint)
    try:
        revision = source.current_revision()
        there = source.range_at(revision, PREFIX).elements
    finally:
        source.close()
    with Archive.open(uri, read_only=True) as archive, archive.snapshot(revision) as snapshot:
        assert [*snapshot] == there
    assert run(capsys, "archive", "verify", "--archive", uri)[0] == 0
    limited = etcdctl(
        request, etcd.endpoint, "get", "--prefix", "/registry/", "--limit=3", "-wjson"
    )
    path.write_bytes(limited)
    with pytest.raises(SystemExit) as ended:
        main(["archive", "import", "--archive", uri, "--prefix", "/registry/", "-f", str(path)])
    assert ended.value.code == 2
    assert "--limit" in capsys.readouterr().err


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_diff_and_log(etcd: EtcdServer, writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    key, source = PREFIX + b"d/x", ("--etcd", etcd.endpoint)
    first = writer.put(key, document("x", "1"))
    writer.put(PREFIX + b"d/y", document("y", "1"))
    last = writer.put(key, document("x", "2"))
    code, out, _ = run(capsys, "diff", str(first), str(last), *source)
    assert (code, out.splitlines()[:2]) == (0, [f"~ {key.decode()}", f"+ {PREFIX.decode()}d/y"])
    code, out, _ = run(capsys, "diff", str(first), *source, "-o", "unified")
    assert '-text: "1"\n' in out
    assert '+text: "2"\n' in out
    code, out, _ = run(capsys, "log", key.decode(), *source, "-o", "json")
    found = [(one["revision"], one["change"], one["object"]["text"]) for one in lines(out)]
    assert found == [(last, "updated", "2"), (first, "created", "1")]
    writer.compact(last)
    code, out, _ = run(capsys, "log", key.decode(), *source, "-o", "json")
    assert [one["change"] for one in lines(out)] == ["updated", "gap"]
    code, out, err = run(capsys, "diff", str(first), *source)
    assert (code, out, err.count("\n")) == (3, "", 1)
