"""Values whose JSON is not their protobuf: times, durations, numbers, raw JSON. Both ways.

What is written is what Go writes. Text meant for JSON is a `str` that stands for bytes, one
character each (Latin-1): protobuf and JSON are both UTF-8, so a string passes through without
being decoded. All pure; O(length). Raises Unreadable.
"""

from __future__ import annotations

import math
import re
from datetime import date
from decimal import Decimal
from functools import lru_cache

import msgspec

from btreecache.codec.base import Unreadable

#: Seconds from 1970 to year 1, the zero value of a Go time, and to the end of year 9999.
ZERO_TIME = -62_135_596_800
TIME_MAX = 253_402_300_799

_EPOCH = date(1970, 1, 1).toordinal()
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)


@lru_cache(4096)
def time_text(seconds: int) -> str:
    """A Time in JSON: RFC 3339 in UTC, seconds only; `null` for the zero value."""
    if seconds == ZERO_TIME:
        return "null"
    return f'"{_clock(seconds)}Z"'


def micro_time_text(seconds: int, nanoseconds: int) -> str:
    """A MicroTime in JSON: always six digits after the point; `null` for the zero value."""
    micros = int(nanoseconds / 1000)
    seconds, micros = seconds + micros // 1_000_000, micros % 1_000_000
    if seconds == ZERO_TIME and not micros:
        return "null"
    return f'"{_clock(seconds)}.{micros:06d}Z"'


def _clock(seconds: int) -> str:
    if not ZERO_TIME <= seconds <= TIME_MAX:
        raise Unreadable("a time is outside the years 1 to 9999")
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    return f"{date.fromordinal(days + _EPOCH).isoformat()}T{hours:02d}:{minutes:02d}:{rest:02d}"


def time_of(text: str) -> tuple[int, int]:
    """Seconds since 1970 and nanoseconds of an RFC 3339 time."""
    if len(text) > 64:
        raise Unreadable("JSON: a time is too long")
    return _time_of(text)


@lru_cache(4096)
def _time_of(text: str) -> tuple[int, int]:
    found = _TIME.fullmatch(text)
    if found is None:
        raise Unreadable("JSON: a time is not RFC 3339")
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    if hour > 23 or minute > 59 or second > 59:
        raise Unreadable("JSON: a time is out of range")
    try:
        days = date(year, month, day).toordinal() - _EPOCH
    except ValueError as error:
        raise Unreadable("JSON: a time is out of range") from error
    seconds = days * 86_400 + hour * 3_600 + minute * 60 + second
    if found[8]:
        offset = int(found[9]) * 3_600 + int(found[10]) * 60
        seconds += offset if found[8] == "-" else -offset
    if not ZERO_TIME <= seconds <= TIME_MAX:
        raise Unreadable("JSON: a time is outside the years 1 to 9999")
    return seconds, int((found[7] or "0")[:9].ljust(9, "0"))


#: Go's units of a duration, in nanoseconds.
_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": 1_000_000_000,
          "m": 60_000_000_000, "h": 3_600_000_000_000}  # fmt: skip
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def duration_text(nanoseconds: int) -> str:
    """A duration as Go prints it, in quotes: `"1m30s"`."""
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left == 0:
        return '"0s"'
    for unit, size in (("ns", 1), ("\u00c2\u00b5s", 1_000), ("ms", 1_000_000)):
        if left < size * 1_000:
            return f'"{sign}{_fraction(left, size)}{unit}"'
    minutes, left = divmod(left, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    if left < 1_000_000_000 * 60 and not head:
        return f'"{sign}{_fraction(left, 1_000_000_000)}s"'
    return f'"{sign}{head}{_fraction(left, 1_000_000_000)}s"'


def _fraction(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).rjust(len(str(unit)) - 1, '0').rstrip('0')}"


def duration_of(text: str) -> int:
    """Nanoseconds of a duration as Go reads it."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if len(body) > 100:
        raise Unreadable("JSON: a duration is too long")
    if body == "0":
        return 0
    at, total = 0, 0
    for part in _PART.finditer(body):
        if part.start() != at:
            break
        at = part.end()
        number = Decimal(part[1]) * _UNITS[part[2]]
        total += int(number)
    if not body or at != len(body) or total > (1 << 63) - 1:
        raise Unreadable("JSON: a duration is not as Go writes it")
    return -total if text[0] == "-" else total


def double_text(number: float) -> str:
    """A float64 as Go's JSON has it."""
    if not math.isfinite(number):
        raise Unreadable("a number is not finite, which JSON can't say")
    size = abs(number)
    if size and (size < 1e-6 or size >= 1e21):
        text = repr(number)
        head, _, exponent = text.partition("e")
        if exponent.startswith("-0"):
            exponent = "-" + exponent[2:]
        return f"{head.removesuffix('.0')}e{exponent}"
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed(number: int, bits: int) -> int:
    """A varint cut to `bits` and read as two's complement, as Go does."""
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


_checked = msgspec.json.Decoder(msgspec.Raw).decode


def raw_json(data: bytes) -> str:
    """Embedded JSON as Go writes it out: checked, no white space between tokens."""
    try:
        if b" " in data or b"\n" in data or b"\t" in data or b"\r" in data:
            return msgspec.json.format(data, indent=-1).decode("latin-1")
        _checked(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unreadable("embedded JSON is not valid, or nested too deeply") from error
    return data.decode("latin-1")
