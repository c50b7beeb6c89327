"""Values as they are written on the command line."""

from __future__ import annotations

import argparse
import math
import os
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_UNITS_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

#: A revision, or a time that knows its zone.
Moment = int | datetime


def duration_s(text: str) -> float:
    """`1h30m`, `90s`, `250ms`: one or more numbers with a unit, in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"malformed duration {text!r}: say 90s, 5m or 1h30m")
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"a duration must be positive: {text!r}")
    return seconds


def whole(text: str, least: int = 0) -> int:
    """A whole number of at least `least`, in ASCII digits."""
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}: {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A whole number above zero."""
    return whole(text, 1)


def byte_count(text: str) -> int:
    """`4096`, `500M`, `10G`: a number of bytes, units of 1024."""
    found = re.fullmatch(r"([0-9]{1,15})([KMGT]?)(?:i?B)?", text)
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(f"expected a number of bytes, 500M or 10G: {text!r}")
    return int(found[1]) * _UNITS_BYTES[found[2]]


def moment(text: str, now: Callable[[], float] = time.time) -> Moment:
    """A revision, or a time: RFC 3339, `2026-11-24T15:00` or `15:00` of here, an age like `10m`.

    `15:00` is the last one that has passed.
    """
    if re.fullmatch(r"[0-9]+", text):
        return positive(text)
    here = datetime.fromtimestamp(now()).astimezone()
    try:
        if re.fullmatch(r"\d\d:\d\d(:\d\d(\.\d+)?)?", text):
            found = datetime.fromisoformat(f"{here:%Y-%m-%d}T{text}").astimezone()
            if found > here:
                found = (found.replace(tzinfo=None) - timedelta(days=1)).astimezone()
            return found
        if re.match(r"\d{4}-\d\d-\d\d", text):
            return datetime.fromisoformat(text.upper()).astimezone()
        return here - timedelta(seconds=duration_s(text))
    except (argparse.ArgumentTypeError, ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"expected a revision, a time like 2026-11-24T15:00Z or 15:00, or an age: {text!r}"
        ) from None


def revisions(text: str) -> int | Literal["latest", "all"]:
    """`latest`, `all`, or how many."""
    if text == "latest":
        return "latest"
    if text == "all":
        return "all"
    return positive(text)


def key_bytes(text: str) -> bytes:
    """The bytes that were typed, whether or not they are UTF-8."""
    return os.fsencode(text)
