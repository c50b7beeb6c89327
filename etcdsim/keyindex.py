"""KeyIndex: which revisions wrote one key, split into generations.

etcd's `server/storage/mvcc/key_index.go`. A generation starts with the put that creates the key and
ends with a tombstone. A deleted key has an empty last generation, until it is put again. The index
holds revisions only; what was written at them is in the model's log.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

Revision = tuple[int, int]  # (main, sub): the transaction, and the place of the change inside it


class Generation:
    """One life of a key. `version` counts its puts, those already compacted included."""

    __slots__ = ("created", "revisions", "version")

    def __init__(self) -> None:
        self.created = 0
        self.version = 0
        self.revisions: list[Revision] = []


def _first_main(generation: Generation) -> int:
    return generation.revisions[0][0]


class KeyIndex:
    """The generations of one key, oldest first; only the last one has no tombstone."""

    __slots__ = ("generations",)

    def __init__(self) -> None:
        self.generations = [Generation()]

    def newest(self) -> Revision | None:
        """The last put if the key is alive, else None. O(1)."""
        revisions = self.generations[-1].revisions
        return revisions[-1] if revisions else None

    def put(self, main: int, sub: int) -> tuple[int, int]:
        """Note a put -> its create_revision and version. O(1)."""
        generation = self.generations[-1]
        if not generation.revisions:
            generation.created = main
        generation.revisions.append((main, sub))
        generation.version += 1
        return generation.created, generation.version

    def tombstone(self, main: int, sub: int) -> None:
        """Note a delete of a key that is alive. O(1)."""
        assert self.generations[-1].revisions
        self.generations[-1].revisions.append((main, sub))
        self.generations.append(Generation())

    def restore(self, at: Revision, created: int, version: int) -> None:
        """Note a record as it was stored, `version` 0 for a tombstone; in order. O(1)."""
        generation = self.generations[-1]
        generation.revisions.append(at)
        if version:
            generation.created, generation.version = created, version
        else:
            self.generations.append(Generation())

    def at(self, revision: int) -> Revision | None:
        """The put that is visible at `revision`, None if there was no such key.

        O(1) at the newest revisions, else O(log n) in the generations and revisions of the key.
        """
        generations = self.generations
        generation = generations[-1]
        revisions = generation.revisions
        if not revisions or revisions[0][0] > revision:
            ended = len(generations) - 1
            found = bisect_right(generations, revision, 0, ended, key=_first_main) - 1
            if found < 0:
                return None
            revisions = generations[found].revisions
            if revisions[-1][0] <= revision:
                return None  # its tombstone is visible
        last = revisions[-1]
        if last[0] <= revision:
            return last
        return revisions[bisect_left(revisions, (revision + 1, 0)) - 1]

    def compact(self, revision: int, keeps_tombstone: bool = True) -> Revision | None:
        """Forget what no read at or above `revision` needs -> the one revision <= `revision` that
        stays, None if none does.

        The newest one stays, unless it is a tombstone; a tombstone exactly at `revision` stays too,
        so that a watch from there sees the delete (etcd 18089 and 19179, fixed in 3.5.16), unless
        `keeps_tombstone` is False.
        """
        generations = self.generations
        ended = revision if keeps_tombstone else revision + 1  # before this: wholly forgotten
        first = 0
        while first < len(generations) - 1 and (
            generations[first].revisions[-1][0] < ended
            # Deleted and put again at `revision` by one transaction (etcd loses such a key).
            or 0 < revision == generations[first + 1].created
        ):
            first += 1
        del generations[:first]
        revisions = generations[0].revisions
        newest = bisect_left(revisions, (revision + 1, 0)) - 1
        if newest < 0:
            return None
        del revisions[:newest]
        return revisions[0]

    @property
    def is_empty(self) -> bool:
        """Nothing is left: the key may leave the index."""
        return len(self.generations) == 1 and not self.generations[0].revisions
