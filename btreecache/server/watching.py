"""A watch, from its options to its stream: the driver of watch plans on an event loop.

What a plan needs is met by the resource's reader, so that a watch shares trips and waits with the
reads. Errors that a plan meets on its way are the stream's only event, as the API has it: a client
that watches has to be ready for them there anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from btreecache.element import Element
from btreecache.errors import BtreecacheError, FutureRevision
from btreecache.features import Features
from btreecache.options import ListOptions, WatchOptions
from btreecache.plan import (
    After,
    CurrentRevision,
    Outcome,
    Refuse,
    StartWatch,
    Step,
    TooLarge,
    Wait,
    after,
    plan_watch,
)
from btreecache.reader import AsyncReader
from btreecache.reads import Ask, Reads, Steps, Until
from btreecache.selection import Selection, select
from btreecache.selectors import FieldSelector, LabelSelector
from btreecache.watch_stream import WatchStream


class Begun(NamedTuple):
    """How a watch has begun: its stream, or what went wrong, to be said in the stream."""

    stream: WatchStream | None
    error: BtreecacheError | None = None


async def begin(
    reader: AsyncReader,
    options: WatchOptions,
    prefix: bytes,
    *,
    features: Features,
    deleted: Callable[[Element, int], Element],
    now: Callable[[], float],
) -> Begun:
    """Begin to watch the objects with `prefix`.

    Raises BadRequest, Invalid for options that mean nothing, NotReady: these are answers of their
    own. Everything else is said in the stream.
    """
    reads = reader.reads
    options = options.defaulted(features)
    selection = _selection(reads, options, features)
    try:
        stream = await reader.drive(_steps(reads, options, prefix, selection, deleted, now))
    except _InStream as refused:
        return Begun(None, refused.error)
    return Begun(stream)


class _InStream(Exception):
    """An error that belongs into the stream. Never leaves this module."""

    def __init__(self, error: BtreecacheError) -> None:
        super().__init__(str(error))
        self.error = error


def _selection(reads: Reads, options: WatchOptions, features: Features) -> Selection:
    """What the selectors mean; whatever is wrong is found in the order of an API server."""
    LabelSelector.parse(options.label_selector)
    FieldSelector.parse(options.field_selector)
    options.validate(features)
    asked = ListOptions(
        label_selector=options.label_selector, field_selector=options.field_selector
    )
    return select(asked, reads.names, reads.keys, reads.fields)


def _steps(
    reads: Reads,
    options: WatchOptions,
    prefix: bytes,
    selection: Selection,
    deleted: Callable[[Element, int], Element],
    now: Callable[[], float],
) -> Steps[WatchStream]:
    """Carry out the plan of a watch (the driver of plan.py)."""
    step: Step = plan_watch(options, reads.situation(reads.cache.state)).first
    asked = target = 0
    while True:
        outcome = Outcome.DONE
        match step:
            case CurrentRevision():
                try:
                    asked = yield Ask()
                except BtreecacheError as error:
                    raise _InStream(error) from None
            case Wait(revision=revision, deadline_s=deadline_s):
                target = asked if revision is None else revision
                if (yield Until(target, deadline_s)) is None:
                    outcome = Outcome.TIMED_OUT
            case StartWatch():
                if step.after is After.ASKED:
                    step = replace(step, after=asked)
                return WatchStream(
                    reads.cache, step, prefix,
                    predicate=None if selection.empty else selection.matches,
                    requirements=selection.requirements, deleted=deleted, now=now,
                )  # fmt: skip
            case TooLarge():
                raise _InStream(FutureRevision(target, reads.cache.revision))
            case Refuse(error=error, in_stream=in_stream):
                raise _InStream(error) if in_stream else error
            case _:
                raise AssertionError("a watch reads no pages")
        following = after(step, outcome)
        assert following is not None
        step = following
