"""One contract for archives wherever they are kept: a file, a ZEO server, PostgreSQL."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psycopg2
import pytest
from relstorage.adapters.packundo import HistoryFreePackUndo
from transaction import TransactionManager
from ZODB.POSException import ConflictError

from btreecache import Store
from btreecache.archive import Archive
from btreecache.archive import lines as archive_lines
from btreecache.archive.exporting import exported
from btreecache.archive.reading import Reading
from btreecache.archive.records import NAME, Group
from btreecache.archive.retention import Retention
from btreecache.archive.storage import open_database
from btreecache.archive.verify import Verification
from btreecache.digest import recompute
from btreecache.errors import ArchiveError, Compacted
from tests.archive_servers import PostgreSQL, Server, Zeo, wait_for
from tests.archive_soak import is_good, soak

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[2]
KINDS = ("file", "zeo", "postgresql")

#: What an impatient client waits for an answer, on a machine that is busy with other tests.
ANSWER_S = 3.0

Digests = dict[int, int]


@dataclass
class Place:
    """An archive that nobody has written to yet."""

    uri: str
    server: Server | None


def postgresql_binaries() -> Path:
    """Those of PostgreSQL, or the end of the test that wants them."""
    directory = os.environ.get("BTREECACHE_POSTGRESQL_DIR") or ROOT / ".cache" / "postgresql"
    binaries = Path(directory).absolute() / "bin"
    if not (binaries / "initdb").exists():
        message = f"no PostgreSQL in {directory}: run .ci/install-postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return binaries


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgreSQL]:
    with PostgreSQL(postgresql_binaries()) as server:
        yield server


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "file":
        yield Place(str(tmp_path / "archive"), None)
    elif request.param == "zeo":
        with Zeo() as server:
            yield Place(server.uri, server)
    else:
        cluster: PostgreSQL = request.getfixturevalue("cluster")
        yield Place(cluster.create(), cluster)
        cluster.thaw()
        if not cluster.is_up():
            cluster.restart()


everywhere = pytest.mark.parametrize("place", KINDS, indirect=True)
on_servers = pytest.mark.parametrize("place", KINDS[1:], indirect=True)


def put(store: Store, count: int, seed: int = 0) -> Digests:
    """Random writes: the digest of the state at every revision."""
    rng = Random(seed)
    states = {store.revision: recompute(store.snapshot(), "values")}
    for _ in range(count):
        key = b"/registry/pods/%03d" % rng.randrange(100)
        if store.snapshot().get(key) is not None and rng.random() < 0.3:
            store.delete(key)
        else:
            store.put(key, rng.randbytes(200))
        states[store.revision] = recompute(store.snapshot(), "values")
    return states


def archived(archive: Archive) -> Digests:
    """Of every revision that can be read, each group's being the one that it was written with."""
    with archive.reading() as reading:
        found = {}
        for revision in range(reading.oldest, reading.newest + 1):
            try:
                found[revision] = recompute(reading.snapshot(revision), "values")
            except Compacted:
                continue
        for group in reading.groups():
            assert found[group.revision].to_bytes(32, "big") == group.digest
    return found


def written(archive: Archive, store: Store) -> None:
    """Until all of it is."""

    def done() -> bool:
        try:
            return archive.flush(10) and store.durable_revision == store.revision
        except ArchiveError:
            return False

    wait_for(done, 60)


@everywhere
def test_every_revision_comes_back(place: Place) -> None:
    states: Digests = {}
    for seed in range(2):
        with Archive.open(place.uri, group_revisions=20) as archive:
            store = Store(archive=archive.history())
            if states:
                assert states[store.revision] == recompute(store.snapshot(), "values")
            states |= put(store, 100, seed)
            written(archive, store)
    with Archive.open(place.uri, read_only=True) as archive:
        assert archived(archive) == states


@everywhere
def test_a_reader_beside_the_writer(place: Place) -> None:
    with Archive.open(place.uri, group_revisions=10) as archive:
        store = Store(archive=archive.history())
        states = put(store, 30)
        written(archive, store)
        with Archive.open(place.uri, read_only=True) as other, other.reading() as reading:
            more = put(store, 30, 1)
            written(archive, store)
            assert archived(other).items() >= states.items()
            if place.server is not None:  # A file is read as it was when it was opened.
                wait_for(lambda: reading.refresh() is None and reading.newest == store.revision)
                assert archived(other) == states | more
            with pytest.raises(ArchiveError, match="to be read only"):
                other.pack()
    with Archive.open(place.uri, read_only=True) as archive:
        assert archived(archive) == states | more


@everywhere
def test_a_second_writer_is_told_so(place: Place) -> None:
    with Archive.open(place.uri) as archive:
        store = Store(archive=archive.history())
        states = put(store, 20)
        written(archive, store)
        if place.server is None:
            with pytest.raises(ArchiveError, match=r"another process has the archive \S+ open"):
                Archive.open(place.uri)
            return
        with Archive.open(place.uri) as other:
            newer = Store(archive=other.history())
            states |= put(newer, 20, 1)
            written(other, newer)
            put(store, 20, 2)
            with pytest.raises(ArchiveError, match="another process writes the history of b''"):
                archive.flush(30)
            assert store.durable_revision < store.revision
            assert archived(other) == states


@everywhere
def test_gaps_are_said_to_be_gaps(place: Place) -> None:
    with Archive.open(place.uri, queue_revisions=5) as archive:
        history = archive.history()
        store = Store(archive=history)
        states = put(store, 20)  # The recorder's thread does not run: 15 don't fit.
        archive.start()
        wait_for(lambda: not len(history.pending))
        states |= put(store, 1, 1)
        written(archive, store)
        found = archived(archive)
        assert found.items() <= states.items()
        assert found.keys() >= {1, 2, 3, 4, 5, store.revision}
        assert len(found) < len(states)
        with (
            archive.reading() as reading,
            pytest.raises(Compacted, match="was not archived: overflow"),
        ):
            reading.snapshot(10)


class Clock:
    """The wall clock of an archive; retention is looked after every ten seconds of it."""

    def __init__(self) -> None:
        self.now_s = time.time()

    def __call__(self) -> float:
        return self.now_s


@everywhere
def test_pack_frees_what_retention_forgot(place: Place) -> None:
    clock = Clock()
    retention = Retention(revisions=30)
    with Archive.open(
        place.uri, retention=retention, group_revisions=10, group_age_s=0, wall=clock
    ) as archive:
        store = Store(archive=archive.history())
        states: Digests = {}
        for seed in range(4):
            states |= put(store, 100, seed)
            clock.now_s += 60
            written(archive, store)
        with archive.reading() as early:
            oldest = early.oldest
            put_back = early.snapshot(oldest)
            clock.now_s += 60
            states |= put(store, 50, 9)
            written(archive, store)
            before = archived(archive)
            assert len(before) < len(states) / 4
            assert before.items() <= states.items()
            size = records(archive)
            if place.server is None:
                archive.pack()
            else:
                with Archive.open(place.uri) as other:
                    other.pack()
            assert records(archive) < size / 2
            assert archived(archive) == before
            # A reader of what is no longer retained: the truth, or none.
            try:
                digest = recompute(put_back, "values")
            except Compacted:
                pass
            else:
                assert digest == states[oldest]
            early.refresh()
            with pytest.raises(Compacted):
                early.snapshot(oldest)
        states |= put(store, 50, 10)
        written(archive, store)
    with Archive.open(place.uri, read_only=True) as archive:
        assert archived(archive).items() <= states.items()


def records(archive: Archive) -> int:
    """How many the storage has, whoever needs them."""
    storage = archive._database.storage
    if hasattr(storage, "watchdog"):
        cursor = storage._adapter.connmanager.open()[1]
        cursor.execute("SELECT count(*) FROM object_state")
        return int(cursor.fetchone()[0])
    found, following = 0, None
    while True:
        _, _, _, following = storage.record_iternext(following)
        found += 1
        if following is None:
            return found


@on_servers
def test_import_trim_and_thinning(place: Place, tmp_path: Path) -> None:
    file = io.BytesIO()
    clock, states = Clock(), {}
    clock.now_s = 1000.0  # Thinning goes by what the clock says, not by ages.
    with Archive.open(str(tmp_path / "source"), group_revisions=1, wall=clock) as archive:
        store = Store(archive=archive.history())
        for number in range(20):
            clock.now_s += 10.0
            store.put(b"/k/%d" % (number % 3), b"%d" % number)
            states[store.revision] = recompute(store.snapshot(), "values")
            assert archive.flush()
        with archive.reading() as reading:
            for text in archive_lines.written(exported(reading, reading.oldest, reading.newest)):
                file.write(text)
    file.seek(0)
    with Archive.open(place.uri, wall=clock) as archive:
        assert archive.import_file(file) == (b"", 21)
        counts = []
        for retention in (
            Retention(thinning=((100.0, 30.0),)),
            Retention(age_s=50.0),
            Retention(revisions=2),
        ):
            assert archive.trim(retention) > 0
            archive.pack()
            with archive.reading() as reading, archive.reading() as other:
                assert not [*Verification(reading, other).problems()]
                readable = 0
                for revision, digest in states.items():
                    with suppress(Compacted):
                        assert recompute(reading.snapshot(revision), "values") == digest
                        readable += 1
                counts.append(readable)
        # One in 30 s of the first 100 s, at 20, 50, 80 and 90 s, and the last eleven; then fewer.
        assert counts == [15, 6, 2]


@on_servers
def test_the_server_goes_away_and_comes_back(place: Place) -> None:
    server = place.server
    assert server is not None
    with Archive.open(place.uri, group_revisions=10, answer_s=ANSWER_S) as archive:
        store = Store(archive=archive.history())
        states = put(store, 50)
        written(archive, store)
        with archive.reading() as reading:
            server.kill()
            states |= put(store, 50, 1)
            wait_for(lambda: archive.recorder.trouble is not None)
            assert "the archive can't be" in one_line(archive.recorder.trouble)
            durable = store.durable_revision
            assert read_anew(reading) in (None, states[reading.oldest + 15])
            server.start()
            states |= put(store, 50, 2)
            written(archive, store)
            assert archive.recorder.trouble is None
            assert store.durable_revision > durable
            wait_for(lambda: archived_or_none(archive) == states, 60)
    with Archive.open(place.uri, read_only=True) as archive:
        assert archived(archive) == states


def read_anew(reading: Reading) -> int | None:
    """The digest of what wasn't read before, if it can be read: ZEO's client has a cache."""
    try:
        reading.refresh()
        return recompute(reading.snapshot(reading.oldest + 15), "values")
    except ArchiveError as error:
        one_line(error)
        return None


def archived_or_none(archive: Archive) -> Digests | None:
    try:
        return archived(archive)
    except ArchiveError:
        return None


@on_servers
def test_killed_in_the_middle_again_and_again(place: Place) -> None:
    server = place.server
    assert server is not None
    rng = Random(0)
    with Archive.open(place.uri, group_revisions=5, group_age_s=0.01) as archive:
        store = Store(archive=archive.history())
        states: Digests = {}
        for seed in range(5):
            states |= put(store, 60, seed)
            time.sleep(rng.random() / 10)  # wherever it is by then
            server.restart()
        written(archive, store)
    with Archive.open(place.uri, read_only=True) as archive:
        assert archived(archive) == states


@on_servers
def test_a_server_that_hangs_is_not_awaited(place: Place) -> None:
    server = place.server
    assert server is not None
    archive = Archive.open(place.uri, group_revisions=10, answer_s=ANSWER_S).start()
    try:
        store = Store(archive=archive.history())
        states = put(store, 30)
        written(archive, store)
        server.freeze()
        states |= put(store, 30, 1)
        wait_for(lambda: archive.recorder.trouble is not None, 60)
        assert re.search("no answer|timeout|timed out", one_line(archive.recorder.trouble))
        server.thaw()
        written(archive, store)
        assert archived(archive) == states
        server.freeze()
        states |= put(store, 30, 2)
        closing = threading.Thread(target=archive.close)
        closing.start()
        closing.join(60)
        assert not closing.is_alive(), "closing hangs"
    finally:
        server.thaw()
        archive.close()
    with Archive.open(place.uri, read_only=True) as archive:
        assert archived(archive).items() <= states.items()


def one_line(error: Exception | None) -> str:
    """What is said of a trouble."""
    text = str(error)
    assert text
    assert "\n" not in text
    assert PostgreSQL.PASSWORD not in text
    assert PostgreSQL.PASSWORD.replace(" ", "%20") not in text
    return text


def test_what_cannot_be_opened_is_told_in_one_line(cluster: PostgreSQL) -> None:
    away = f"postgresql://archive:{PostgreSQL.PASSWORD}@127.0.0.1:1/archive".replace(" ", "%20")
    for uri, said in [
        (away, "refused"),
        (cluster.uri(password="wr0ng"), "password authentication failed"),
        (cluster.uri("nowhere"), "does not exist"),
        ("zeo://127.0.0.1:1", "no ZEO server with a storage 1 answers at 127.0.0.1:1"),
        (f"zeo://127.0.0.1:{cluster.port}", "no ZEO server"),
        (cluster.create(), ""),
    ]:
        with pytest.raises(ArchiveError) as caught:
            Archive.open(uri, read_only=True, answer_s=1)
        assert said in one_line(caught.value)
        assert "wr0ng" not in str(caught.value)


def test_postgresql_resolves_no_conflict(cluster: PostgreSQL) -> None:
    """To resolve one is to unpickle what somebody else wrote, whatever its class."""
    uri = cluster.create()
    with Archive.open(uri) as archive:
        Store(archive=archive.history()).put(b"k", b"")
        assert archive.flush()
    with ExitStack() as stack:
        commits = []
        for revision in (100, 200):  # As buckets of BTrees would merge them.
            manager = TransactionManager()
            database = open_database(uri, read_only=False)
            stack.callback(database.close)
            connection = database.open(manager)
            stack.callback(connection.close)
            stack.callback(manager.abort)
            connection.root()[NAME].state[1][b""].read().groups[revision] = Group(())
            commits.append(manager.commit)
        commits[0]()
        with pytest.raises(ConflictError):
            commits[1]()


def test_what_changes_while_postgresql_is_packed(
    cluster: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    # RelStorage lists the objects, and reads their references later: of three groups written in
    # between, with all before them forgotten, the list has none.
    clock, seed = Clock(), iter(range(100, 200))
    with Archive.open(
        cluster.create(), retention=Retention(revisions=1), group_age_s=0, wall=clock
    ) as archive:
        store = Store(archive=archive.history())

        def change() -> None:
            for _ in range(3):
                put(store, 5, next(seed))
                clock.now_s += 60
                written(archive, store)

        find = HistoryFreePackUndo.fill_object_refs

        def find_late(*arguments: object) -> object:
            change()
            return find(*arguments)

        monkeypatch.setattr(HistoryFreePackUndo, "fill_object_refs", find_late)
        put(store, 200)
        change()
        for _ in range(3):
            archive.pack()
            change()
            with archive.snapshot() as snapshot:
                assert recompute(snapshot, "values") == recompute(store.snapshot(), "values")


@pytest.mark.parametrize("kind", KINDS[1:])
def test_writing_reading_and_packing_at_once(kind: str, request: pytest.FixtureRequest) -> None:
    """15 seconds of `python -m tests.archive_soak`."""
    if kind == "zeo":
        with Zeo() as server:
            reports = soak(server.uri, server.directory, 15)
    else:
        cluster: PostgreSQL = request.getfixturevalue("cluster")
        reports = soak(cluster.create(), cluster.directory, 15)
    assert is_good(reports), reports


def test_reading_needs_no_right_to_write(cluster: PostgreSQL) -> None:
    uri = cluster.create()
    with Archive.open(uri) as archive:
        store = Store(archive=archive.history())
        states = put(store, 30)
        written(archive, store)
    connection = psycopg2.connect(uri)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE ROLE looker LOGIN PASSWORD 'looks'")
        cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker")
    connection.close()
    database = uri.rpartition("/")[2]
    reader = f"postgresql://looker:looks@127.0.0.1:{cluster.port}/{database}"
    with Archive.open(reader, read_only=True) as archive:
        assert archived(archive) == states
    with pytest.raises(ArchiveError) as caught:
        Archive.open(reader).close()
    assert "looks" not in one_line(caught.value)
