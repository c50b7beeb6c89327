"""The `btreecache` command. stdout is data, stderr is for people.

Exit codes: 0 consistent, 1 inconsistent, 2 usage, 3 unknown, which includes any unexpected error.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from btreecache.cli import archive, changes, check, gates, objects, serve
from btreecache.errors import BadRequest, BtreecacheError

#: What logs for itself: we, and what archives are kept on.
LOGS = ("btreecache", "ZODB", "ZEO", "relstorage", "txn")


class OneLineParser(argparse.ArgumentParser):
    """A usage error is one line, without the usage text in front."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    parser = OneLineParser(prog="btreecache", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (check, serve, objects, changes, archive, gates):
        command.add_parser(commands)
    options = parser.parse_args(argv)
    # The library sets no handlers; what it logs is for --debug, the report says what matters.
    if "log_handler" in options:
        handler = options.log_handler(options)
    else:
        handler = logging.StreamHandler() if options.debug else logging.NullHandler()
    logs = [logging.getLogger(name) for name in LOGS]
    for log in logs:
        log.addHandler(handler)
    try:
        code: int = options.run(options)
    except BadRequest as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except BrokenPipeError:
        sys.stderr.close()
        return 3
    except Exception as error:
        if options.debug:
            raise
        text = (
            str(error) if isinstance(error, BtreecacheError) else f"{type(error).__name__}: {error}"
        )
        print(f"{parser.prog}: {' '.join(text.split())}", file=sys.stderr)
        return 3
    finally:
        for log in logs:
            log.removeHandler(handler)
    return code
