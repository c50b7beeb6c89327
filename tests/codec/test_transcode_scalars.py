"""Times, durations, numbers and embedded JSON, as Go's standard library writes and reads them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btreecache.codec.base import Unreadable
from btreecache.codec.scalars import (
    TIME_MAX,
    ZERO_TIME,
    double_text,
    duration_of,
    duration_text,
    micro_time_text,
    raw_json,
    signed,
    time_of,
    time_text,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS = st.integers(ZERO_TIME + 1, TIME_MAX)


@given(SECONDS)
def test_times_both_ways(seconds: int) -> None:
    text = json.loads(time_text(seconds))
    assert text == (EPOCH + timedelta(seconds=seconds)).isoformat()[:19] + "Z"
    assert time_of(text) == (seconds, 0)


@given(SECONDS, st.integers(0, 999_999))
def test_micro_times_both_ways(seconds: int, micros: int) -> None:
    text = json.loads(micro_time_text(seconds, micros * 1_000 + 999))
    assert len(text) == len("2026-11-23T18:50:54.123456Z")
    assert time_of(text) == (seconds, micros * 1_000)


@pytest.mark.parametrize("seconds", [ZERO_TIME - 1, TIME_MAX + 1, -(2**63), 2**63 - 1])
def test_times_out_of_range(seconds: int) -> None:
    with pytest.raises(Unreadable):
        time_text(seconds)
    with pytest.raises(Unreadable):
        micro_time_text(seconds, 5_000)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2026-11-23T18:50:54Z", (1795459854, 0)),
        ("2026-11-23T18:50:54+00:00", (1795459854, 0)),
        ("2026-11-23T20:20:54.5+01:30", (1795459854, 500_000_000)),
        ("2026-11-23T17:50:54.1234567891-01:00", (1795459854, 123_456_789)),
        ("1970-01-01T00:00:00Z", (0, 0)),
        ("0001-01-01T00:00:00Z", (ZERO_TIME, 0)),
        ("9999-12-31T23:59:59Z", (TIME_MAX, 0)),
        ("2024-02-29T00:00:00Z", (1709164800, 0)),
    ],
)
def test_times_read(text: str, want: tuple[int, int]) -> None:
    assert time_of(text) == want


@pytest.mark.parametrize(
    "text",
    ["", "2026-11-23", "2026-11-23T18:50:54", "2026-11-23 18:50:54Z", "2026-13-01T00:00:00Z",
     "2023-02-29T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "0000-01-01T00:00:00Z",
     "2026-01-01T00:00:00." + "0" * 99 + "Z", "2026-01-01T00:00:60Z",
     "2026-01-01T00:00:00Zx", "9999-12-31T23:59:59-00:01",
     "\uff12026-01-01T00:00:00Z"],
)  # fmt: skip
def test_times_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        time_of(text)


DURATIONS = {
    0: "0s", 1: "1ns", 1_100: "1.1µs", 2_200_000: "2.2ms", 3_300_000_000: "3.3s",
    245_000_000_000: "4m5s", 245_001_000_000: "4m5.001s", 18_367_001_000_000: "5h6m7.001s",
    480_000_000_001: "8m0.000000001s", 2**63 - 1: "2562047h47m16.854775807s",
    -(2**63): "-2562047h47m16.854775808s", 3_600_000_000_000: "1h0m0s", -1: "-1ns",
    60_000_000_000: "1m0s", 999_999_999: "999.999999ms", 1_000: "1µs",
}  # fmt: skip


@pytest.mark.parametrize("nanoseconds", DURATIONS)
def test_durations(nanoseconds: int) -> None:
    """The examples of Go's own tests of time.Duration."""
    text = DURATIONS[nanoseconds]
    assert duration_text(nanoseconds).encode("latin-1").decode() == f'"{text}"'
    if nanoseconds > -(2**63):
        assert duration_of(text) == nanoseconds


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_durations_both_ways(nanoseconds: int) -> None:
    text = json.loads(duration_text(nanoseconds).encode("latin-1"))
    assert duration_of(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "want"),
    [("1h", 3_600_000_000_000), ("-1.5h", -5_400_000_000_000), ("+5s", 5_000_000_000), ("0", 0),
     ("5.s", 5_000_000_000), (".5s", 500_000_000), ("1h15m30.918s", 4_530_918_000_000),
     ("10us", 10_000), ("10μs", 10_000), ("0.3333333333333333333h", 1_200_000_000_000 - 1)],
)  # fmt: skip
def test_durations_read(text: str, want: int) -> None:
    assert abs(duration_of(text) - want) <= 1


@pytest.mark.parametrize(
    "text", ["", "3", "-", "s", ".", "-.s", "1 h", "1d", "1h-5m", "3000000h", "1" * 200 + "s"]
)
def test_durations_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        duration_of(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (-0.0, "-0"), (1.0, "1"), (-1.5, "-1.5"), (0.1, "0.1"), (1e20, "1" + "0" * 20),
     (1e21, "1e+21"), (1.5e300, "1.5e+300"), (1e-6, "0.000001"), (1e-7, "1e-7"),
     (1.25e-7, "1.25e-7"), (1e-10, "1e-10"), (1.5e-100, "1.5e-100"), (5e-324, "5e-324"),
     (1.7976931348623157e308, "1.7976931348623157e+308"), (123456789.125, "123456789.125"),
     (9007199254740993.0, "9007199254740992")],
)  # fmt: skip
def test_doubles(number: float, text: str) -> None:
    assert double_text(number) == text
    assert json.loads(text) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_read_back(number: float) -> None:
    assert float(double_text(number)) == number


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_doubles_that_json_has_not(number: float) -> None:
    with pytest.raises(Unreadable):
        double_text(number)


@pytest.mark.parametrize(
    ("number", "bits", "want"),
    [(0, 32, 0), (1, 32, 1), (2**31, 32, -(2**31)), (2**64 - 1, 32, -1), (2**32 + 5, 32, 5),
     (2**63, 64, -(2**63)), (2**63 - 1, 64, 2**63 - 1), (2**64 - 1, 64, -1)],
)  # fmt: skip
def test_signed(number: int, bits: int, want: int) -> None:
    assert signed(number, bits) == want


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(DOCUMENTS, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_embedded_json_loses_its_spaces_only(
    document: object, indent: int | str | None, ascii_only: bool
) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    compact = json.dumps(document, separators=(",", ":"), ensure_ascii=ascii_only)
    assert raw_json(text.encode()) == compact.encode().decode("latin-1")
