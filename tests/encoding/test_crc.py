"""The CRC monoid against zlib's checksum of the bytes put together."""

from __future__ import annotations

from random import Random
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from btreecache.encoding.crc import Checked, joined

DATA = st.binary(max_size=200)


def test_every_split_of_some_bytes() -> None:
    data = Random(1).randbytes(130)
    for length in range(len(data) + 1):
        whole = data[:length]
        assert Checked.of(whole).crc == crc32(whole)
        for i in range(length + 1):
            both = Checked.of(whole[:i]) + Checked.of(whole[i:])
            assert (both.crc, both.length) == (crc32(whole), length)


def test_every_single_bit() -> None:
    """A CRC is linear: what holds for each bit holds for all."""
    for bit in range(64 * 8):
        data = (1 << bit).to_bytes(64, "big")
        assert (Checked.of(data[:37]) + Checked.of(data[37:])).crc == crc32(data)


def test_lengths_that_no_test_could_hold() -> None:
    """Zeros doubled, checked as far as zlib gets in no time, then against each other."""
    part, length = Checked.of(b"\0"), 1
    for _ in range(45):
        part, length = part + part, 2 * length
        assert part.length == length
        if length <= 1 << 22:
            assert part.crc == crc32(bytes(length))
    a, b, c = part, Checked.of(b"abc"), part + part
    assert (a + b) + c == a + (b + c)
    assert (c.less(a)).crc == a.crc


@given(st.lists(DATA, max_size=6))
def test_any_pieces(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    for known in (
        joined([Checked.of(piece) for piece in pieces]),
        Checked.of(*pieces),
        sum([Checked.of(piece) for piece in pieces], Checked()),
    ):
        assert (known.crc, known.length) == (crc32(whole), len(whole))
        assert known == Checked.of(whole)


@given(DATA, DATA)
def test_what_is_taken_away_can_be_put_back(a: bytes, b: bytes) -> None:
    assert (Checked.of(a) + Checked.of(b)).less(Checked.of(b)) == Checked.of(a)
    assert Checked.of(a).less(Checked.of(b)) + Checked.of(b) == Checked.of(a)
