"""A member with a data directory: what was answered is there again, whatever the end was like."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from random import Random
from threading import Event
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from ZODB.FileStorage import FileStorage

pytest.importorskip("grpc")

from etcdsim import services, wire
from etcdsim.errors import DamagedLogError, DataDirError, ErrPermissionDenied
from etcdsim.server import journal as journals
from etcdsim.server.leasing import expire_leases
from etcdsim.server.log import Log
from tests.differential import Requests
from tests.etcdsim.durable import Asked, answer_of, asked

TIMEOUT_S = 10.0


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts instead of waiting for the disk: no machine crashes here."""
    calls: list[int] = []
    file_storage = import_module("ZODB.FileStorage.FileStorage")
    monkeypatch.setattr(file_storage, "fsync", calls.append)
    return calls


def test_it_is_on_disk_when_it_is_answered(tmp_path: Path, synced: list[int]) -> None:
    with asked(tmp_path) as target:
        for number in range(3):
            before = len(synced)
            put(target, number)
            assert len(synced) == before + 1
        before = len(synced)
        target.ask(wire.RANGE, key=b"k1")
        target.ask(wire.TXN, success=[{"request_range": {"key": b"k1"}}])
        assert len(synced) == before


@pytest.fixture(params=["one checkpoint", "many checkpoints"])
def checkpoints(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many checkpoints":
        defaults = (*journals.Journal.__init__.__defaults__[:-1], (0, 0))  # type: ignore[index]
        monkeypatch.setattr(journals.Journal.__init__, "__defaults__", defaults)


@pytest.mark.usefixtures("checkpoints")
@pytest.mark.parametrize(("version", "seed"), [("3.4.23", 1), ("3.5.30", 2)])
def test_as_if_it_had_never_ended(tmp_path: Path, version: str, seed: int) -> None:
    """The same requests to a member in memory and to one that ends now and then."""
    requests, rng = Requests(seed), Random(seed)
    durable = Asked(tmp_path, version=version)
    with asked(None, version=version) as twin:
        for number, request in zip(range(500), requests, strict=False):
            if request.method not in twin.handlers or request.method.answers:
                continue
            answer = twin.ask(*request)
            requests.follow(request, answer)
            assert durable.ask(*request) == answer, f"request {number}: {request}"
            if rng.random() < 0.02:
                durable.close()
                durable = Asked(tmp_path, version=version)
        state = twin.state()
    assert durable.state() == state
    assert min(len(state[part]) for part in ("leases", "records")) > 1
    assert state["auth"][0] > 1
    assert state["revision"][1] > 1
    durable.close()
    with asked(tmp_path, version=version) as again:
        assert again.state() == state


def put(target: Asked, number: int) -> int:
    answer = target.ask(wire.PUT, key=b"k%d" % number, value=b"v" * number)
    return int(answer.header.revision)


def written(data_dir: Path, puts: int = 4) -> list[tuple[int, dict[str, Any]]]:
    """A directory with some puts in it -> the size of the log and the state after each."""
    with asked(data_dir) as target:
        states = []
        for number in range(puts):
            put(target, number)
            states.append(((data_dir / "log.fs").stat().st_size, target.state()))
    return states


def test_a_torn_tail_is_dropped_at_every_byte(tmp_path: Path) -> None:
    (before, state), (size, whole) = written(tmp_path / "whole")[-2:]
    data = (tmp_path / "whole/log.fs").read_bytes()
    assert len(data) == size
    for length in range(before, size + 1):
        torn = tmp_path / "torn"
        torn.mkdir()
        (torn / "log.fs").write_bytes(data[:length])
        with asked(torn) as target:
            assert target.state() == (whole if length == size else state), length
            assert put(target, 9) == target.member.model.revision
            state_after = target.state()
        assert [path.name for path in torn.glob("log.fs.tr*")] == []
        with asked(torn) as target:
            assert target.state() == state_after
        shutil.rmtree(torn)


def test_damage_anywhere_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    """Every byte in front of the last transaction; a status becomes that of an unfinished one."""
    states = written(tmp_path / "whole", puts=3)
    data = (tmp_path / "whole/log.fs").read_bytes()
    refused = 0
    for at in range(states[-2][0]):
        spoiled = tmp_path / "spoiled"
        spoiled.mkdir()
        changed = bytes([data[at] ^ ord("c") ^ ord(" ")])
        (spoiled / "log.fs").write_bytes(data[:at] + changed + data[at + 1 :])
        refusal = str(spoiled / "log.fs")
        try:
            with asked(spoiled) as target:
                assert target.state() == states[-1][1], at
        except DamagedLogError as error:
            refusal = str(error)
            refused += 1
        assert refusal.startswith(str(spoiled / "log.fs")), at
        assert len(refusal.splitlines()) == 1
        shutil.rmtree(spoiled)
    assert refused > states[-2][0] / 2


@pytest.mark.parametrize("kept", [0, 1, 4, 30, 100])
def test_a_log_without_its_beginning(tmp_path: Path, kept: int) -> None:
    written(tmp_path)
    path = tmp_path / "log.fs"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DamagedLogError, match=r"log\.fs: "):
        Asked(tmp_path)


def rewrite(data_dir: Path, records: Iterable[bytes]) -> None:
    log = Log(data_dir)
    log.replace(records)
    log.close()


@pytest.mark.parametrize(
    ("head", "error", "text"),
    [
        ({"format": 2, "x": 1}, DataDirError, "format 2; this etcdsim knows up to 1"),
        ({"format": 1}, DamagedLogError, "no log of etcdsim"),
        (["format"], DamagedLogError, "no log of etcdsim"),
        ({}, DamagedLogError, "no log of etcdsim"),
    ],
)
def test_a_head_it_does_not_know(
    tmp_path: Path, head: Any, error: type[DataDirError], text: str
) -> None:
    rewrite(tmp_path, [msgspec.msgpack.encode(head), msgspec.msgpack.encode([])])
    with pytest.raises(error, match=text) as refused:
        Asked(tmp_path)
    assert type(refused.value) is error


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"a": 1}),
        msgspec.msgpack.encode([("/etcdserverpb.KV/Nothing", b"")]),
        msgspec.msgpack.encode([(wire.PUT.path, b"\xff")]),
        msgspec.msgpack.encode([(wire.WATCH.path, b"")]),
    ],
)
def test_a_record_that_holds_no_request(tmp_path: Path, record: bytes) -> None:
    written(tmp_path, puts=1)
    log = Log(tmp_path)
    log.append(record)
    log.close()
    with pytest.raises(DamagedLogError, match="a record holds what is no request"):
        Asked(tmp_path)


def test_another_version_of_etcd(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(DataDirError, match=r"written as etcd 3\.5\.30, not 3\.4\.23"):
        Asked(tmp_path, version="3.4.23")
    with asked(tmp_path):  # it was let go
        pass


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with asked(tmp_path), pytest.raises(DataDirError, match="another process uses it"):
        Asked(tmp_path)
    with asked(tmp_path):
        pass


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(DataDirError, match="file"):
            Asked(path)


def test_its_files_are_for_the_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "made"
    with asked(directory) as target:
        put(target, 1)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert set(modes) >= {"log.fs", "lock"}
    assert set(modes.values()) == {0o600}


def test_no_password_is_kept(tmp_path: Path) -> None:
    with asked(tmp_path) as target:
        target.ask(services.USER_ADD, name="alice", password="open sesame")
        target.ask(services.USER_CHANGE_PASSWORD, name="alice", hashedPassword="open sesame")
    log = (tmp_path / "log.fs").read_bytes()
    assert b"alice" in log
    assert b"open sesame" not in log


@pytest.mark.parametrize("growth_bytes", [1 << 30, 1], ids=["redone", "from a checkpoint"])
def test_authentication_stays_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, growth_bytes: int
) -> None:
    defaults = (
        *journals.Journal.__init__.__defaults__[:-1],  # type: ignore[index]
        (growth_bytes, growth_bytes),
    )
    monkeypatch.setattr(journals.Journal.__init__, "__defaults__", defaults)
    with asked(tmp_path) as target:
        for name in ("root", "ann"):
            target.ask(services.USER_ADD, name=name, password=f"{name}'s")
        target.ask(services.USER_GRANT_ROLE, user="root", role="root")
        target.ask(services.ROLE_ADD, name="reader")
        perm = {"permType": "READWRITE", "key": b"a", "range_end": b"b"}
        target.ask(services.ROLE_GRANT_PERMISSION, name="reader", perm=perm)
        target.ask(services.USER_GRANT_ROLE, user="ann", role="reader")
        target.ask(services.AUTH_ENABLE)
        target.ask(wire.PUT, key=b"k", value=bytes(100_000))
        state = target.state()
    with asked(tmp_path) as again:
        assert again.state() == state
        assert again.ask(services.AUTH_STATUS).enabled
        assert again.ask(wire.AUTHENTICATE, name="ann", password="ann's").token
        auth = again.member.auth
        auth.check("ann", 1, b"aa")
        with pytest.raises(ErrPermissionDenied):
            auth.check("ann", 0, b"b")


def test_checkpoints_keep_the_log_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = (*journals.Journal.__init__.__defaults__[:-1], (1 << 30, 4096))  # type: ignore[index]
    monkeypatch.setattr(journals.Journal.__init__, "__defaults__", defaults)
    sizes = []
    with asked(tmp_path) as target:
        for number in range(400):
            target.ask(wire.PUT, key=b"k", value=b"%1000d" % number)
            if number % 10 == 9:
                target.ask(wire.COMPACT, revision=number + 2)
            sizes.append((tmp_path / "log.fs").stat().st_size)
        state = target.state()
    assert max(sizes) < 20_000
    with asked(tmp_path) as target:
        assert target.state() == state


def test_a_checkpoint_that_was_not_finished(tmp_path: Path) -> None:
    state = written(tmp_path)[-1][1]
    for name in ("next.fs", "next.fs.tmp", "next.fs.index"):
        (tmp_path / name).write_bytes(b"FS30 and then nothing")
    with asked(tmp_path) as target:
        assert target.state() == state
        assert not list(tmp_path.glob("next.fs*"))


class Gate:
    """Holds back what a log is to append; counts."""

    def __init__(self, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = Event(), Event()
        self.appended = 0
        self._append = log.append
        monkeypatch.setattr(log, "append", self.append)

    def append(self, data: bytes) -> None:
        self.reached.set()
        assert self.open.wait(TIMEOUT_S)
        self._append(data)
        self.appended += 1


def log_of(target: Asked) -> Log:
    journal = target.simulation.writes
    assert isinstance(journal, journals.Journal)
    return journal._log


def test_nothing_is_seen_before_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asked(tmp_path) as target:
        gate = Gate(log_of(target), monkeypatch)
        told: list[int] = []
        target.member.subscribe(lambda: told.append(target.member.model.revision))

        async def run() -> None:
            request = wire.PutRequest(key=b"k")
            answers = [
                asyncio.ensure_future(answer_of(lambda: target.handlers[wire.PUT](request)))  # type: ignore[call-arg]
                for _ in range(50)
            ]
            while not gate.reached.is_set():
                await asyncio.sleep(0)
            assert target.handlers[wire.RANGE](wire.RangeRequest(key=b"k")).count == 0  # type: ignore[call-arg]
            assert (target.member.model.revision, told) == (1, [])
            assert not any(answer.done() for answer in answers)
            gate.open.set()
            revisions = [answer.header.revision for answer in await asyncio.gather(*answers)]
            assert revisions == told == list(range(2, 52))

        target.loop.run_until_complete(run())
        assert gate.appended <= 2  # the first one, then everything that came meanwhile


def test_who_gives_up_has_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asked(tmp_path) as target:
        gate = Gate(log_of(target), monkeypatch)

        async def run() -> None:
            answer = target.simulation.writes.submit(wire.PUT, wire.PutRequest(key=b"k"))
            await asyncio.sleep(0)
            answer.cancel()
            gate.open.set()

        target.loop.run_until_complete(run())
        assert put(target, 1) == 3


def test_too_many_writes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "QUEUE_MAX", 10)
    with asked(tmp_path) as target:

        async def run() -> list[Any]:
            submit, request = target.simulation.writes.submit, wire.PutRequest(key=b"k")
            answers = [submit(wire.PUT, request) for _ in range(12)]
            return list(await asyncio.gather(*answers, return_exceptions=True))

        answers = target.loop.run_until_complete(run())
        assert [str(answer) for answer in answers[10:]] == ["etcdserver: too many requests"] * 2
        assert [answer.header.revision for answer in answers[:10]] == list(range(2, 12))


def test_an_id_is_chosen_once(tmp_path: Path) -> None:
    with asked(tmp_path) as target:
        lease = target.ask(services.LEASE_GRANT, TTL=60).ID
        assert lease
        target.ask(wire.PUT, key=b"k", lease=lease)
    with asked(tmp_path) as target:
        assert [(one.lease_id, one.keys) for one in target.lessor.leases()] == [(lease, {b"k"})]


def test_a_lease_lasts_its_whole_time_again(tmp_path: Path) -> None:
    with asked(tmp_path) as target:
        target.ask(services.LEASE_GRANT, ID=7, TTL=100)
        target.now_s = 90.0
        assert target.ask(services.LEASE_TIME_TO_LIVE, ID=7).TTL == 10
    with asked(tmp_path, now_s=95.0) as target:
        assert target.ask(services.LEASE_TIME_TO_LIVE, ID=7).TTL == 100


def test_the_end_of_a_lease_is_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcdsim.server.leasing.EXPIRY_INTERVAL_S", 0.001)
    with asked(tmp_path) as target:
        target.ask(services.LEASE_GRANT, ID=7, TTL=10)
        target.ask(wire.PUT, key=b"k", lease=7)
        target.now_s = 20.0

        async def run() -> None:
            over = asyncio.Event()
            target.member.subscribe(over.set)
            expiry = asyncio.ensure_future(expire_leases(target.lessor, target.simulation.writes))
            await asyncio.wait_for(over.wait(), TIMEOUT_S)
            expiry.cancel()

        target.loop.run_until_complete(run())
        state = target.state()
    assert state["leases"] == []
    with asked(tmp_path) as target:
        assert target.state() == state
        assert target.ask(wire.RANGE, key=b"k").count == 0


def test_a_lock_outlives_the_process(tmp_path: Path) -> None:
    with asked(tmp_path) as target:
        key = target.ask(services.LOCK, name=b"door").key
        state = target.state()
    with asked(tmp_path) as target:
        assert target.state() == state
        assert target.ask(wire.RANGE, key=key).count == 1
        target.ask(services.UNLOCK, key=key)
        assert target.ask(wire.RANGE, key=key).count == 0
        target.ask(services.LOCK, name=b"door")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device"), "RESOURCE_EXHAUSTED"),
        (OSError(5, "Input/output error"), "UNAVAILABLE"),
        (ValueError("anything"), "UNAVAILABLE"),
    ],
)
def test_a_disk_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    """Whether before it wrote or behind: what was refused isn't there, the next write may be."""
    with asked(tmp_path) as target:
        for stage in ("store", "tpc_vote", "tpc_finish"):
            before = target.state()
            with monkeypatch.context() as patch:
                fail = Mock(side_effect=error)
                patch.setattr(FileStorage, stage, fail)
                assert target.ask(wire.PUT, key=b"lost")[0] == code
                assert fail.called
            assert target.state() == before
            put(target, 1)
        state = target.state()
    with asked(tmp_path) as target:
        assert target.state() == state


def test_the_sum_of_a_record_is_checked(tmp_path: Path) -> None:
    """A change that keeps FileStorage's own structure."""
    state = written(tmp_path)[-1][1]
    path = tmp_path / "log.fs"
    data = path.read_bytes()
    assert data.count(b"vvv") >= 1
    path.write_bytes(data.replace(b"vvv", b"vwv", 1))
    with pytest.raises(DamagedLogError, match=r"log\.fs: record \d+ is damaged"):
        Asked(tmp_path)
    path.write_bytes(data)
    with asked(tmp_path) as target:
        assert target.state() == state


@pytest.mark.parametrize("method", [services.LOCK, services.CAMPAIGN])
def test_who_gives_up_before_the_log_is_written_leaves_no_key(
    tmp_path: Path, method: wire.Method
) -> None:
    with asked(tmp_path) as target:
        target.ask(services.LEASE_GRANT, ID=7, TTL=100)

        async def give_up() -> None:
            handler: Any = target.handlers[method]
            asking = asyncio.ensure_future(handler(method.request(name=b"n", lease=7)))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

        target.loop.run_until_complete(give_up())
        target.ask(wire.PUT, key=b"behind it")
        assert [kv.key for kv in target.member.model.range(b"\0", b"\0").kvs] == [b"behind it"]
        assert target.member.model.revision == 4  # the key was there, and is deleted
