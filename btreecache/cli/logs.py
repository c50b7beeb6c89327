"""The log of `serve`: --log-requests and --log-format; lines on stderr."""

from __future__ import annotations

import argparse
import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from btreecache.logs import Field, line


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare them. The command's handler is `handler`."""
    parser.add_argument(
        "--log-requests", action="store_true",
        help="log every request; else those that take more than a second",
    )  # fmt: skip
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text",
        help="lines of key=value (default), or of JSON",
    )  # fmt: skip
    parser.set_defaults(log_handler=handler)


def handler(options: argparse.Namespace) -> logging.Handler:
    """Where the log goes, and how it looks."""
    made = logging.StreamHandler()
    made.setFormatter(LineFormatter(options.log_format, tracebacks=options.debug))
    return made


@contextmanager
def levels(options: argparse.Namespace) -> Iterator[None]:
    """What is logged meanwhile."""
    log = logging.getLogger("btreecache")
    before = log.level
    log.setLevel(logging.DEBUG if options.debug else logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)


class LineFormatter(logging.Formatter):
    """A record in one line, whatever it holds.

    form         text, json
    tracebacks   whole ones; else an exception is its type and what it says
    """

    def __init__(self, form: str, *, tracebacks: bool = False) -> None:
        super().__init__()
        self._form = form
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Field] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        said: dict[str, Field] | None = getattr(record, "fields", None)
        fields |= {"message": record.getMessage()} if said is None else said
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            shown = traceback.format_exception if self._tracebacks else _summary
            fields["exception"] = "".join(shown(error)).strip()
        return json.dumps(fields) if self._form == "json" else line(fields)


def _summary(error: BaseException) -> list[str]:
    return traceback.format_exception_only(error)
