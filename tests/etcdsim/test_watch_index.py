"""WatchIndex against asking everybody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etcdsim.model import ALL, prefix_end
from etcdsim.server.watch_index import WatchIndex
from etcdsim.txn import bounds

KEYS = st.binary(min_size=1, max_size=3).map(
    lambda key: bytes(b"\x00a\xfe\xff"[byte % 4] for byte in key)
)
RANGES = st.one_of(
    st.tuples(KEYS, st.just(b"")),
    KEYS.map(lambda key: (key, prefix_end(key))),
    st.tuples(KEYS, KEYS),
    st.tuples(KEYS, st.just(ALL)),
)


@given(
    ranges=st.lists(RANGES, max_size=12),
    gone=st.lists(st.integers(0, 11), max_size=12),
    keys=st.lists(KEYS, min_size=1, max_size=8),
)
def test_it_finds_whose_range_a_key_is_in(
    ranges: list[tuple[bytes, bytes]], gone: list[int], keys: list[bytes]
) -> None:
    index: WatchIndex[int] = WatchIndex()
    for number, (key, range_end) in enumerate(ranges):
        index.add(key, range_end, number)
    left = dict(enumerate(ranges))
    for number in gone:
        key, range_end = ranges[number] if number < len(ranges) else (b"a", b"")
        index.discard(key, range_end, number)  # also twice, and who never was there
        left.pop(number, None)
    for key in keys:
        expected = []
        for number, (start, range_end) in left.items():
            low, high = bounds(start, range_end)
            if low <= key and (high is None or key < high):
                expected.append(number)
        assert sorted(index.at(key)) == expected
    for number, (key, range_end) in left.items():
        index.discard(key, range_end, number)
    assert vars(index) == vars(WatchIndex())
