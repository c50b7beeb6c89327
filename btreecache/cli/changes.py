"""`btreecache diff` and `log`: what changed between two revisions, and what became of one object.

Over an archive, or over a source as far back as it isn't compacted. An object that can't be read is
named on stderr, and the exit code is 3.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from btreecache.cli import arguments, objects, past
from btreecache.cli.past import Version
from btreecache.cli.printing import bytes_member, key_text, printable, time_text
from btreecache.codec import Kubernetes
from btreecache.element import Element
from btreecache.errors import NotFound, SourceError

#: What stands before a key in a summary.
MARKS = {"created": "+", "updated": "~", "deleted": "-"}


def add_parser(commands: Any) -> None:
    """Declare the two commands and their flags."""
    diff = objects.command(commands, "diff", "show what changed", __doc__, run=diff_two)
    diff.add_argument("from_moment", type=arguments.moment, metavar="FROM")
    diff.add_argument(
        "to_moment", type=arguments.moment, nargs="?", metavar="TO", help="(default: now)"
    )
    objects.add_prefix(diff)
    diff.add_argument(
        "-o", "--output", choices=("summary", "unified", "json"), default="summary",
        help="summary: a line a key; unified: diffs of the objects as YAML; json: a line a key with"
        " the objects (default summary)",
    )  # fmt: skip
    log = objects.command(commands, "log", "show the history of an object", __doc__, run=log_one)
    log.add_argument("object_key", type=arguments.key_bytes, metavar="KEY")
    objects.add_moment(log, "what had happened by then")
    log.add_argument("-p", "--patch", action="store_true", help="with what changed, as YAML")
    log.add_argument("-n", "--limit", type=arguments.positive, metavar="N", help="so many changes")
    log.add_argument("--reverse", action="store_true", help="the oldest first")
    log.add_argument("-o", "--output", choices=("text", "json"), default="text")


class _Objects:
    """Elements as the texts that are compared; counts those that can't be read."""

    def __init__(self) -> None:
        self.failed = 0
        self._decode = Kubernetes().decode

    def text(self, element: Element | None) -> bytes | None:
        """As JSON; None: there is none, or it can't be read, which is told on stderr."""
        if element is None:
            return None
        try:
            return objects.text_of(self._decode(element))
        except SourceError as error:
            self.failed += 1
            print(f"btreecache: {error}", file=sys.stderr)
            return None

    def member(self, name: str, element: Element | None) -> dict[str, Any]:
        """For JSON: the object, or its bytes where it can't be read."""
        if element is None:
            return {}
        text = self.text(element)
        return bytes_member(name, element.value) if text is None else {name: json.loads(text)}

    def patch(self, key: bytes, old: Element | None, new: Element | None) -> Iterator[str]:
        """A unified diff, line by line."""
        before, after = self._lines(old), self._lines(new)
        if before is None or after is None:
            yield f"# {key_text(key)}: values that can't be shown differ"
            return
        names = [
            f"{key_text(key)}@{element.mod_revision}" if element else "/dev/null"
            for element in (old, new)
        ]
        found = difflib.unified_diff(before, after, names[0], names[1], lineterm="")
        yield from map(printable, found)

    def _lines(self, element: Element | None) -> list[str] | None:
        from btreecache.encoding.text import yaml

        if element is None:
            return []
        text = self.text(element)
        return None if text is None else yaml(text).decode().split("\n")[:-1]

    @property
    def code(self) -> int:
        """The exit code."""
        return 3 if self.failed else 0


def diff_two(options: argparse.Namespace) -> int:
    """Show what changed between two revisions; the exit code."""
    shown = _Objects()
    counts = dict.fromkeys(MARKS, 0)
    with past.opened(options, options.prefix) as source:
        old, new = (source.revision(one) for one in (options.from_moment, options.to_moment))
        for key, was, now in source.changes(source.prefix, old, new):
            change = "created" if was is None else "deleted" if now is None else "updated"
            counts[change] += 1
            if options.output == "json":
                members = {**bytes_member("key", key), "change": change}
                members |= shown.member("old", was) | shown.member("new", now)
                print(json.dumps(members))
            elif options.output == "unified":
                print("\n".join(shown.patch(key, was, now)))
            else:
                print(MARKS[change], key_text(key))
    if options.output == "summary":
        total = ", ".join(f"{count:,} {change}" for change, count in counts.items())
        print(f"{total} from revision {old} to {new}")
    return shown.code


def log_one(options: argparse.Namespace) -> int:
    """Show the history of one object; the exit code."""
    shown, key = _Objects(), options.object_key
    with past.opened(options, key) as source:
        upto = source.revision(options.at or options.revision)
        versions = source.versions(key, upto)
        if options.limit:
            versions = islice(versions, options.limit)
        found = list(versions) if options.reverse else versions
        count = 0
        for version in reversed(found) if isinstance(found, list) else found:
            count += version.element is not None or version.previous is not None
            for line in _shown(version, key, options, shown):
                print(line)
    if not count:
        raise NotFound("keys", key.decode(errors="surrogateescape"))
    return shown.code


def _shown(
    version: Version, key: bytes, options: argparse.Namespace, shown: _Objects
) -> Iterator[str]:
    if options.output == "json":
        members: dict[str, Any] = {"revision": version.revision, "change": version.change}
        if version.time_s is not None:
            members["time"] = time_text(version.time_s)
        if version.note:
            members["note"] = version.note
        yield json.dumps(members | shown.member("object", version.element))
        return
    when = "-" if version.time_s is None else time_text(version.time_s)
    yield f"{version.revision:<12} {when:<27} {version.change:<7} {version.note}".rstrip()
    if options.patch and version.change != "gap":
        yield from shown.patch(key, version.previous, version.element)
        yield ""
