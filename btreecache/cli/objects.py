"""`btreecache get`, `list` and `watch`: Kubernetes objects straight from an etcd, or an archive.

What etcd holds as protobuf is shown as what it says, at any revision that the source still has, or
the archive. An object that can't be read is named on stderr, the others are shown, and the exit
code is 3.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Any

from btreecache.cache import Cache
from btreecache.cli import arguments, origin, past, signals
from btreecache.cli.printing import FORMS, Shown, json_list, printer
from btreecache.codec import Kubernetes
from btreecache.codec.base import Unreadable
from btreecache.codec.kubernetes_protobuf import MAGIC
from btreecache.codec.transcode import json_of
from btreecache.element import Element
from btreecache.errors import NotFound, SourceError, quoted
from btreecache.follow import Follower
from btreecache.options import WatchOptions
from btreecache.reader import Reader
from btreecache.selectors import LabelSelector
from btreecache.watch_stream import WatchStream

#: --sim: revisions a second while watching.
WRITES = 10

#: Seconds between looks at the clock while nothing happens.
POLL_S = 0.2


def add_parser(commands: Any) -> None:
    """Declare the three commands and their flags."""
    get = command(commands, "get", "show one object", __doc__, run=get_one)
    get.add_argument("object_key", type=arguments.key_bytes, metavar="KEY")
    add_moment(get, "as it was then")
    listing = command(commands, "list", "show the objects of a prefix", __doc__, run=list_all)
    add_moment(listing, "as they were then")
    watch = command(commands, "watch", "show what changes", __doc__, run=watch_all, writes=WRITES)
    watch.add_argument(
        "--revision", type=arguments.positive, help="show what changed after it (default: now)"
    )
    watch.add_argument("--initial", action="store_true", help="show what is there now, first")
    watch.add_argument(
        "--for", dest="for_s", type=arguments.duration_s, metavar="DURATION",
        help="end after so long (default: with a signal)",
    )  # fmt: skip
    watch.add_argument(
        "--events", type=arguments.positive, metavar="N", help="end after so many events"
    )
    for one in (listing, watch):
        add_prefix(one)
        one.add_argument(
            "-l", "--selector", default="", help="a label selector, as kubectl takes it"
        )
    for one in (get, listing, watch):
        one.add_argument(
            "-o", "--output", choices=FORMS, default="table",
            help="name: the key, exactly one line an object (default table)",
        )  # fmt: skip


def command(
    commands: Any, name: str, what: str, about: str | None, *, run: Any, writes: int | None = None
) -> argparse.ArgumentParser:
    """A command about objects. `writes`: of a command that follows a source, revisions a second;
    others read an archive too."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=about, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    origin.add_flags(parser, verb="show", writes=writes or 0, archive=writes is None)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def add_prefix(parser: argparse.ArgumentParser) -> None:
    """Which keys."""
    parser.add_argument(
        "--prefix", type=arguments.key_bytes,
        help="(default /registry/; of an archive with one history all of it)",
    )  # fmt: skip


def add_moment(parser: argparse.ArgumentParser, what: str) -> None:
    """Which revision."""
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--revision", type=arguments.positive, help=f"{what} (default: now)")
    when.add_argument(
        "--at", type=arguments.moment, metavar="REVISION|TIME",
        help=f"{what}; a TIME, of an archive: 2026-11-24T15:00Z, 15:00 (both of here without a"
        " zone), 10m (ago)",
    )  # fmt: skip


class Shower:
    """Makes elements of a source what is shown of them; counts these, and those that can't be."""

    def __init__(self) -> None:
        self.count = self.failed = 0

    def shown(self, element: Element, event: str = "") -> Shown | None:
        """None for what can't be read; it is named on stderr."""
        try:
            found = Shown(element.key, text_of(element), event)
        except SourceError as error:
            self.failed += 1
            print(f"btreecache: {error}", file=sys.stderr)
            return None
        self.count += 1
        return found

    @property
    def code(self) -> int:
        """The exit code."""
        return 3 if self.failed else 0


def text_of(element: Element) -> bytes:
    """An element as JSON. Raises SourceError if it can't be read."""
    problem = element.problem
    if problem is None:
        try:
            value = element.value
            return json_of(value) if value.startswith(MAGIC) else value
        except Unreadable as error:
            problem = str(error)
    key = quoted(element.key.decode(errors="surrogateescape"))
    raise SourceError(f"{key} can't be decoded: {problem}")


def _write(texts: Iterable[str]) -> None:
    for text in texts:
        sys.stdout.write(text)
    sys.stdout.flush()


def get_one(options: argparse.Namespace) -> int:
    """Show one object; the exit code."""
    with past.opened(options, options.object_key) as source:
        found = source.get(options.object_key, source.revision(options.at or options.revision))
    if found is None:
        raise NotFound("keys", options.object_key.decode(errors="surrogateescape"))
    element = Kubernetes().decode(found)
    shown = Shown(element.key, text_of(element))
    _write(printer(options.output, time.time)([shown]))
    return 0


def list_all(options: argparse.Namespace) -> int:
    """Show the objects of a prefix at one revision, page by page; the exit code."""
    shower = Shower()
    selector, decode = LabelSelector.parse(options.selector), Kubernetes().decode
    with past.opened(options, options.prefix) as source:
        revision = source.revision(options.at or options.revision)
        shown = (
            one
            for element in map(decode, source.stored(source.prefix, revision))
            if element.problem is not None or selector.matches_pairs(element.labels)
            if (one := shower.shown(element))
        )
        if options.output == "json":
            _write(json_list(shown, revision))
        else:
            _write(printer(options.output, time.time)(shown))
    if not shower.count and not shower.failed:
        print("btreecache: no objects found", file=sys.stderr)
    return shower.code


def watch_all(options: argparse.Namespace) -> int:
    """Show what changes until the time is up or a signal comes; the exit code."""
    shower = Shower()
    ends_s = math.inf if options.for_s is None else time.monotonic() + options.for_s
    codec = Kubernetes()
    asked = WatchOptions(
        resource_version_match="NotOlderThan" if options.initial else "",
        send_initial_events=True if options.initial else None,
        label_selector=options.selector,
    )
    with signals.stopping() as stopping, origin.opened(options, writes=WRITES) as source:
        revision = options.revision or source.current_revision()
        prefix = past.PREFIX if options.prefix is None else options.prefix
        cache = Cache(prefix, codec=codec)
        cache.replace(revision, past.stored(source, prefix, revision))
        if not options.initial:
            asked = replace(asked, resource_version=str(revision))
        with Follower(source, cache, on_gap="diff", rng=Random()) as follower:
            reader = Reader(cache, source, follower=follower, codec=codec)
            stream = reader.watch(asked, prefix)
            shown = _events(stream, shower, lambda: stopping.is_set() or time.monotonic() >= ends_s)
            shown = islice(shown, options.events)
            for text in printer(options.output, time.time)(shown):
                sys.stdout.write(text)
                sys.stdout.flush()
    return shower.code


def _events(stream: WatchStream, shower: Shower, is_over: Callable[[], bool]) -> Iterator[Shown]:
    """What the stream says until it is over. Raises the error that ends it."""
    while not is_over() and not stream.ended:
        event = stream.receive(POLL_S)
        if event is None:
            continue
        if event.error is not None:
            raise event.error
        if event.element is not None and (one := shower.shown(event.element, event.type)):
            yield one
