"""Digest: one number for what a prefix held at a revision, so that two states compare at once.

The digest of a state is the sum modulo 2**256, over its live keys, of the big-endian integer of

    blake2b-256( len(key) as 8 bytes big-endian + key + mod_revision as 8 bytes big-endian
                 [+ value, when values count] )

so it doesn't depend on any order, and a write changes it by one subtraction and one addition. The
code that checks a cache against these numbers has an implementation of its own, on purpose.
"""

from __future__ import annotations

from hashlib import blake2b

from etcdsim.errors import ErrCompacted, ErrFutureRev
from etcdsim.model import KeyValue, Model, prefix_range

MODULUS = 1 << 256


def element_digest(kv: KeyValue, with_values: bool) -> int:
    """The summand of one live key. O(bytes hashed)."""
    key = kv.key
    head = len(key).to_bytes(8, "big") + key + kv.mod_revision.to_bytes(8, "big")
    material = head + kv.value if with_values else head
    return int.from_bytes(blake2b(material, digest_size=32).digest(), "big")


class RunningDigest:
    """Digest and count of a prefix at every revision, kept as running sums over the model's log.

    It begins at the lowest revision that can be read when it is made, and remembers every number
    since, also below a later compaction. A revision costs O(its changes), once.
    """

    def __init__(self, model: Model, prefix: bytes, with_values: bool) -> None:
        self._model, self.prefix, self.with_values = model, prefix, with_values
        self._first = max(1, model.compact_revision)
        self._elements: dict[bytes, int] = {}  # of the live keys, at the last revision followed
        self._total = 0
        key, range_end = prefix_range(prefix)
        for kv in model.scan(key, range_end, self._first):
            self._add(kv)
        self._total %= MODULUS
        self._totals = [self._total]  # by revision, from the first one on
        self._counts = [len(self._elements)]
        self.follow()

    def _add(self, kv: KeyValue) -> None:
        element = element_digest(kv, self.with_values)
        self._total += element - self._elements.get(kv.key, 0)
        self._elements[kv.key] = element

    def follow(self) -> None:
        """Catch up with the model. Raises ErrCompacted if it was compacted beyond here."""
        prefix = self.prefix
        for revision in range(self._first + len(self._totals), self._model.revision + 1):
            for kv in self._model.records_at(revision):
                if not kv.key.startswith(prefix):
                    continue
                if kv.version:
                    self._add(kv)
                else:
                    self._total -= self._elements.pop(kv.key)
            self._total %= MODULUS
            self._totals.append(self._total)
            self._counts.append(len(self._elements))

    def at(self, revision: int) -> tuple[int, int]:
        """(count, digest) at a revision. O(1) once followed. Raises ErrCompacted, ErrFutureRev."""
        self.follow()
        if revision < self._first:
            raise ErrCompacted
        if revision > self._model.revision:
            raise ErrFutureRev
        place = revision - self._first
        return self._counts[place], self._totals[place]

    def recompute(self, revision: int) -> tuple[int, int]:
        """(count, digest) at a revision that can be read, from its keys. O(keys in the prefix)."""
        key, range_end = prefix_range(self.prefix)
        count = total = 0
        for kv in self._model.scan(key, range_end, revision):
            count += 1
            total += element_digest(kv, self.with_values)
        return count, total % MODULUS
