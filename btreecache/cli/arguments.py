"""Values as they are written on the command line."""

from __future__ import annotations

import argparse
import math
import os
import re
from typing import Literal

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str) -> float:
    """`1h30m`, `90s`, `250ms`: one or more numbers with a unit, in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
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
