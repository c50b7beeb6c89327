"""Log records that say what happened in fields: for who reads lines, and for who parses them.

The message is the fields as key=value, quoted where that is needed, so a line is a line whatever
came in; `record.fields` holds the values. Handlers and formats are the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from btreecache.errors import quoted

#: Characters of one value that are kept: what comes from outside may be as long as it likes.
VALUE_MAX = 500

Field = str | int | float | bool


def say(log: logging.Logger, level: int, event: str, **fields: Field) -> None:
    """Log an event. Texts are cut to VALUE_MAX. Nothing is made if nobody listens."""
    if not log.isEnabledFor(level):
        return
    kept = {"event": event} | {name: _cut(value) for name, value in fields.items()}
    log.log(level, "%s", _Line(kept), extra={"fields": kept})


def line(fields: Mapping[str, Field]) -> str:
    """Fields as key=value."""
    return " ".join(f"{name}={_shown(value)}" for name, value in fields.items())


class _Line:
    """The message, made by whoever wants it."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return line(self._fields)


def _cut(value: Field) -> Field:
    return value[:VALUE_MAX] + "..." if isinstance(value, str) and len(value) > VALUE_MAX else value


def _shown(value: Field) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, int):
        return str(value)
    text = quoted(value)
    is_word = value and text == f'"{value}"' and not {" ", "="} & {*value}
    return value if is_word else text
