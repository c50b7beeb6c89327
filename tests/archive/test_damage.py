"""A file that ends too early, or has a wrong byte; all of them: python -m tests.archive_damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from btreecache.archive import Archive
from tests import archive_damage
from tests.archive_damage import Said, Small, archived, problems


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return archive_damage.made(tmp_path)


def test_a_torn_tail_is_dropped_and_said_to_be(small: Small) -> None:
    last, size = small.ends[-2][0], len(small.whole)
    sizes = [*range(last, last + 30, 5), *range(last + 30, size, 211), size - 8, size - 1, size]
    counts = archive_damage.torn(small, sizes)
    assert counts["torn"] == len(sizes) - 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ZODB's open files
def test_a_wrong_byte_is_found_or_does_no_harm(small: Small) -> None:
    heads = [end for end, _ in small.ends[:-1]]
    frames = [head + byte for head in heads for byte in (6, 7, 9, 15, 16)]
    places = [*frames, *range(20, len(small.whole), 397)]
    counts = archive_damage.flipped(small, places, [0x41])
    assert counts.total() == len(places)
    assert counts["found"] + counts["refused"] > 10


def test_what_is_behind_a_damaged_frame_is_kept(small: Small) -> None:
    """Opened to be written, the history goes on from what is before it."""
    (end, durable), *_, _ = small.ends
    damaged = bytearray(small.whole)
    damaged[end + 9] ^= 0x10  # of the length
    small.path.write_bytes(damaged)
    with Archive.open(str(small.path), read_only=True) as archive:
        (said,) = problems(archive)
        assert f"damaged at byte {end}: the {len(damaged) - end} bytes from there on" in said
    with Said() as heard, Archive.open(str(small.path)) as archive:
        assert max(archived(archive)) == durable
        assert archive.damage() is None
    (line,) = heard.lines
    kept = Path(f"{small.path}.tr0")
    assert f"damaged at byte={end}" in line
    assert str(kept) in line
    assert kept.read_bytes() == damaged[end:]
    assert kept.stat().st_mode & 0o777 == 0o600
