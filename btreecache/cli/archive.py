"""`btreecache archive`: what an archive holds, whether it is sound, what it costs.

`info`, `verify` and `export` only read: they may run beside a process that writes, and right after
one was killed.

Exit codes: 0 done, or sound; 1 broken; 2 usage, or a file that can't be imported; 3 could not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from btreecache.cli import arguments, retention
from btreecache.cli.printing import bytes_member, key_text, printable, time_text
from btreecache.cli.progress import progress
from btreecache.cli.report import table
from btreecache.errors import ArchiveError, BadRequest

if TYPE_CHECKING:
    from btreecache.archive import Archive
    from btreecache.archive.contents import Contents
    from btreecache.archive.verify import Problem, Verification

#: Problems in the JSON of `verify`; the text has all of them.
PROBLEMS_MAX = 1_000


def add_parser(commands: Any) -> None:
    """Declare the commands and their flags."""
    parser = commands.add_parser(
        "archive", help="look at an archive, verify, pack, export, import it", description=__doc__,
        allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    below = parser.add_subparsers(required=True, metavar="COMMAND")
    one = _command(below, "info", "what it holds", run=info)
    one.add_argument("-o", "--output", choices=("text", "json"), default="text")
    one = _command(below, "verify", "is every retained revision as it was saved?", run=verify)
    one.add_argument("-o", "--output", choices=("text", "json"), default="text")
    one = _command(below, "pack", "set free what is no longer retained", run=pack)
    retention.add_flags(one, "first forget")
    one = _command(below, "export", "write a history as lines of JSON", run=export)
    for flag, what in (("--from", "the first revision"), ("--to", "the last one")):
        one.add_argument(
            flag, dest=f"{flag[2:]}_moment", type=arguments.moment, metavar="REVISION|TIME",
            help=f"{what} (default: all that is retained)",
        )  # fmt: skip
    one.add_argument("-f", "--file", metavar="FILE", help="(default: stdout)")
    one = _command(below, "import", "make a new history of a file", run=import_file)
    one.add_argument("-f", "--file", metavar="FILE", help="(default: stdin)")


def _command(commands: Any, name: str, what: str, *, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=run.__doc__, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--archive", required=True, metavar="URI", help="a path, zeo:// or postgresql://"
    )
    parser.add_argument(
        "--prefix", type=arguments.key_bytes, help="the history of this prefix (default: all)"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


@contextmanager
def opened(uri: str, *, read_only: bool = True) -> Iterator[Archive]:
    """The archive at a URI. Raises BadRequest, MissingExtra, ArchiveError."""
    from btreecache.archive import Archive

    archive = Archive.open(uri, read_only=read_only)
    try:
        yield archive
    finally:
        archive.close()


def _prefixes(archive: Archive, wanted: bytes | None) -> list[bytes]:
    """The histories that a command is about. Raises BadRequest."""
    found = archive.prefixes()
    if wanted is None:
        return found
    if wanted not in found:
        names = ", ".join(repr(key_text(prefix)) for prefix in found) or "none"
        raise BadRequest(f"no history of {key_text(wanted)!r}; there are: {names}")
    return [wanted]


def info(options: argparse.Namespace) -> int:
    """What an archive holds: histories, revisions, times, gaps, bytes."""
    from btreecache.archive.contents import contents

    with opened(options.archive) as archive:
        found = []
        for prefix in _prefixes(archive, options.prefix):
            with archive.reading(prefix) as reading:
                found.append(contents(reading))
        size, records = archive.size()
        if options.output == "json":
            histories = [_as_json(one) for one in found]
            whole = {"format": archive.format, "bytes": size, "records": records}
            print(json.dumps({**whole, "histories": histories}))
            return 0
        rows = [("format", f"{archive.format}"), ("size", _size(size, records))]
    print("\n".join(table(rows)))
    for one in found:
        print("\n" + "\n".join(table([*_rows(one)])))
    return 0


def _size(size: int, records: int) -> str:
    return f"{size:,} bytes, {records:,} records"


def _rows(one: Contents) -> Iterator[tuple[str, str]]:
    yield "history", key_text(one.prefix) or "(every key)"
    if one.groups:
        yield "oldest", f"{one.oldest} at {time_text(one.first_s)}"
        yield "newest batch", f"at {time_text(one.last_s)}"
        yield "durable", f"{one.durable} at {time_text(one.known_s)}"
    yield "elements", f"{one.elements:,}"
    yield "groups", f"{one.groups:,}: {one.checkpoints:,} checkpoints, {one.batches:,} batches"
    yield "retained", f"{one.size_bytes:,} bytes written"
    for gap in one.gaps:
        yield "gap", f"{gap.after} to {gap.revision}: {gap.reason} at {time_text(gap.at_s)}"


def _as_json(one: Contents) -> dict[str, Any]:
    gaps = [gap._asdict() for gap in one.gaps]
    members = one._asdict()
    return {**bytes_member("prefix", members.pop("prefix")), **members, "gaps": gaps}


def verify(options: argparse.Namespace) -> int:
    """Is every retained revision as it was saved? Each digest is computed again, each log replayed,
    each reference followed. Exit code 0: sound; 1: broken, and the problems are named."""

    done: list[Verification] = []
    problems: list[Problem] = []
    count = 0
    as_text = options.output == "text"
    with opened(options.archive) as archive:
        for problem in _problems(archive, options.prefix, done):
            count += 1
            if as_text:
                print(printable(str(problem)))
            elif len(problems) < PROBLEMS_MAX:
                problems.append(problem)
    sums = {
        name: sum(getattr(one, name) for one in done)
        for name in ("groups", "checkpoints", "batches", "elements")
    }
    verdict = "broken" if count else "sound"
    if as_text:
        rows = [(name, f"{number:,}") for name, number in sums.items()]
        print("\n".join(table([*rows, ("problems", f"{count:,}"), ("verdict", verdict)])))
    else:
        listed = [{**one._asdict(), "prefix": key_text(one.prefix)} for one in problems]
        result = {"verdict": verdict, **sums, "problems_total": count, "problems": listed}
        print(json.dumps(result))
    return 1 if count else 0


def _problems(
    archive: Archive, wanted: bytes | None, done: list[Verification]
) -> Iterator[Problem]:
    """Those of the file, and of one history or all."""
    from btreecache.archive.verify import Problem

    damage = archive.damage()
    if damage is not None:
        yield Problem(b"", 0, "file", damage)
    for prefix in _prefixes(archive, wanted):
        yield from _of_history(archive, prefix, done)


def _of_history(archive: Archive, prefix: bytes, done: list[Verification]) -> Iterator[Problem]:
    """Those of one history; `done` gets what was looked at."""
    from btreecache.archive.verify import Problem, Verification

    with ExitStack() as stack:
        try:
            walk, replay = (stack.enter_context(archive.reading(prefix)) for _ in range(2))
        except ArchiveError as error:
            yield Problem(prefix, 0, "", str(error))
            return
        verification = Verification(walk, replay)
        done.append(verification)
        total = len(walk.state.groups)
        with progress(f"verifying {key_text(prefix)}", total) as advance:
            yield from verification.problems(advance)


def pack(options: argparse.Namespace) -> int:
    """Set free what no retained revision needs. No other process may have a file open for writing;
    a ZEO server or a database may be written meanwhile."""
    with opened(options.archive) as archive:
        _prefixes(archive, options.prefix)  # That it is there, and is not made by packing it.
    with opened(options.archive, read_only=False) as archive:
        before = archive.size()
        if retention.is_named(options):
            forgotten = archive.trim(retention.named(options), options.prefix)
            print(f"forgotten  {forgotten:,} groups")
        archive.pack()
        print("\n".join(table([("before", _size(*before)), ("after", _size(*archive.size()))])))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a history, or a range of its revisions, as lines of JSON that `import` reads. A file is
    made with mode 0600, and is there once it is complete."""
    from btreecache.archive.exporting import exported
    from btreecache.archive.lines import written
    from btreecache.cli.past import ArchivePast

    with ExitStack() as stack:
        archive = stack.enter_context(opened(options.archive))
        if options.prefix is not None:
            _prefixes(archive, options.prefix)
        reading = stack.enter_context(archive.reading(options.prefix))
        past = ArchivePast(reading, reading.prefix)
        first, last = options.from_moment, past.revision(options.to_moment)
        first = reading.oldest if first is None else past.revision(first)
        file = stack.enter_context(_new_file(options.file))
        for text in written(exported(reading, first, last)):
            file.write(text)
    return 0


@contextmanager
def _new_file(path: str | None) -> Iterator[BinaryIO]:
    """stdout, or a file that replaces the one at the path when it is complete."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = f"{path}.part"
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)


def import_file(options: argparse.Namespace) -> int:
    """Make a new history of what `export` wrote, or of what `etcdctl get --prefix .. -w json` said,
    with the --prefix that it was asked for. A file that isn't whole and right changes nothing."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(options.file, "rb")) if options.file else None
        except OSError as error:
            raise BadRequest(f"{options.file}: {error.strerror}") from None
        archive = stack.enter_context(opened(options.archive, read_only=False))
        prefix, count = archive.import_file(file or sys.stdin.buffer, options.prefix)
    print(f"imported {key_text(prefix) or 'every key'}: {count:,} revisions")
    return 0
