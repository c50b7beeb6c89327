"""A server with an archive: what it reads of the past, and how it goes on after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from btreecache.archive import Archive
from btreecache.archive.archive import ArchivedHistory
from btreecache.window import Bounds
from tests.server.world import SharedModel, World, pod

PODS = "/api/v1/pods"
EXACT = "resourceVersionMatch=Exact"


@contextmanager
def standing(path: Path, model: SharedModel) -> Iterator[World]:
    """A server whose window keeps two revisions, filled."""
    with (
        Archive.open(str(path), group_revisions=3, group_age_s=0.05) as archive,
        World(model=model, archive=archive.history, bounds=Bounds(revisions=2)) as world,
    ):
        world.wait_for(lambda: world.get("/readyz").status_code == 200)
        yield world
        world.caches.close()


def caught_up(world: World, revision: int) -> None:
    at = f"{PODS}?limit=1&resourceVersion={revision}"
    world.wait_for(lambda: world.get(at).status_code == 200)
    archive = world.cache.archive
    assert archive is not None
    world.wait_for(lambda: archive.durable_revision >= revision)


def test_every_archived_revision_is_served_whatever_was_compacted(tmp_path: Path) -> None:
    model = SharedModel()
    first = model.put(b"/registry/pods/a/before", pod("a", "before"))
    with standing(tmp_path / "archive", model) as world:
        revisions = [world.put_pod("a", f"p{number}") for number in range(10)]
        caught_up(world, revisions[-1])
        model.compact(revisions[-1])
        for number, revision in enumerate(revisions):
            names = world.names(f"{PODS}?resourceVersion={revision}&{EXACT}")
            assert names == ["before", *(f"p{at}" for at in range(number + 1))]
            page = world.get(f"{PODS}?resourceVersion={revision}&{EXACT}&limit=1").json()
            assert page["metadata"]["resourceVersion"] == str(revision)
            assert page["metadata"]["remainingItemCount"] == number + 1
        selected = f"{PODS}?fieldSelector=metadata.name%3Dp3&{EXACT}&resourceVersion="
        assert world.names(f"{selected}{revisions[5]}") == ["p3"]
        assert world.names(f"{selected}{revisions[2]}") == []
        table = "application/json;as=Table;v=v1;g=meta.k8s.io"
        answer = world.get(f"{PODS}?resourceVersion={revisions[0]}&{EXACT}", Accept=table)
        assert [row["object"]["metadata"]["name"] for row in answer.json()["rows"]] == [
            "before",
            "p0",
        ]
        answer = world.get(f"{PODS}?resourceVersion={first - 1}&{EXACT}")
        assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")


def test_pages_and_watches_go_on_after_a_restart(tmp_path: Path) -> None:
    model = SharedModel()
    with standing(tmp_path / "archive", model) as world:
        for number in range(5):
            last = world.put_pod("a", f"p{number}")
        caught_up(world, last)
        page = world.get(f"{PODS}?limit=2").json()
        assert [item["metadata"]["name"] for item in page["items"]] == ["p0", "p1"]
    # Nobody follows meanwhile, and the source forgets all but the newest state.
    model.put(b"/registry/other", b"{}")
    model.compact(last)
    with standing(tmp_path / "archive", model) as world:
        later = world.put_pod("a", "p1a")
        caught_up(world, later)
        token = page["metadata"]["continue"]
        page = world.get(f"{PODS}?limit=9&continue={token}").json()
        assert [item["metadata"]["name"] for item in page["items"]] == ["p2", "p3", "p4"]
        assert page["metadata"]["resourceVersion"] == str(last)
        frames = world.frames(f"{PODS}?watch=1&resourceVersion={last}&timeoutSeconds=1")
        assert [frame["object"]["metadata"]["name"] for frame in frames] == ["p1a"]


def test_a_gap_is_said_to_be_one(tmp_path: Path) -> None:
    model = SharedModel()
    with standing(tmp_path / "archive", model) as world:
        last = world.put_pod("a", "p0")
        caught_up(world, last)
    missed = model.put(b"/registry/pods/a/p1", pod("a", "p1"))
    for _ in range(3):
        listed = model.put(b"/registry/pods/a/p2", pod("a", "p2"))
    model.compact(listed)
    with standing(tmp_path / "archive", model) as world:
        caught_up(world, listed)
        assert world.names(f"{PODS}?resourceVersion={last}&{EXACT}") == ["p0"]
        answer = world.get(f"{PODS}?resourceVersion={missed}&{EXACT}")
        assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")
        assert world.names(f"{PODS}?resourceVersion={listed}&{EXACT}") == ["p0", "p1", "p2"]


def test_a_source_that_went_back_does_not_spoil_the_archive(tmp_path: Path) -> None:
    """Another etcd behind the same archive: served, as ever, and not mixed into the history."""
    model = SharedModel()
    with standing(tmp_path / "archive", model) as world:
        for number in range(5):
            last = world.put_pod("a", f"p{number}")
        caught_up(world, last)
    other = SharedModel()
    other.put(b"/registry/pods/a/q0", pod("a", "q0"))
    with Archive.open(str(tmp_path / "archive")) as archive:
        history = archive.history(b"/registry/pods/")
        with World(model=other, archive=archive.history) as world:
            world.wait_for(lambda: archive.recorder.trouble)
            assert "another history" in str(archive.recorder.trouble)
            world.wait_for(lambda: world.get(f"{PODS}?resourceVersion=0").status_code == 200)
            assert world.names(f"{PODS}?resourceVersion=0") == ["q0"]
            world.caches.close()
        assert history.durable_revision < 2  # Of what is served now nothing is safe.
    with (
        Archive.open(str(tmp_path / "archive"), read_only=True) as archive,
        archive.snapshot(last) as snapshot,
    ):
        assert len(snapshot) == 5


def test_an_archive_that_cannot_be_read(tmp_path: Path) -> None:
    """Its file is cut off under the server: 500 for the past, and the newest state as ever."""
    path, model = tmp_path / "archive", SharedModel()
    with standing(path, model) as world:
        revisions = [world.put_pod("a", f"p{number}") for number in range(9)]
        caught_up(world, revisions[-1])
        archive = world.cache.archive
        assert isinstance(archive, ArchivedHistory)
        archive.close()
        with path.open("r+b") as file:
            file.truncate(100)
        answer = world.get(f"{PODS}?resourceVersion={revisions[2]}&{EXACT}")
        assert (answer.status_code, answer.json()["reason"]) == (500, "InternalError")
        assert "the archive can't be read" in answer.json()["message"]
        assert len(world.names(f"{PODS}?resourceVersion=0")) == 9


def test_what_is_archived_is_served_while_the_source_is_away(tmp_path: Path) -> None:
    model = SharedModel()
    with standing(tmp_path / "archive", model) as world:
        first = world.put_pod("a", "p0")
        last = world.put_pod("a", "p1")
        caught_up(world, last)
    model.is_down = True
    with standing(tmp_path / "archive", model) as world:
        assert world.names(f"{PODS}?resourceVersion=0") == ["p0", "p1"]
        assert world.names(f"{PODS}?resourceVersion={last}") == ["p0", "p1"]
        assert world.names(f"{PODS}?{EXACT}&resourceVersion={first}") == ["p0"]
        assert world.get(PODS).status_code in (503, 504), "nobody knows what is the newest"
        model.is_down = False
        caught_up(world, world.put_pod("a", "p2"))
        assert world.names(PODS) == ["p0", "p1", "p2"]
