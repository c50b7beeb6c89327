"""`archive export` and `import`: what goes out comes in again, what isn't whole doesn't."""

from __future__ import annotations

import base64
import io
import json
import stat
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import pytest

from btreecache import Store
from btreecache.archive import Archive, Retention
from btreecache.archive.records import NAME
from btreecache.cli import main
from btreecache.digest import recompute
from btreecache.element import Element
from btreecache.errors import ArchiveError, BadRequest, Compacted

KEYS = [
    b"/k/a",
    b"/k/\xff\x00",
    "/k/ö\u2028".encode(),
    b'/k/\n"\\',
    *[b"/k/%02d" % i for i in range(40)],
]
VALUES = [b"", b"text", b"\x80", b'{"a": 1}', "\u2028\ud7ff".encode(), b"\0" * 300]


def shortened(element: Element) -> Element:
    """As a transform that drops content: the source's digest stays."""
    return element.altered(element.value[:1]) if len(element.value) > 100 else element


def made(path: Path, group_revisions: int, revisions: int = 120, *, gap: bool = False) -> str:
    rng, uri = Random(group_revisions), str(path / f"made-{group_revisions}")
    with Archive.open(uri, group_revisions=group_revisions, group_age_s=3600.0) as archive:
        history = archive.history(b"/k/")
        store = Store(archive=history, transform=shortened)

        def write(count: int) -> None:
            for _ in range(count):
                key = rng.choice(KEYS)
                if rng.random() < 0.3:
                    store.delete(key)
                else:
                    store.put(key, rng.choice(VALUES))

        write(revisions // 2)
        archive.flush()
        if gap:
            history.pending._revisions_max = 0
            write(20)
            history.pending._revisions_max = 1_000
            archive.flush()
        write(revisions // 2)
        archive.flush()
    return uri


def run(capsysbinary: pytest.CaptureFixture[bytes], *argv: str) -> tuple[int, bytes, str]:
    try:
        code = main(["archive", *argv])
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsysbinary.readouterr()
    return code, captured.out, captured.err.decode()


def exported(capsysbinary: pytest.CaptureFixture[bytes], uri: str, *argv: str) -> bytes:
    code, out, err = run(capsysbinary, "export", "--archive", uri, *argv)
    assert (code, err) == (0, "")
    return out


def states(uri: str) -> dict[int, tuple[int, list[Element]]]:
    """Every readable revision."""
    with Archive.open(uri, read_only=True) as archive, archive.reading() as reading:
        found = {}
        for revision in range(reading.oldest, reading.newest + 1):
            try:
                snapshot = reading.snapshot(revision)
            except Compacted:
                continue
            found[revision] = recompute(snapshot, "values"), [*snapshot]
        return found


@pytest.mark.parametrize("kind", ["one", "seven", "whole", "gap", "thinned"])
def test_a_round_trip(
    kind: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    sizes = {"one": 1, "seven": 7, "whole": 1_000}
    uri = made(tmp_path, sizes.get(kind, 7), gap=kind == "gap")
    if kind == "thinned":
        with Archive.open(uri) as archive:
            archive.trim(Retention(thinning=((-1.0, 1e-4),)))
    text = exported(capsysbinary, uri)
    path, other = tmp_path / "lines", str(tmp_path / "other")
    path.write_bytes(text)
    code, out, err = run(capsysbinary, "import", "--archive", other, "--file", str(path))
    assert (code, err) == (0, "")
    assert out.startswith(b"imported /k/: ")
    assert states(other) == states(uri)
    assert exported(capsysbinary, other) == text
    code, out, _ = run(capsysbinary, "verify", "--archive", other)
    assert code == 0, out
    # What was imported goes on, with its past.
    with Archive.open(other) as archive:
        store = Store(archive=archive.history(b"/k/"))
        before = store.revision
        store.put(b"/k/new", b"1")
        assert archive.flush()
        with archive.snapshot(before) as snapshot:
            assert snapshot.get(b"/k/new") is None
    assert run(capsysbinary, "verify", "--archive", other)[0] == 0


def test_a_range_and_a_file(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    uri, path = made(tmp_path, 7), tmp_path / "lines"
    right = states(uri)
    revisions, rng = sorted(right), Random(3)
    for number in range(6):
        first, last = sorted((rng.choice(revisions), rng.choice(revisions)))
        argv = ("--from", str(first), "--to", str(last), "--prefix", "/k/")
        assert run(capsysbinary, "export", "--archive", uri, *argv, "-f", str(path))[0] == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not (tmp_path / "lines.part").exists()
        assert path.read_bytes() == exported(capsysbinary, uri, *argv)
        other = str(tmp_path / f"other-{number}")
        assert run(capsysbinary, "import", "--archive", other, "-f", str(path))[0] == 0
        found = states(other)
        assert found == {r: right[r] for r in right if first <= r <= last}


def test_the_lines_are_what_the_page_says(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    uri = str(tmp_path / "archive")
    with Archive.open(uri, wall=lambda: 5.0) as archive:
        store = Store(archive=archive.history())
        store.put(b"a", b"1")
        store.put(b"\xff", b"\xfe")
        store.delete(b"a")
        archive.flush()
    found = [json.loads(line) for line in exported(capsysbinary, uri).splitlines()]
    assert [line["type"] for line in found] == [
        "header", "list", "checkpoint", "batch", "batch", "batch", "checkpoint", "end",
    ]  # fmt: skip
    assert found[0] == {"type": "header", "format": 1, "prefix": ""}
    assert found[1] == {"type": "list", "revision": 1, "time_s": 5.0}
    numbers = {"create_revision": 2, "mod_revision": 2, "version": 1}
    assert found[3] == {
        "type": "batch", "revision": 2, "time_s": 5.0,
        "events": [{"type": "put", **numbers, "key": "a", "value": "1"}],
    }  # fmt: skip
    assert found[4]["events"][0]["key_base64"] == base64.b64encode(b"\xff").decode()
    assert found[5]["events"] == [{"type": "delete", "key": "a"}]
    assert found[-1]["lines"] == len(found) - 1


def nothing_was_imported(archive: Archive) -> None:
    assert archive.prefixes() == []
    with archive._database.transaction() as connection:
        assert list(connection.root()) == [NAME]


def test_a_file_that_is_not_whole(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = exported(capsysbinary, made(tmp_path, 7, 40))
    ends = [at + 1 for at, one in enumerate(text) if one == ord("\n")][:-1]
    rng = Random(4)
    damaged = [text[:at] for at in [*ends[::8], *rng.sample(range(1, len(text) - 1), 10)]]
    for _ in range(20):
        at = rng.randrange(1, len(text) - 1)
        damaged.append(text[:at] + bytes([text[at] ^ 1 << rng.randrange(8)]) + text[at + 1 :])
    damaged += [text + b"x", text + text, b"", b"\n", b"\x00" * 50, b"[" * 10**5, b"{" + text]
    with Archive.open(str(tmp_path / "other")) as archive:
        for one in damaged:
            with pytest.raises(BadRequest) as caught:
                archive.import_file(io.BytesIO(one))
            assert str(caught.value).isprintable()
            nothing_was_imported(archive)
        assert archive.import_file(io.BytesIO(text))[0] == b"/k/"
        with pytest.raises(BadRequest, match="has a history of b'/k/' already"):
            archive.import_file(io.BytesIO(text))


def whole(*lines: dict[str, Any]) -> bytes:
    """A file of these lines with a right end."""
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    end = {"type": "end", "lines": len(lines), "digest": blake2b(text, digest_size=32).hexdigest()}
    return text + json.dumps(end).encode() + b"\n"


HEADER = {"type": "header", "format": 1, "prefix": "/k/"}
LIST = {"type": "list", "revision": 5, "time_s": 1.0}


def a_put(key: str = "/k/a", at: int = 5, created: int = 5, version: int = 1) -> dict[str, Any]:
    return {"type": "put", "key": key, "value": "1", "mod_revision": at,
            "create_revision": created, "version": version}  # fmt: skip


def a_checkpoint(*puts: dict[str, Any], at: int = 5) -> dict[str, Any]:
    elements = [
        Element(p["key"].encode(), b"1", p["mod_revision"], p["create_revision"], p["version"])
        for p in puts
    ]
    digest = recompute(elements, "values")
    return {"type": "checkpoint", "revision": at, "elements": len(puts), "digest": f"{digest:064x}"}


def a_batch(*events: dict[str, Any], at: int = 6) -> dict[str, Any]:
    return {"type": "batch", "revision": at, "time_s": 2.0, "events": events}


START = [HEADER, LIST, a_put(), a_checkpoint(a_put())]
GONE = {"type": "delete", "key": "/k/a"}


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], "not a header|neither an export"),
        ([HEADER], "ends without a checkpoint"),
        ([HEADER, LIST], "ends without a checkpoint"),
        ([{**HEADER, "format": 2}, LIST, a_checkpoint()], "format 2; this version reads"),
        ([HEADER, HEADER], "line 2: it begins with a list"),
        ([HEADER, a_put()], "line 2: an element outside a list"),
        ([HEADER, LIST, GONE], "line 3: a delete of a key not known"),
        ([HEADER, LIST, a_put("/x")], "line 3: key b'/x' is outside the prefix"),
        ([HEADER, LIST, a_put(at=6)], "line 3: key b'/k/a' is of revision 6"),
        ([HEADER, LIST, a_put(created=9)], "line 3: key b'/k/a' is of revision 5"),
        ([HEADER, LIST, {**a_put(), "key_base64": "YQ=="}], "line 3: a key, value or prefix is"),
        ([HEADER, LIST, {**a_put(), "key": "\ud800"}], "line 3: JSON is malformed"),
        ([HEADER, LIST, {**a_put(), "more": 1}], "line 3: Object contains unknown field"),
        ([HEADER, LIST, {**a_put(), "version": "1"}], "line 3: Expected `int`"),
        ([HEADER, {**LIST, "revision": 1 << 63}, a_checkpoint()], "line 2: Expected `int` <="),
        ([HEADER, {**LIST, "time_s": 1e300}, a_checkpoint()], "line 2: Expected `float` <"),
        ([HEADER, {**LIST, "reason": "x"}, a_checkpoint()], "line 2: Invalid enum value"),
        ([HEADER, LIST, a_put(), a_checkpoint()], "line 4: the lines before don't come to"),
        ([*START, a_checkpoint(at=5)], "line 5: the lines before don't come to"),
        ([*START, LIST], "line 5: revision 5 after 5"),
        ([*START, a_batch(at=5)], "line 5: revision 5 after 5"),
        ([*START, {"type": "progress", "revision": 9}, a_batch(at=9)], "line 6: revision 9 after"),
        ([*START, a_batch(GONE, GONE)], "line 5: key_repeated"),
        ([*START, a_batch({**GONE, "key": "/k/b"})], "line 5: unknown_key_deleted"),
        ([*START, a_batch({**GONE, "key": "/x"})], "line 5: foreign_key"),
        ([*START, a_batch(a_put(at=6, version=7))], "line 5: version_gap"),
        ([*START, a_batch(a_put(at=5, version=2))], "line 5: misplaced_event"),
        ([*START, {**LIST, "revision": 7}, a_batch(at=8)], "line 6: a list ends with a checkpoint"),
        ([*START, {**LIST, "revision": 7}], "line 5: it ends without a checkpoint"),
    ],
)
def test_well_formed_lies(lines: list[dict[str, Any]], text: str, tmp_path: Path) -> None:
    with Archive.open(str(tmp_path / "archive")) as archive:
        with pytest.raises(BadRequest, match=text):
            archive.import_file(io.BytesIO(whole(*lines)))
        nothing_was_imported(archive)
        honest = whole(*START, a_batch(a_put(at=6, version=2)), a_batch(GONE, at=8))
        assert archive.import_file(io.BytesIO(honest)) == (b"/k/", 3)


def test_what_a_killed_import_leaves_is_nothing(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from btreecache.archive.importing import Importer

    text, uri = exported(capsysbinary, made(tmp_path, 7, 40)), str(tmp_path / "other")
    with Archive.open(uri) as archive:
        with monkeypatch.context() as killed:
            killed.setattr(Importer, "_publish", lambda self: 1 / 0)
            killed.setattr(Importer, "close", lambda self: self._connection.close())
            with pytest.raises(ArchiveError):
                archive.import_file(io.BytesIO(text))
        assert archive.prefixes() == []
        with archive._database.transaction() as connection:
            assert len(connection.root()) == 2
        archive.import_file(io.BytesIO(text))
        with archive._database.transaction() as connection:
            assert list(connection.root()) == [NAME]
    assert run(capsysbinary, "verify", "--archive", uri)[0] == 0


def response(**changes: Any) -> bytes:
    kv = {"key": "L2svYQ==", "create_revision": 2, "mod_revision": 3, "version": 2, "value": "MQ=="}
    header = {"cluster_id": 1 << 63, "member_id": 1, "revision": 9, "raft_term": 2}
    return json.dumps({"header": header, "kvs": [kv], "count": 1} | changes).encode() + b"\n"


def test_of_etcdctl(tmp_path: Path) -> None:
    with Archive.open(str(tmp_path / "archive"), wall=lambda: 7.0) as archive:
        for text, message in [
            (response(count=2), "1 of 2 keys"),
            (response(more=True), "1 of 1 keys"),
            (response(kvs=[{"key": "!"}]), "neither an export nor etcdctl's JSON"),
            (response(header={"revision": -1}), "neither an export nor etcdctl's JSON"),
            (response(header={"revision": 1}), "is of revision 3"),
            (response(kvs=[json.loads(response())["kvs"][0]] * 2, count=2), "don't come to"),
        ]:
            with pytest.raises(BadRequest, match=message):
                archive.import_file(io.BytesIO(text), b"/k/")
            nothing_was_imported(archive)
        with pytest.raises(BadRequest, match="name the --prefix"):
            archive.import_file(io.BytesIO(response()))
        with pytest.raises(BadRequest, match="outside the prefix"):
            archive.import_file(io.BytesIO(response()), b"/x/")
        assert archive.import_file(io.BytesIO(response()), b"/k/") == (b"/k/", 1)
        with archive.snapshot() as snapshot:
            assert snapshot.revision == 9
            assert [*snapshot] == [Element(b"/k/a", b"1", 3, 2, 2)]
        with archive.reading() as reading:
            assert reading.revision_at(7.0) == 9
        empty = json.dumps({"header": {"revision": 4}}).encode()
        assert archive.import_file(io.BytesIO(empty), b"/none/") == (b"/none/", 1)


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["export", "--from", "9", "--to", "5"], 2, "revision 9 is above 5"),
        (["export", "--from", "9999"], 2, "revision 9999 is above"),
        (["export", "--to", "9999"], 3, "Too large resource version"),
        (["export", "--from", "2d"], 3, "nothing was archived"),
        (["import", "-f", "/nonexistent"], 2, "/nonexistent: No such file"),
        (["import", "-f", __file__], 2, "name the --prefix"),
        (["import", "-f", __file__, "--prefix", ""], 2, "neither an export nor etcdctl's JSON"),
    ],
)
def test_what_is_refused(
    argv: list[str], code: int, text: str, tmp_path: Path,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:  # fmt: skip
    found, _, err = run(capsysbinary, *argv, "--archive", made(tmp_path, 7, 20))
    assert found == code
    assert text in err
    assert err.count("\n") == 1
