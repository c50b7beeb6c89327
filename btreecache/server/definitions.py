"""Definitions, live: the resources of a server follow the CustomResourceDefinitions of its source.

They are a resource with a cache like any other. When it changes, the definitions that are new are
read, and the server gets another set of resources: what was defined appears in discovery and can be
asked for, what is gone is 404 and its watches end. What can't be read makes no resource, and is
named in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from btreecache.cache import State
from btreecache.codec.base import Unreadable
from btreecache.codec.kubernetes_protobuf import MAGIC
from btreecache.codec.transcode import json_of
from btreecache.definitions import resource_of
from btreecache.element import Element
from btreecache.errors import BtreecacheError, NotReady, quoted
from btreecache.resources import Resource
from btreecache.server.caches import DEFINITIONS, Caches
from btreecache.snapshot import Snapshot

log = logging.getLogger(__name__)

#: How long a thread waits for a change in one go: the end of the server waits for it.
POLL_S = 0.5


class Definitions:
    """Keeps the resources of caches level with the definitions. One task runs it."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        self._base = caches.resources
        self._read: dict[bytes, tuple[Element, Resource | None]] = {}

    async def run(self) -> None:
        """Follow until the caches are stopped, if they want it."""
        resource = self._base.find(*DEFINITIONS)
        if resource is None or not self._caches.follows_definitions:
            return
        try:
            cache = self._caches.of(resource).cache
        except NotReady:
            return  # it is the end already
        seen: object = None
        while not cache.closed:
            state = cache.state
            if _mark(state) != seen:
                seen = _mark(state)
                try:
                    await self._take(state)
                except Exception:
                    # What was known goes on; the next change is another chance.
                    log.exception("definitions were not taken")
            await asyncio.to_thread(cache.wait_until, _is_not(seen), POLL_S)

    async def _take(self, state: State) -> None:
        try:
            snapshot = state.at(None)
        except BtreecacheError:
            return  # not filled, or resynchronising: what was known goes on
        defined = await asyncio.to_thread(self._defined, snapshot)
        await self._caches.define(self._base.extended(defined))

    def _defined(self, snapshot: Snapshot) -> list[Resource]:
        """The resources that are defined now. Built-in and configured ones can't be defined anew.

        O(definitions), and the bytes of those that have changed.
        """
        read, self._read = self._read, {}
        found: dict[tuple[str, str], Resource] = {}
        for element in snapshot:
            before = read.get(element.key)
            if before is not None and before[0] is element:
                resource = before[1]
            else:
                resource = _resource_of(element)
            self._read[element.key] = element, resource
            if resource is not None and not self._base.find(resource.group, resource.plural):
                found[resource.group, resource.plural] = resource
        return [*found.values()]


def _is_not(seen: object) -> Callable[[State], bool]:
    return lambda state: _mark(state) != seen


def _mark(state: State) -> object:
    """Changes when the definitions may have: not with every progress mark."""
    window = state.window
    return state.epoch, window and window.last_revision, state.suspect_after


def _resource_of(element: Element) -> Resource | None:
    value = element.value
    try:
        return resource_of(json_of(value) if value.startswith(MAGIC) else value)
    except Unreadable as error:
        key = quoted(element.key.decode(errors="surrogateescape"))
        log.warning("definition=%s refused=%s", key, quoted(str(error)))
        return None
