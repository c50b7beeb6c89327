"""The contenders of the archive's benchmark do the work that they say, and read the same."""

from __future__ import annotations

from pathlib import Path

from tests.bench.archive import table
from tests.bench.archive_workers import CacheWriter, TreeWriter, read_archive, read_tree, warm_start

OBJECTS, UPDATES, GROUP = 600, 40, 20


def test_archive_and_trees_hold_the_same_objects(tmp_path: Path) -> None:
    cache = CacheWriter(OBJECTS, tmp_path / "archive", GROUP)
    done = cache.update(UPDATES)
    cache.close()
    assert done.updates == UPDATES
    assert done.changed_bytes > UPDATES * 2_000
    assert done.bytes > done.changed_bytes
    for kind, group in (("values", GROUP), ("records", 1)):
        tree = TreeWriter(OBJECTS, tmp_path / kind, group, kind)
        assert tree.update(UPDATES).bytes > 0
        commits = tree.commits()
        tree.close()
        assert len(commits) == 1 + UPDATES // group
        start = b"/registry/pods/team-000/app-0000050"
        crcs = [
            (
                read_tree(tmp_path / kind, tid, start).crc,
                read_archive(tmp_path / "archive", revision, start).crc,
            )
            for revision, tid in (commits[0], commits[-1], commits[len(commits) // 2])
        ]
        assert all(theirs == mine for theirs, mine in crcs)
        assert len(set(crcs)) > 1
    seconds, cpu_s = warm_start(tmp_path / "archive", GROUP, OBJECTS)
    assert min(seconds, cpu_s) > 0


def test_the_table_keeps_together_what_was_measured() -> None:
    rows = [("a", "x", "1"), ("a", "y", "2"), ("b", "x", "3")]
    assert [*table(rows)][2:] == ["| x | a | 1 |", "| x | b | 3 |", "| y | a | 2 |"]
