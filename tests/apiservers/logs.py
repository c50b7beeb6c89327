"""What an API server complained of: warnings and errors of its log, without what differs anyway.

klog begins a line with its level, the date, the time, the thread and the place in the source. What
doesn't begin so goes with the line before (a stack, a wrapped message), or is a word of the runtime
itself, and that is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_HEAD = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ ([\w.\-]+):\d+\] (.*)")
#: Longest first: what is inside of another is replaced with it.
_VARIABLE = [
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uid>"),
    (re.compile(r"\b0x[0-9a-f]+\b"), "<address>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ][\d:.]+(Z| ?[+-]\d{4})?( UTC| [A-Z]{3,4})?"), "<time>"),
    (re.compile(r"\b127\.0\.0\.1:\d+\b"), "<peer>"),
    (re.compile(r"\b(\d+(\.\d+)?(ns|us|µs|ms|h|m|s))+\b"), "<duration>"),
    (re.compile(r"\d+"), "<n>"),
]
LEVELS = "WEF"


def normal(text: str) -> str:
    for pattern, name in _VARIABLE:
        text = pattern.sub(name, text)
    return text


def complaints(lines: Iterable[str]) -> Counter[str]:
    """How often each complaint comes: 'LEVEL file.go: message'."""
    found: Counter[str] = Counter()
    began = False
    for line in lines:
        match = _HEAD.match(line)
        if match is not None:
            began = True
            level, place, message = match.groups()
            if level in LEVELS:
                found[f"{level} {place}: {normal(message)}"] += 1
        elif line.startswith(("panic:", "fatal error:", "goroutine ")) or not began:
            found[f"F runtime: {normal(line.rstrip())}"] += 1
    return found


def errors(found: Iterable[str]) -> set[str]:
    """Those above a warning."""
    return {complaint for complaint in found if complaint[0] in "EF"}
