"""HashKV: the sum itself, and numbers that real servers gave."""

from __future__ import annotations

from random import Random

import pytest

from etcdsim.checksum import crc32c
from etcdsim.errors import ErrCompacted, ErrFutureRev
from etcdsim.hash_kv import KvHashes, stored
from etcdsim.model import Model
from etcdsim.txn import DeleteRange, Put

NEW, OLD = (3, 5, 30), (3, 4, 23)


def slow_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the algorithm
    assert crc32c(b"") == 0
    data = bytes(number * 7 % 256 for number in range(64))
    for size in range(64):
        assert crc32c(data[:size]) == slow_crc32c(data[:size])


def test_crc32c_of_long_data() -> None:
    """Around each size at which it is halved once more, at once and in two parts."""
    data = Random(1).randbytes(15_000)
    for doubled in range(5):
        for bits in (6777 << doubled, (6777 << doubled) - (484 << doubled)):
            for size in range(bits // 8, bits // 8 + 2):
                slow = slow_crc32c(data[:size])
                assert crc32c(data[:size]) == slow
                cut = size // 3
                assert crc32c(data[cut:size], crc32c(data[:cut])) == slow


def test_a_hash_is_of_when_it_was_asked_for() -> None:
    model = Model()
    hashes = KvHashes(model, NEW)
    for number in range(300):
        model.put(b"%d" % (number % 7), b"%d" % number)
    model.txn([], [DeleteRange(b"3"), Put(b"x", bytes(300_000)), DeleteRange(b"4")])
    asked, twin = hashes.at(0), hashes.at(0).finish()
    asked.step()
    assert not asked.is_done
    hashes.before_compaction(model.revision)
    model.compact(model.revision)
    model.put(b"x", b"")
    assert hashes.unfinished is hashes.at(model.revision - 1)
    assert asked.finish() == hashes.at(model.revision - 1).finish() == twin
    assert asked.is_done
    assert hashes.unfinished is None


def test_what_real_servers_answered() -> None:
    """3.4.23 and 3.5.30 alike, at revisions 2 to 5 and the newest one."""
    model = Model()
    model.txn([], [DeleteRange(b"w", b"\0"), Put(b"x", b"1")])
    model.txn([], [Put(b"x", b"1"), DeleteRange(b"w", b"\0")])
    model.txn([], [Put(b"x", b"1"), DeleteRange(b"x", b"\0")])
    model.txn([], [DeleteRange(b"x", b"\0"), Put(b"x", b"1")])
    hashes = KvHashes(model, NEW)
    numbers = [hashes.at(revision).finish().number for revision in (2, 3, 4, 5)]
    assert numbers == [2583702368, 4165010387, 784977672, 306854701]
    assert hashes.at(0).finish() == (306854701, 5, -1)


@pytest.mark.parametrize("version", [NEW, OLD])
def test_errors(version: tuple[int, int, int]) -> None:
    model = Model()
    hashes = KvHashes(model, version)
    for _ in range(5):
        model.put(b"a", b"")
    hashes.before_compaction(4)
    model.compact(4)
    with pytest.raises(ErrFutureRev):
        hashes.at(7)
    with pytest.raises(ErrCompacted):
        hashes.at(3)
    assert hashes.at(0).finish()[1:] == (6, 4)
    if version == OLD:
        with pytest.raises(ErrCompacted):
            hashes.at(4)
    else:
        assert hashes.at(4).finish()[1:] == (4, -1)  # remembered from when it was compacted


def test_a_compaction_at_0_is_what_0_is_answered_with() -> None:
    model = Model()
    hashes = KvHashes(model, NEW)
    model.put(b"a", b"")
    hashes.before_compaction(0)
    model.compact(0)
    assert hashes.at(0).finish() == (crc32c(b"key"), 0, -1)
    assert KvHashes(model, OLD).at(0).finish()[1:] == (2, 0)


def test_ten_are_remembered() -> None:
    model = Model()
    hashes = KvHashes(model, NEW)
    for revision in range(2, 14):
        model.put(b"a", b"")
        hashes.before_compaction(revision)
        model.compact(revision)
    for revision in (2, 3):
        with pytest.raises(ErrCompacted):
            hashes.at(revision)
    assert [hashes.at(revision).finish()[1:] for revision in (4, 13)] == [(4, 3), (13, 12)]


def test_a_compaction_that_leaves_tombstones_only() -> None:
    """They count as something that is kept: what the compaction before left doesn't."""
    model = Model()
    hashes = KvHashes(model, NEW)
    model.put(b"a", b"")
    hashes.before_compaction(2)
    model.compact(2)
    model.delete_range(b"a")
    hashes.before_compaction(3)
    model.compact(3)
    only_the_tombstone = b"key" + stored(3, 0, model.records_at(3)[0])
    assert hashes.at(3).finish() == (crc32c(only_the_tombstone), 3, 2)
